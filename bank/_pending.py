"""Where a candidate's entry lies, and which images it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffsift.backbones import Activation, ActivationsByTimestep
from diffsift.errors import BankError
from diffsift.extraction import Standardiser, pooling
from diffsift.spaces import Candidate

from ._entry import (
    FORMAT,
    DamagedEntryError,
    Description,
    EntryFolder,
    entry_name,
    family_of,
    not_finite,
)
from ._images import ImageSet
from ._records import Features, Records
from ._statistics import decoded
from .development import DevelopmentSet


@dataclass(frozen=True)
class Entry:
    """Features of one candidate at the development set's locations."""

    candidate: Candidate
    features: Features
    standardiser: Standardiser
    size: int  # bytes on disk
    folder: str  # its name in the bank


@dataclass(eq=False)
class Place:
    """A candidate with its entry's folder, and what was found there at the last look.

    Attributes:
        unfit: images whose raw features are still needed to fit statistics.
        missing: images that stream through once statistics are fit.
    """

    candidate: Candidate
    activation: Activation
    key: dict[str, Any]
    folder: EntryFolder
    images: ImageSet
    description: Description | None = None
    unfit: list[int] = field(default_factory=list)
    missing: list[int] = field(default_factory=list)

    @property
    def settled(self) -> bool:
        """Whether statistics are fit, or never will be."""
        return self.description is not None and self.description.settled

    @property
    def points(self) -> int:
        return int(self.images.development.points.shape[1])

    @property
    def raw_bytes(self) -> int:
        """Of the raw features that statistics are fit on."""
        return len(self.images.fresh_fit) * self.points * self.activation.channels * 4

    def raw(self) -> Records:
        return self.folder.raw(self.points, self.activation.channels)

    def records(self, standardiser: Standardiser) -> Records:
        return self.folder.features(self.images.development.rows, standardiser.channels)

    def look(self) -> Entry | str | None:
        """The entry if it is whole, why its candidate cannot be used, or None; then the attributes say what lacks."""
        self.description = None
        self._lack(self.images.fresh_fit)
        try:
            description = self.folder.describe()
            fit = description is not None and description.statistics is not None
            standardiser = decoded(self.folder.statistics(description)) if description and fit else None
        except DamagedEntryError:
            return None
        self.description = description
        if description is None or description.rejected:
            return None if description is None else description.rejected
        if standardiser is None:
            self._lack(description.fit)
            whole = self.raw().whole(self.images.of(self.unfit))
            self.unfit = [image for image, there in zip(self.unfit, whole, strict=True) if not there]
            return None
        records, digests = self.records(standardiser), self.images.digests
        bad = records.not_finite(digests)
        if bad:
            return not_finite(bad)
        self.unfit, self.missing = [], np.flatnonzero(~records.whole(digests)).tolist()
        if self.missing:
            return None
        return Entry(self.candidate, records.features(digests), standardiser, self.folder.size(), self.folder.path.name)

    def _lack(self, fit: Sequence[str]) -> None:
        self.unfit = self.images.positions(fit)
        self.missing = sorted(set(self.images.distinct) - set(self.unfit))


def places_of(
    folder: Path, name: str, identity: dict[str, Any], wanted: ActivationsByTimestep, images: ImageSet, noise_seed: int
) -> list[Place]:
    """Every wanted candidate of a backbone with its entry's folder: one that is there, or the one to be made."""
    names: dict[str, list[str]] = {}
    for path in folder.iterdir():
        family, _, fit = path.name.partition("-")
        if fit and "." not in fit:  # neither a lock nor half-made
            names.setdefault(family, []).append(path.name)
    places = []
    for timestep, activations in wanted.items():
        for activation in activations:
            key = _key(identity, activation, timestep, images, noise_seed)
            family = family_of(key)
            entry = _usable(folder, names.get(family, []), images)
            entry = entry or EntryFolder(folder / entry_name(family, images.fresh_fit))
            places.append(Place(Candidate(name, activation.name, timestep), activation, key, entry, images))
    return places


def stored_entry(candidate: Candidate, path: Path, development: DevelopmentSet, digests: Sequence[bytes]) -> Entry:
    """An entry that another process looked at and found whole, by its folder.

    Raises:
        BankError: it is not there any more, or damaged.
    """
    folder = EntryFolder(path)
    try:
        description = folder.describe()
        if description is None or description.statistics is None:
            raise DamagedEntryError("it is not there")
        standardiser = decoded(folder.statistics(description))
        features = folder.features(development.rows, standardiser.channels).features(digests)
    except (DamagedEntryError, KeyError, OSError, ValueError) as error:
        raise BankError(
            f"the entry of {candidate} in {path} cannot be read ({error}): 'diffsift resume' extracts it again."
        ) from error
    return Entry(candidate, features, standardiser, folder.size(), path.name)


def _usable(folder: Path, names: Sequence[str], images: ImageSet) -> EntryFolder | None:
    """The oldest entry whose statistics may be used for this data set.

    See `ImageSet.represented_by`. So entries outlive that images are added, and a data set finds the same each time.
    """
    found = []
    for name in names:
        entry = EntryFolder(folder / name)
        try:
            description = entry.describe()
        except DamagedEntryError:
            continue
        if description is not None and images.represented_by(description.fit):
            found.append((description.created, name, entry))
    return min(found)[2] if found else None


def _key(
    identity: dict[str, Any], activation: Activation, timestep: int, images: ImageSet, noise_seed: int
) -> dict[str, Any]:
    """Everything that shapes a feature, the images and their points left out."""
    development, specification = images.development, images.specification
    pooled: bool | str = development.pooled
    if pooled and pooling(activation.name) != "mean":
        pooled = pooling(activation.name)
    sharing = "one for all images" if identity.get("noise_shared") else "per image, from its content"
    return {
        "format": FORMAT,
        "backbone": identity,
        "activation": activation.name,
        "timestep": timestep,
        "noise": {"seed": noise_seed, "sharing": sharing},
        "points": {"per_image": int(development.points.shape[1]), "pooled": pooled},
        "max_channels": specification.max_channels,
        "fit": {"images": specification.fit_images, "seed": specification.seed},
    }
