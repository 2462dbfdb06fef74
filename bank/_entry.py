"""One entry of the bank on disk: the folder of a candidate."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import uuid
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from diffsift.common.files import digest, write_atomically

from ._lock import EntryLock
from ._records import Records

FORMAT = 2
"""Of an entry: raised whenever what is stored, or how it is computed, changes."""

_DESCRIPTION, _STATISTICS, _STUDIES = "entry.json", "statistics.safetensors", "studies"


class DamagedEntryError(Exception):
    """The description or the statistics of an entry are not what was written: it must be made anew."""


@dataclass(frozen=True)
class Description:
    """What is known of an entry beside its features.

    Attributes:
        key: everything that shapes a feature, the images left out.
        fit: digests (hexadecimal) of the images that statistics are fit on, in order; frozen when the entry is made.
        created: seconds since 1970.
        about: the model in words, for listings.
        statistics: checksum of their file; None until they are fit.
        rejected: why the candidate cannot be used, found while statistics were fit.
    """

    key: dict[str, Any]
    fit: tuple[str, ...]
    created: float
    about: str
    statistics: int | None = None
    rejected: str | None = None

    @property
    def frozen(self) -> bool:
        """Whether statistics are fit, or never will be: from then on the description does not change."""
        return self.statistics is not None or self.rejected is not None


class EntryFolder:
    """The folder of an entry.

    Args:
        path: of the folder; its name is that of the entry.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    @cached_property
    def lock(self) -> EntryLock:
        """Held by the process that writes the entry."""
        return EntryLock(self.path.with_name(f"{self.path.name}.lock"))

    def describe(self) -> Description | None:
        """Read the description; None where there is no entry.

        Raises:
            DamagedEntryError: it cannot be read or was changed.
        """
        try:
            stored = json.loads((self.path / _DESCRIPTION).read_text(encoding="utf-8"))
            check = stored.pop("check")
            if check != zlib.crc32(_canonical(stored)):
                raise ValueError("checksum")
            return Description(**{**stored, "fit": tuple(stored["fit"])})
        except FileNotFoundError as error:
            if self.path.exists():
                raise DamagedEntryError("it has no description") from error
            return None
        except (ValueError, KeyError, TypeError, AttributeError, OSError) as error:
            raise DamagedEntryError("its description is damaged") from error

    def create(self, description: Description) -> None:
        """Make the folder with its description, in one step; what was there is deleted."""
        temporary = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.partial")
        temporary.mkdir(parents=True)
        _write_description(temporary, description)
        self.delete()
        temporary.rename(self.path)

    def freeze(self, description: Description, found: bytes | str) -> Description:
        """Store the fitted statistics, or the reason why the candidate cannot be used.

        Returns:
            The description that is stored now.
        """
        if isinstance(found, str):
            frozen = replace(description, rejected=found)
        else:
            write_atomically(self.path / _STATISTICS, found, durable=False)
            frozen = replace(description, statistics=zlib.crc32(found))
        _write_description(self.path, frozen)
        return frozen

    def statistics(self, description: Description) -> bytes:
        """The fitted statistics as they were stored.

        Raises:
            DamagedEntryError: their file is not what was written.
        """
        try:
            content = (self.path / _STATISTICS).read_bytes()
        except OSError as error:
            raise DamagedEntryError("its statistics cannot be read") from error
        if zlib.crc32(content) != description.statistics:
            raise DamagedEntryError("its statistics are damaged")
        return content

    def features(self, rows: int, channels: int) -> Records:
        return Records(self.path, "features", (rows, channels), "float16")

    def note_study(self, study: str) -> None:
        """Write down that a study uses the entry; a bank that may only be read stays as it is."""
        marker = self.path / _STUDIES / study
        if not marker.exists() and os.access(self.path, os.W_OK):
            marker.parent.mkdir(exist_ok=True)
            marker.touch()

    def forget_study(self, study: str) -> None:
        (self.path / _STUDIES / study).unlink(missing_ok=True)

    def studies(self) -> tuple[str, ...]:
        folder = self.path / _STUDIES
        return tuple(sorted(file.name for file in folder.iterdir())) if folder.is_dir() else ()

    def size(self) -> int:
        """Bytes on disk."""
        return sum(file.stat().st_size for file in self.path.rglob("*") if file.is_file())

    def delete(self) -> None:
        if self.path.is_dir():
            doomed = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}.partial")
            self.path.rename(doomed)  # in one step: nobody finds half an entry
            shutil.rmtree(doomed, ignore_errors=True)


def not_finite(share: float) -> str:
    """Why a candidate with this share of values that are not finite cannot be used."""
    return f"not finite (NaN or infinite) in {share:.2%} of its values; where model.dtype is float16, try bfloat16"


def family_of(key: dict[str, Any]) -> str:
    """What the names of all entries of a key begin with; they differ in the images statistics were fit on."""
    return digest(key, 24)


def entry_name(family: str, fit: Sequence[str]) -> str:
    """The name of an entry's folder: its family, and the images that its statistics are fit on."""
    return f"{family}-{hashlib.sha256(''.join(fit).encode()).hexdigest()[:8]}"


def _write_description(folder: Path, description: Description) -> None:
    stored = {**vars(description), "fit": list(description.fit)}
    stored["check"] = zlib.crc32(_canonical(stored))
    write_atomically(folder / _DESCRIPTION, json.dumps(stored, indent=1), durable=False)


def _canonical(stored: dict[str, Any]) -> bytes:
    return json.dumps(stored, sort_keys=True).encode()


def new_description(key: dict[str, Any], fit: Sequence[str], about: str) -> Description:
    """The description of an entry that is made now."""
    return Description(key, tuple(fit), time.time(), about)
