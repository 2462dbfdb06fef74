"""What lies in a bank's folder, for whom, and how to be rid of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from ._entry import FORMAT, DamagedEntryError, Description, EntryFolder
from ._records import Records

State = Literal["sound", "unfinished", "rejected", "damaged", "unreadable", "left over", "being written"]


@dataclass(frozen=True)
class StoredEntry:
    """An entry as it lies in a bank.

    Attributes:
        path: its folder.
        model: backbone and network in words; empty where that is not known.
        activation: name of the activation; empty where that is not known.
        timestep: None where that is not known.
        images: number of its records.
        size: bytes on disk.
        studies: that used it.
        state: ``sound``: what is there is in order; ``unfinished``: statistics are not fit yet; ``rejected``: the
            candidate has values that are not finite; ``damaged``: records are not what was written (seen only where
            records are checked); ``unreadable``: description or statistics are not; ``left over``: of another format,
            or half-made by a process that was killed.
    """

    path: Path
    model: str
    activation: str
    timestep: int | None
    images: int
    size: int
    studies: tuple[str, ...]
    state: State


@dataclass(frozen=True)
class Removal:
    """A step of cleaning.

    Attributes:
        entry: the entry it is about.
        part: what is removed: the whole entry, its damaged records alone, or the mark that a study used it.
    """

    entry: StoredEntry
    part: Literal["entry", "damaged records", "study"]


def inventory(folder: Path, *, check: bool = False) -> list[StoredEntry]:
    """List the entries of a bank.

    Args:
        folder: of the bank; it may be missing.
        check: read all records and compare them with their checksums.

    Returns:
        Every entry, in the order of the folders' names.
    """
    if not folder.is_dir():
        return []
    return [_stored(path, check) for path in sorted(folder.iterdir()) if path.is_dir()]


def removals(
    entries: Iterable[StoredEntry], *, unused: bool = False, damaged: bool = False, study: str | None = None
) -> list[Removal]:
    """What cleaning would remove; entries that a process is writing stay.

    Args:
        entries: of `inventory`, made with `check` if `damaged` is true.
        unused: entries that no study used, and what is left over.
        damaged: entries that cannot be read, and damaged records of others. A search would extract them anew.
        study: entries that this study alone used.

    Returns:
        The steps, for `clean`.
    """
    found = []
    for entry in entries:
        if entry.state == "being written":
            continue
        if (damaged and entry.state == "unreadable") or (unused and (not entry.studies or entry.state == "left over")):
            found.append(Removal(entry, "entry"))
        elif study in entry.studies:
            found.append(Removal(entry, "entry" if entry.studies == (study,) else "study"))
        elif damaged and entry.state == "damaged":
            found.append(Removal(entry, "damaged records"))
    return found


def clean(steps: Sequence[Removal], *, study: str | None = None) -> list[Removal]:
    """Take the steps that `removals` found.

    Args:
        steps: of `removals`.
        study: the name that `removals` was given.

    Returns:
        The steps not taken because a process began to write the entry.
    """
    skipped = []
    for step in steps:
        folder = EntryFolder(step.entry.path)
        if not folder.lock.acquire():
            skipped.append(step)
            continue
        try:
            if step.part == "entry":
                folder.delete()
            elif step.part == "study" and study is not None:
                folder.forget_study(study)
            elif (description := folder.describe()) and (records := _records(folder, description)):
                records.drop_damaged()
        finally:
            folder.lock.release()
    return skipped


def _stored(path: Path, check: bool) -> StoredEntry:
    entry, description, images = EntryFolder(path), None, 0
    try:
        description = entry.describe()
        images, state = _looked_at(entry, description, check)
    except DamagedEntryError:
        old = path.suffix == ".partial" or (path / "features.npy").exists()
        state = "left over" if old else "unreadable"
    if entry.lock.held():
        state = "being written"
    return StoredEntry(
        path=path,
        model=description.about if description else "",
        activation=str(description.key["activation"]) if description else "",
        timestep=int(description.key["timestep"]) if description else None,
        images=images,
        size=entry.size(),
        studies=entry.studies(),
        state=state,
    )


def _looked_at(entry: EntryFolder, description: Description | None, check: bool) -> tuple[int, State]:
    """Images and state of an entry with a description."""
    if description is None or description.key["format"] != FORMAT:
        return 0, "left over"
    if description.rejected:
        return 0, "rejected"
    records = _records(entry, description)
    if records is None:
        return 0, "unfinished"
    return len(records), "damaged" if check and not bool(records.whole().all()) else "sound"


def _records(entry: EntryFolder, description: Description) -> Records | None:
    """The records of an entry whose statistics are fit."""
    if description.statistics is None:
        return None
    points = description.key["points"]
    channels = _stored_channels(entry.statistics(description))
    return entry.features(1 if points["pooled"] else int(points["per_image"]), channels)


def _stored_channels(statistics: bytes) -> int:
    """Channels of an entry's features, from the header of its safetensors: listing a bank needs no torch."""
    length = int.from_bytes(statistics[:8], "little")
    header = json.loads(statistics[8 : 8 + length])
    return int(header.get("projection", header["mean"])["shape"][-1])
