"""How many images run together: as many as memory holds, found out by running out of it."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import psutil
import torch

from diffsift.common.reporting import LOGGER

Part = TypeVar("Part")

_PATIENCE = 8
"""Parts that must run at a limit before twice as many images are tried again."""


class BatchLimit:
    """The images of a batch that one step (encoding, or denoising) runs together.

    When memory runs out, half as many run together. After some parts have run so, twice as many are tried again:
    memory may have been short for a moment only. Each failure doubles the number of parts until then.

    Args:
        step: in words, for the warning.
    """

    def __init__(self, step: str) -> None:
        self._step = step
        self._limit: int | None = None
        self._patience, self._ran = _PATIENCE, 0

    def run(self, count: int, run: Callable[[slice], Part], *, most: int | None = None) -> list[Part]:
        """Call `run` on parts of a batch that cover it.

        Args:
            count: images of the batch.
            run: called with the images of a part.
            most: images of a part at most; None: the whole batch.

        Returns:
            What each call returned.

        Raises:
            MemoryError: memory does not hold a single image.
        """
        found: list[Part] = []
        start = 0
        while start < count:
            size = min(count - start, self._limit or count, most or count)
            try:
                part = run(slice(start, start + size))
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if not is_out_of_memory(error):
                    raise
                if size == 1:
                    raise MemoryError(f"memory must hold a single image in {self._step}.") from error
                self._halve(size)
            else:
                found.append(part)
                start += size
                self._grow(size)
                continue
            # Outside of the handler: the error holds the frames, and so the tensors, of what failed.
            release_memory()
        return found

    def _halve(self, size: int) -> None:
        self._limit = size // 2
        self._patience, self._ran = 2 * self._patience, 0
        LOGGER.warning(
            "memory ran out in %s with %d images together; continuing with %d (model.batch_size sets this).",
            self._step,
            size,
            self._limit,
        )

    def _grow(self, size: int) -> None:
        if self._limit is None or size < self._limit:
            return
        self._ran += 1
        if self._ran >= self._patience:
            self._limit, self._ran = 2 * self._limit, 0


def release_memory() -> None:
    """Return memory that nothing uses any more to the device, and to the system."""
    gc.collect()
    if sys.platform.startswith("linux"):
        with suppress(AttributeError):  # another C library than glibc
            ctypes.CDLL(None).malloc_trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that memory ran out, on a GPU or a CPU."""
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def free_memory(device: torch.device) -> int:
    """Free bytes of a GPU, or of the machine."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return int(psutil.virtual_memory().available)
