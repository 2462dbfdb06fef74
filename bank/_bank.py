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
from ._extraction import Extraction, fit_memory, raw_by_timestep
from ._images import ImageSet
from ._pending_entries import BackboneKey, Entry, PendingEntry, pending_entries, stored_entry
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
        folder: where entries lie; made if missing.
        development: the images and locations.
        specification: sampling and compression.
        context: noise seed, batch size and reporter are used.
        study: name that is written to the entries that are used, for `inventory`.

    Attributes:
        rejected: why a candidate cannot be used, by candidate.

    Raises:
        BankError: the folder cannot be made.
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
        """The images and locations whose features it holds."""
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
        """The standardisers of some candidates.

        Args:
            candidates: all must be in the bank.

        Returns:
            The standardiser of each.
        """
        return {candidate: self._entries[candidate].standardiser for candidate in candidates}

    def publish(self, path: Path, candidates: Sequence[Candidate]) -> None:
        """Write the file from which other processes reopen these entries with `reopened`.

        Args:
            path: of the file.
            candidates: all must be in the bank.

        Raises:
            BankError: it cannot be written.
        """
        folders = {candidate: self._entries[candidate].folder for candidate in candidates}
        write_snapshot(path, self._development, self._images.digests, folders)

    @classmethod
    def reopened(cls, path: Path, folder: Path, specification: BankSpecification, context: RunContext) -> Bank:
        """The entries that another process published, for reading: neither images nor backbones are needed.

        Args:
            path: of the file that `publish` wrote.
            folder: of the bank.
            specification: sampling and compression.
            context: of the run.

        Returns:
            A bank that holds these entries; it cannot be filled.

        Raises:
            BankError: the file or an entry cannot be used.
        """
        snapshot = read_snapshot(path)
        bank = cls(folder, snapshot.development, specification, context)
        for candidate, name in snapshot.folders.items():
            bank._entries[candidate] = stored_entry(candidate, folder / name, snapshot.development, snapshot.digests)
        return bank

    def estimate(self, activations: ActivationsByTimestep) -> int:
        """Estimate the size of entries for these activations.

        Args:
            activations: by timestep.

        Returns:
            Bytes on disk.
        """
        return sum(self._bytes_of(activation) for captured in activations.values() for activation in captured)

    def fit_memory(self, activations: ActivationsByTimestep) -> int:
        """Estimate the memory that fitting statistics takes, one candidate at a time.

        Args:
            activations: by timestep.

        Returns:
            Bytes at most.
        """
        images = min(self._specification.fit_images, int(self._development.training.sum()))
        points, limit = int(self._development.points.shape[1]), self._specification.max_channels
        widths = {entry.channels for captured in activations.values() for entry in captured}
        return max((fit_memory(images, points, channels, limit) for channels in widths), default=0)

    def check_budget(self, candidates: Sequence[Activation], baselines: Sequence[Activation] = ()) -> None:
        """Refuse a bank that exceeds `bank.budget_gb`.

        Args:
            candidates: the activation of each entry of the pool.
            baselines: the activation of each entry of the baselines, which are always extracted.

        Raises:
            BankError: it would be larger; the message says which settings fit.
        """
        channels = [activation.channels for activation in (*candidates, *baselines)]
        check_budget(channels, self._development, self._specification, len(baselines))

    def passes(self, name: str, identity: dict[str, Any], activations: ActivationsByTimestep) -> int:
        """How many passes of a backbone on an image are missing to fill the bank with these activations.

        Args:
            name: of the backbone.
            identity: of the backbone.
            activations: by timestep.

        Returns:
            Passes, one for each image, timestep and noise draw.
        """
        entries = self._pending(name, identity, activations)
        return self._extraction.passes([entry for entry in entries if entry.inspect() is None])

    def fill(self, backbone: Backbone, activations: ActivationsByTimestep) -> int:
        """Make sure the bank holds these activations of a backbone, running it only for what is missing.

        What is extracted is stored image by image: if a fill is stopped, the next one continues at the image where it
        stopped. Entries that another process is writing are waited for.

        Args:
            backbone: the backbone.
            activations: by timestep.

        Returns:
            How many entries had to be extracted, in whole or in part. Candidates with a value that is not finite end
            up in `rejected`, with the reason.

        Raises:
            BankError: the disk is full or cannot be written.
        """
        entries = self._pending(backbone.name, backbone.identity(), activations)
        pending = [entry for entry in entries if entry.candidate not in self._entries and not self._open(entry)]
        if pending:
            self._check_space(pending)
        count, warned = 0, False
        try:
            while pending:
                extracted, pending = self._fill_unlocked(backbone, pending)
                count += extracted
                if pending:
                    warned = warned or self._warn_of_waiting(pending[0])
                    time.sleep(_POLL)
            if self._study is not None:
                for entry in entries:
                    entry.folder.note_study(self._study)
        except OSError as error:
            raise BankError(f"the bank in {self._folder} cannot be written: {error.strerror or error}.") from error
        return count

    def _fill_unlocked(self, backbone: Backbone, pending: Sequence[PendingEntry]) -> tuple[int, list[PendingEntry]]:
        """Fill the entries that no other process is writing; returns how many, and those that are still lacking."""
        locked: list[PendingEntry] = []
        try:
            for entry in pending:
                if entry.folder.lock.acquire():
                    locked.append(entry)
                elif not locked:
                    # Who writes the first most likely writes the others: two processes that take some each would run
                    # every pass twice.
                    break
            # A moment ago another process may have finished it.
            mine = [entry for entry in locked if not self._open(entry)]
            if mine:
                self._sweep()
                about = f"{backbone.name}: {type(backbone.denoiser).__name__}"
                # Half of what is free: others write to the disk too.
                room = (shutil.disk_usage(self._folder).free - self._lacking(mine)) // 2
                self._extraction.run(backbone, mine, about, room)
            for entry in mine:
                if not self._open(entry):
                    raise BankError(f"the entry of {entry.candidate} in {self._folder} changed while it was written.")
        finally:
            for entry in locked:
                entry.folder.lock.release()
        rest = [entry for entry in pending if entry not in locked]
        return len(mine), [entry for entry in rest if not self._open(entry)]

    def _open(self, pending: PendingEntry) -> bool:
        """Take up an entry that is whole, or the reason why its candidate cannot be used."""
        found = pending.inspect()
        if isinstance(found, Entry):
            self._entries[pending.candidate] = found
        elif found is not None:
            self.rejected[pending.candidate] = found
        return found is not None

    def _pending(self, name: str, identity: dict[str, Any], activations: ActivationsByTimestep) -> list[PendingEntry]:
        key = BackboneKey(name, identity, self._context.noise_seed)
        return pending_entries(self._folder, key, activations, self._images)

    def _bytes_of(self, activation: Activation) -> int:
        images, rows = len(self._development.samples), self._development.rows
        return entry_bytes(activation.channels, images, rows, self._specification.max_channels)

    def _check_space(self, pending: Sequence[PendingEntry]) -> None:
        """Refuse to start where the disk will be full.

        Raw features lie beside the entries while statistics are fit, those of one timestep at least: without them, its
        passes would have to be made again.
        """
        stored, raw = self._lacking(pending), max(raw_by_timestep(pending).values(), default=0)
        free = shutil.disk_usage(self._folder).free
        if stored + raw <= free:
            return
        beside = f", {_size(raw)} of it while the statistics of a timestep are fit" if raw else ""
        raise BankError(
            f"the bank needs {_size(stored + raw)} in {self._folder}{beside}, but {_size(free)} are free: lower "
            f"bank.pixels_per_image{' or bank.fit_images' if raw else ''}, drop timesteps or filter more activations."
        )

    def _lacking(self, pending: Sequence[PendingEntry]) -> int:
        """Bytes that entries will grow by."""
        images = len(self._images)
        return sum(
            self._bytes_of(entry.activation) * (len(entry.unfit) + len(entry.missing)) // images for entry in pending
        )

    def _warn_of_waiting(self, entry: PendingEntry) -> bool:
        self._context.reporter.warning(
            f"{entry.folder.lock.holder()} is writing entries of the bank in {self._folder} that this search needs: "
            f"waiting for it (if it or its host no longer runs, delete {self._folder / '*.lock'})."
        )
        return True

    def _sweep(self) -> None:
        """Remove what processes that were killed left half-made or half-deleted."""
        for folder in self._folder.glob("*.partial"):
            if time.time() - folder.stat().st_mtime > _LEFT_BEHIND:
                shutil.rmtree(folder, ignore_errors=True)


def _size(count: float) -> str:
    """Bytes in a unit in which they are not rounded to nothing."""
    return f"{count / 1e9:.1f} GB" if count >= 1e8 else f"{count / 1e6:.1f} MB"
