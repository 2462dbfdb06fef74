"""Files written in one step, digests of JSON, and JSON that notices when it was changed."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_CHECKSUM = "checksum"
_CHUNK = 1 << 20


def write_atomically(path: Path, content: bytes | str, *, durable: bool = True) -> None:
    """Write or replace a file in one step: a reader sees all of the old content or all of the new.

    Args:
        path: the file; its folder must exist.
        content: bytes, or text that is written as UTF-8.
        durable: wait until the content is on the disk before the file gets its name, so that a power cut leaves no
            half-written file. Turn it off for thousands of files whose readers notice damage.

    Raises:
        OSError: the disk is full or the folder cannot be written; nothing is left behind then.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def reserved(folder: Path, size: int) -> Iterator[None]:
    """Hold room on a disk inside the ``with`` block, in a file that is deleted at its end.

    Args:
        folder: where something will be written afterwards; it is made.
        size: bytes that it will need at most.

    Yields:
        Nothing, while the room is held.

    Raises:
        OSError: the folder cannot be made or written, or the disk has too little room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    placeholder = folder / f".diffsift-{uuid.uuid4().hex[:8]}.room"
    try:
        with placeholder.open("wb") as file:
            for start in range(0, size, _CHUNK):  # written, not only asked for: not every file system keeps promises
                file.write(bytes(min(_CHUNK, size - start)))
            file.flush()
            os.fsync(file.fileno())
        yield
    finally:
        placeholder.unlink(missing_ok=True)


def digest(value: Any, length: int = 16) -> str:
    """SHA-256 of a value's canonical JSON (sorted keys), shortened.

    Args:
        value: anything that JSON can hold; tuples count as lists.
        length: hexadecimal digits to keep, at most 64.

    Returns:
        Equal for equal values, and practically never equal for others.
    """
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:length]


def sealed(document: Mapping[str, Any]) -> dict[str, Any]:
    """A JSON document with a checksum over everything in it.

    Args:
        document: to be written to a file as JSON.

    Returns:
        The document with one more field, ``checksum``.
    """
    plain = json.loads(json.dumps(document))
    return {**plain, _CHECKSUM: digest(plain, 64)}


def seal_holds(document: Mapping[str, Any]) -> bool:
    """Whether a document says what it said when it was `sealed`.

    Args:
        document: as it was read.

    Returns:
        False where the checksum is another one; True too where there is none, as in files of older versions.
    """
    rest = {name: value for name, value in document.items() if name != _CHECKSUM}
    return bool(document.get(_CHECKSUM, digest(rest, 64)) == digest(rest, 64))
