"""What was computed once and may be asked for again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]


class Kept:
    """Arrays by key, bounded in bytes: the longest unused go first, the newest always stays.

    Args:
        memory: bytes to keep.
    """

    def __init__(self, memory: int) -> None:
        self._memory, self._bytes = memory, 0
        self._arrays: OrderedDict[Hashable, Array] = OrderedDict()

    def __len__(self) -> int:
        return len(self._arrays)

    def get(self, key: Hashable, compute: Callable[[], Array]) -> Array:
        """What is kept under the key, computed now where there is nothing."""
        found = self._arrays.get(key)
        if found is not None:
            self._arrays.move_to_end(key)
            return found
        value = compute()
        self._arrays[key] = value
        self._bytes += value.nbytes
        while self._bytes > self._memory and len(self._arrays) > 1:
            _, dropped = self._arrays.popitem(last=False)
            self._bytes -= dropped.nbytes
        return value
