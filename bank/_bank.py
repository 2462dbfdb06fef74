"""The bank of a development set."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from diffsift.backbones import Activation, ActivationsByTimestep, Backbone
from diffsift.common.context import RunContext
from diffsift.errors import BankError
from diffsift.extraction import Standardiser
from diffsift.spaces import Candidate

from ._budget import check_budget, entry_bytes
from ._extraction import Extraction, fit_groups, fit_memory
from ._images import ImageSet
from ._pending import Entry, Place, places_of, stored_entry
from ._snapshot import read_snapshot, write_snapshot
from .development import DevelopmentSet
from .specification import BankSpecification

_POLL = 0.5
"""Seconds between looks at an entry that another process writes."""

_LEFT_BEHIND = 3600.0
"""Seconds after which a folder that is made or deleted in one step was left by a process that was killed."""


class Bank:
    """Entries of a development set in a folder that several studies share.

    Args:
        folder: made if missing.
        development: the images and locations.
        specification: sampling and compression.
        context: noise seed, batch size and reporter are used.
        study: noted in the entries that are used, for `inventory`.
    """

    def __init__(
        self,
        folder: Path,
        development: DevelopmentSet,
        specification: BankSpecification,
        context: RunContext,
        *,
        study: str | None = None,
    ) -> None:
        self._folder, self._development, self._specification = folder, development, specification
        self._context, self._study = context, study
        self._images = ImageSet(development, specification)
        self._extraction = Extraction(self._images, context, study)
        self._entries: dict[Candidate, Entry] = {}
        self.rejected: dict[Candidate, str] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BankError(f"the bank's folder {folder} cannot be made: {error.strerror}.") from error

    @property
    def development(self) -> DevelopmentSet:
        return self._development

    @property
    def size(self) -> int:
        """Bytes of all entries in use."""
        return sum(entry.size for entry in self._entries.values())

    def __getitem__(self, candidate: Candidate) -> Entry:
        return self._entries[candidate]

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self._entries

    def standardisers(self, candidates: Iterable[Candidate]) -> dict[Candidate, Standardiser]:
        """The standardiser of each of these candidates, all of which must be in the bank."""
        return {candidate: self._entries[candidate].standardiser for candidate in candidates}

    def share(self, path: Path, candidates: Sequence[Candidate]) -> None:
        """Write the file from which other processes reopen these entries: see `reopened`.

        Raises:
            BankError: it cannot be written.
        """
        folders = {candidate: self._entries[candidate].folder for candidate in candidates}
        write_snapshot(path, self._development, self._images.digests, folders)

    @classmethod
    def reopened(cls, path: Path, folder: Path, specification: BankSpecification, context: RunContext) -> Bank:
        """The entries that another process shared, to be read: neither images nor backbones are needed.

        Raises:
            BankError: the file or an entry cannot be used.
        """
        snapshot = read_snapshot(path)
        bank = cls(folder, snapshot.development, specification, context)
        for candidate, name in snapshot.folders.items():
            bank._entries[candidate] = stored_entry(candidate, folder / name, snapshot.development, snapshot.digests)
        return bank

    def estimate(self, wanted: ActivationsByTimestep) -> int:
        """Bytes that entries for these activations take."""
        return sum(self._bytes_of(activation) for activations in wanted.values() for activation in activations)

    def fit_memory(self, wanted: ActivationsByTimestep) -> int:
        """Bytes that it takes to fit statistics of the widest of these, a candidate at a time."""
        images = min(self._specification.fit_images, int(self._development.training.sum()))
        points, limit = int(self._development.points.shape[1]), self._specification.max_channels
        widths = {entry.channels for activations in wanted.values() for entry in activations}
        return max((fit_memory(images, points, channels, limit) for channels in widths), default=0)

    def check_budget(self, candidates: Sequence[Activation], baselines: Sequence[Activation] = ()) -> None:
        """Refuse a bank beyond `bank.budget_gb`, one activation per entry; baselines are always extracted.

        Raises:
            BankError: it would be larger; the message says which settings fit.
        """
        channels = [activation.channels for activation in (*candidates, *baselines)]
        check_budget(channels, self._development, self._specification, len(baselines))

    def passes(self, name: str, identity: dict[str, Any], wanted: ActivationsByTimestep) -> int:
        """How often a backbone has yet to run on an image (and noise draw) to fill the bank with these activations.

        Args:
            name: of the backbone.
            identity: of the backbone.
            wanted: activations by timestep.
        """
        return self._extraction.passes([place for place in self._places(name, identity, wanted) if not _whole(place)])

    def fill(self, backbone: Backbone, wanted: ActivationsByTimestep) -> int:
        """Make sure the bank holds these activations of a backbone, running it only for what is missing.

        What is extracted is kept image by image: stopped at any time, the next fill goes on at the image it stopped
        at. Entries that another process is writing are waited for.

        Returns:
            How many entries had to be extracted, in whole or in part. Candidates with a value that is not finite end
            up in `rejected`.

        Raises:
            BankError: the disk is full or cannot be written.
        """
        places = self._places(backbone.name, backbone.identity(), wanted)
        pending = [place for place in places if place.candidate not in self._entries and not self._open(place)]
        if pending:
            self._check_space(pending)
        count, said = 0, False
        try:
            while pending:
                extracted, pending = self._fill_unlocked(backbone, pending)
                count += extracted
                if pending:
                    said = said or self._say_waiting(pending[0])
                    time.sleep(_POLL)
            if self._study is not None:
                for place in places:
                    place.folder.note_study(self._study)
        except OSError as error:
            raise BankError(f"the bank in {self._folder} cannot be written: {error.strerror or error}.") from error
        return count

    def _fill_unlocked(self, backbone: Backbone, pending: Sequence[Place]) -> tuple[int, list[Place]]:
        """Fill the entries that no other process is writing; returns how many, and those that are still lacking."""
        held: list[Place] = []
        try:
            for place in pending:
                if place.folder.lock.acquire():
                    held.append(place)
                elif not held:
                    # Who writes the first most likely writes the others: two that share them would make every pass
                    # twice.
                    break
            # A moment ago another process may have finished it.
            mine = [place for place in held if not self._open(place)]
            if mine:
                self._sweep()
                self._extraction.run(backbone, mine, f"{backbone.name}: {type(backbone.denoiser).__name__}")
            for place in mine:
                if not self._open(place):
                    raise BankError(f"the entry of {place.candidate} in {self._folder} changed while it was written.")
        finally:
            for place in held:
                place.folder.lock.release()
        rest = [place for place in pending if place not in held]
        return len(mine), [place for place in rest if not self._open(place)]

    def _open(self, place: Place) -> bool:
        """Take up an entry that is whole, or the reason why its candidate cannot be used."""
        found = place.look()
        if isinstance(found, Entry):
            self._entries[place.candidate] = found
        elif found is not None:
            self.rejected[place.candidate] = found
        return found is not None

    def _places(self, name: str, identity: dict[str, Any], wanted: ActivationsByTimestep) -> list[Place]:
        return places_of(self._folder, name, identity, wanted, self._images, self._context.noise_seed)

    def _bytes_of(self, activation: Activation) -> int:
        images, rows = len(self._development.samples), self._development.rows
        return entry_bytes(activation.channels, images, rows, self._specification.max_channels)

    def _check_space(self, places: Sequence[Place]) -> None:
        share = {place.candidate: (len(place.unfit) + len(place.missing)) / len(self._images) for place in places}
        stored = sum(self._bytes_of(place.activation) * share[place.candidate] for place in places)
        transient = max(sum(place.raw_bytes for place in group) for group in fit_groups(places))
        needed, free = stored + transient, shutil.disk_usage(self._folder).free
        if needed > free:
            raise BankError(
                f"the bank needs {needed / 1e9:.1f} GB in {self._folder}, but {free / 1e9:.1f} GB are free: "
                "lower bank.pixels_per_image, drop timesteps or filter more activations."
            )

    def _say_waiting(self, place: Place) -> bool:
        self._context.reporter.warning(
            f"{place.folder.lock.holder()} is writing entries of the bank in {self._folder} that are needed here: "
            f"waiting for it (if it or its host is gone for good, delete {self._folder / '*.lock'})."
        )
        return True

    def _sweep(self) -> None:
        """Remove what processes that were killed left half-made or half-deleted."""
        for folder in self._folder.glob("*.partial"):
            if time.time() - folder.stat().st_mtime > _LEFT_BEHIND:
                shutil.rmtree(folder, ignore_errors=True)


def _whole(place: Place) -> bool:
    return place.look() is not None
