"""Entries that a bank may have to fill: where each lies, and which images it lacks."""

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
from ._raw import RawFeatures, raw_bytes
from ._records import Features, Records
from ._statistics import decoded
from .development import DevelopmentSet


@dataclass(frozen=True)
class Entry:
    """Features of one candidate at the development set's locations.

    Attributes:
        candidate: the candidate.
        features: standardised and projected, float16 (images, rows, channels); see `DevelopmentSet.rows`.
        standardiser: the statistics and the projection that made them.
        size: bytes on disk.
        folder: the name of its folder in the bank.
    """

    candidate: Candidate
    features: Features
    standardiser: Standardiser
    size: int
    folder: str


@dataclass(eq=False)
class PendingEntry:
    """A candidate with its entry's folder, and what `inspect` found there last.

    Attributes:
        candidate: the candidate.
        activation: its activation.
        key: everything that shapes its features, the images left out.
        folder: of the entry.
        images: of the development set.
        description: what is stored of the entry; None where there is none.
        unfit: images whose raw features are still needed to fit statistics.
        missing: images that run through the backbone once statistics are fit.
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
    def frozen(self) -> bool:
        """Whether statistics are fit, or never will be."""
        return self.description is not None and self.description.frozen

    @property
    def points(self) -> int:
        """Locations per image."""
        return int(self.images.development.points.shape[1])

    @property
    def raw_bytes(self) -> int:
        """Bytes of the raw features that statistics are fit on."""
        return raw_bytes(len(self.images.fresh_fit), self.points, self.activation.channels)

    def raw(self) -> RawFeatures:
        return RawFeatures(self.folder.path, self.points, self.activation.channels)

    def records(self, standardiser: Standardiser) -> Records:
        return self.folder.features(self.images.development.rows, standardiser.channels)

    def inspect(self) -> Entry | str | None:
        """Look at what is stored, and update the attributes.

        Returns:
            The entry if it is whole; the reason why its candidate cannot be used; or None, where the attributes say
            what is missing.
        """
        self.description = None
        self._require(self.images.fresh_fit)
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
            self._require(description.fit)
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

    def _require(self, fit: Sequence[str]) -> None:
        self.unfit = self.images.positions(fit)
        self.missing = sorted(set(self.images.distinct) - set(self.unfit))


@dataclass(frozen=True)
class BackboneKey:
    """What of a backbone and its noise shapes features.

    Attributes:
        name: of the backbone.
        identity: of the backbone.
        noise_seed: of the noise added to images.
    """

    name: str
    identity: dict[str, Any]
    noise_seed: int


def pending_entries(
    folder: Path, backbone: BackboneKey, activations: ActivationsByTimestep, images: ImageSet
) -> list[PendingEntry]:
    """Every candidate of a backbone with its entry's folder: one that is there, or the one to be made.

    Args:
        folder: of the bank.
        backbone: what of it shapes features.
        activations: by timestep.
        images: of the development set.
    """
    names: dict[str, list[str]] = {}
    for path in folder.iterdir():
        family, _, fit = path.name.partition("-")
        if fit and "." not in fit:  # neither a lock nor half-made
            names.setdefault(family, []).append(path.name)
    pending = []
    for timestep, captured in activations.items():
        for activation in captured:
            key = _key(backbone, activation, timestep, images)
            family = family_of(key)
            entry = _usable(folder, names.get(family, []), images)
            entry = entry or EntryFolder(folder / entry_name(family, images.fresh_fit))
            candidate = Candidate(backbone.name, activation.name, timestep)
            pending.append(PendingEntry(candidate, activation, key, entry, images))
    return pending


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


def _key(backbone: BackboneKey, activation: Activation, timestep: int, images: ImageSet) -> dict[str, Any]:
    """Everything that shapes a feature, the images and their points left out."""
    development, specification = images.development, images.specification
    pooled: bool | str = development.pooled
    if pooled and pooling(activation.name) != "mean":
        pooled = pooling(activation.name)
    sharing = "one for all images" if backbone.identity.get("noise_shared") else "per image, from its content"
    return {
        "format": FORMAT,
        "backbone": backbone.identity,
        "activation": activation.name,
        "timestep": timestep,
        "noise": {"seed": backbone.noise_seed, "sharing": sharing},
        "points": {"per_image": int(development.points.shape[1]), "pooled": pooled},
        "max_channels": specification.max_channels,
        "fit": {"images": specification.fit_images, "seed": specification.seed},
    }
