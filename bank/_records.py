"""Arrays of one shape by digest, in two files: what an entry of the bank is made of.

``NAME.bin`` holds the arrays one after another, each in a slot; ``NAME.index`` holds a row per slot: the digest, the
array's checksum, the share of its values that are not finite (such an array is not stored), and a checksum of the row.
A slot is written first and its row afterwards, so what a killed process leaves half-written has no valid row; a slot
whose checksum is off counts as missing and is written anew. Nothing else is ever moved or rewritten.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Bool, Int, Shaped
from numpy.typing import DTypeLike

DIGEST_BYTES = 16
_ROW = np.dtype([("digest", f"S{DIGEST_BYTES}"), ("crc", "<u4"), ("bad", "<f4"), ("check", "<u4")])
_CHECKED = _ROW.itemsize - 4
_CHUNK = 1 << 22
"""Bytes that are read at once to compute a checksum."""


Array = Shaped[np.ndarray, "..."]


class Features:
    """Features (images, points, channels) that are read from disk when they are indexed, never all at once.

    Indexing gives a NumPy array: a view of the mapped file where the images lie one after another in it, else a copy
    of the images asked for.

    Args:
        stored: the mapped file, (slots, points, channels).
        slots: slot of each image.
    """

    ndim = 3

    def __init__(self, stored: Shaped[np.ndarray, "slots points channels"], slots: Int[np.ndarray, "images"]) -> None:
        self._stored, self._slots = stored, slots
        self.dtype: np.dtype[Any] = stored.dtype

    @property
    def shape(self) -> tuple[int, int, int]:
        """(images, points, channels)."""
        return (len(self._slots), int(self._stored.shape[1]), int(self._stored.shape[2]))

    @property
    def nbytes(self) -> int:
        """Bytes of all features, were they in memory."""
        images, points, channels = self.shape
        return images * points * channels * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._slots)

    def __getitem__(self, key: Any) -> Array:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is None or first is Ellipsis:
            raise IndexError(f"the first index must select images (a number, slice or array), but got {first}.")
        slots = self._slots[first]
        if slots.ndim == 0:
            return np.asarray(self._stored[int(slots)][tuple(rest)])
        if len(slots) and (slots == np.arange(slots[0], slots[0] + len(slots))).all():
            picked = self._stored[slots[0] : slots[0] + len(slots)]
        else:
            picked = self._stored[slots]
        return np.asarray(picked[(slice(None), *rest)])

    def images(self, start: int, end: int) -> Features:
        """Features of some images, still on disk.

        Args:
            start: the first image.
            end: the image behind the last one.

        Returns:
            Features of the images from `start` to before `end`.
        """
        return Features(self._stored, self._slots[start:end])

    def astype(self, dtype: DTypeLike) -> Array:
        """Read all features into memory.

        Args:
            dtype: of the result.

        Returns:
            (images, points, channels).
        """
        return np.asarray(self[:].astype(dtype))

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> Array:
        whole = self[:]
        return np.array(whole, dtype=dtype, copy=True) if copy else np.asarray(whole, dtype=dtype)


class Records:
    """Arrays by digest in a folder.

    Args:
        folder: exists once something is written.
        name: of the two files, without suffix.
        shape: of every array.
        dtype: of every array.
    """

    def __init__(self, folder: Path, name: str, shape: tuple[int, ...], dtype: DTypeLike) -> None:
        self._data, self._index = folder / f"{name}.bin", folder / f"{name}.index"
        self._shape, self._dtype = shape, np.dtype(dtype)
        self._bytes = int(np.prod(shape)) * self._dtype.itemsize
        # Kept as it is on disk: of many entries and images together, objects would take tens of megabytes.
        content = self._index.read_bytes() if self._index.exists() else b""
        self._table = np.frombuffer(content[: len(content) // _ROW.itemsize * _ROW.itemsize], _ROW).copy()
        self._valid = np.array([_check_of(row) == row["check"] for row in self._table], dtype=bool)

    def __len__(self) -> int:
        return int(self._valid.sum())

    def not_finite(self, digests: Sequence[bytes]) -> float:
        """The largest share of values that are not finite among these arrays; 0 where none is there."""
        slots = self._slots()
        return max((float(self._table["bad"][slots[digest]]) for digest in digests if digest in slots), default=0.0)

    def whole(self, digests: Sequence[bytes] | None = None) -> Bool[np.ndarray, "digests"]:
        """Per digest (default: all there are), whether its array is there with the right checksum, or known as bad."""
        slots = self._slots()
        asked = list(slots) if digests is None else digests
        known: dict[bytes, bool] = {}
        with _opened(self._data, write=False) as file:
            for digest in sorted(set(asked) & set(slots), key=lambda entry: slots[entry]):
                row = self._table[slots[digest]]
                known[digest] = bool(row["bad"] > 0 or self._checksum(file, slots[digest]) == row["crc"])
        return np.array([known.get(digest, False) for digest in asked], dtype=bool)

    def drop_damaged(self) -> int:
        """Free the slots whose checksum is off; returns how many."""
        slots = self._slots()
        damaged = [slot for slot, whole in zip(slots.values(), self.whole(list(slots)), strict=True) if not whole]
        _write(self._index, _ROW.itemsize, damaged, [bytes(_ROW.itemsize)] * len(damaged))
        self._valid[damaged] = False
        return len(damaged)

    def write(
        self,
        digests: Sequence[bytes],
        positions: Sequence[int],
        arrays: Array,
        *,
        only_finite: bool = True,
    ) -> None:
        """Store arrays, or replace them.

        Args:
            digests: one per array.
            positions: the slot to take for each, if it is free: neighbours are then read together.
            arrays: along the first axis.
            only_finite: of an array with other values, note their share and store nothing else.
        """
        values = np.ascontiguousarray(arrays, self._dtype)
        bad = np.zeros(len(values))
        if only_finite and not np.isfinite(values).all():
            bad = 1 - np.isfinite(values).reshape(len(values), -1).mean(1)
        contents = [b"" if share else entry.data.cast("B") for entry, share in zip(values, bad, strict=True)]
        slots = [self._slot(digest, position) for digest, position in zip(digests, positions, strict=True)]
        for digest, slot, content, share in zip(digests, slots, contents, bad, strict=True):
            self._table[slot] = (digest, zlib.crc32(content), share, 0)
            self._table["check"][slot] = _check_of(self._table[slot])
        _write(self._data, self._bytes, slots, contents)
        _write(self._index, _ROW.itemsize, slots, [self._table[slot].tobytes() for slot in slots])

    def features(self, digests: Sequence[bytes]) -> Features:
        """Arrays of these digests, mapped. They must be there; the arrays must have two axes."""
        slot_of = self._slots()
        slots = np.array([slot_of[digest] for digest in digests], dtype=np.int64)
        stored: Array = np.memmap(self._data, self._dtype, mode="r", shape=(int(slots.max()) + 1, *self._shape))
        return Features(stored, slots)

    def delete(self) -> None:
        self._data.unlink(missing_ok=True)
        self._index.unlink(missing_ok=True)
        self._table, self._valid = self._table[:0], self._valid[:0]

    def _slots(self) -> dict[bytes, int]:
        """Slots by digest."""
        content, size = self._table.tobytes(), _ROW.itemsize
        slots = np.flatnonzero(self._valid).tolist()
        return {content[slot * size : slot * size + DIGEST_BYTES]: slot for slot in slots}

    def _slot(self, digest: bytes, position: int) -> int:
        """The slot that an array has or gets: that of its position, else the first free one."""
        found = np.flatnonzero((self._table["digest"] == digest) & self._valid)
        if len(found):
            return int(found[0])
        if position < len(self._valid) and self._valid[position]:
            free = np.flatnonzero(~self._valid)
            position = int(free[0]) if len(free) else len(self._valid)
        if position >= len(self._valid):
            more = position + 1 - len(self._valid)
            self._table = np.concatenate([self._table, np.zeros(more, _ROW)])
            self._valid = np.concatenate([self._valid, np.zeros(more, dtype=bool)])
        self._valid[position] = True
        return position

    def _checksum(self, file: BinaryIO, slot: int) -> int:
        file.seek(slot * self._bytes)
        crc, left = 0, self._bytes
        while left:
            part = file.read(min(left, _CHUNK))
            if not part:
                return -1  # the file was cut short
            crc, left = zlib.crc32(part, crc), left - len(part)
        return crc


def _check_of(row: np.void) -> int:
    return zlib.crc32(row.tobytes()[:_CHECKED])


def _write(path: Path, size: int, slots: Sequence[int], contents: Sequence[bytes | memoryview]) -> None:
    """Write contents into their slots of `size` bytes."""
    with _opened(path, write=True) as file:
        for slot, content in zip(slots, contents, strict=True):
            if file.tell() != slot * size:
                file.seek(slot * size)
            file.write(content)


@contextmanager
def _opened(path: Path, *, write: bool) -> Iterator[BinaryIO]:
    flags = os.O_RDWR | os.O_CREAT if write else os.O_RDONLY
    try:
        handle = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o644)
    except FileNotFoundError:
        if write:
            raise
        handle = os.open(os.devnull, os.O_RDONLY)  # nothing is there, so nothing is whole
    with os.fdopen(handle, "r+b" if write else "rb") as file:
        yield file
