"""What was computed once and may be needed again, as far as memory goes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TypeVar

from cachetools import LRUCache

Value = TypeVar("Value")


def cached(cache: LRUCache[Hashable, Value], key: Hashable, compute: Callable[[], Value]) -> Value:
    """Look a value up, or compute and store it.

    Args:
        cache: a cache that is bounded by the size of its values.
        key: names the value.
        compute: makes the value where the cache lacks it.

    Returns:
        The value. One that is larger than the whole cache is not stored.
    """
    if key in cache:
        return cache[key]
    value = compute()
    if cache.getsizeof(value) <= cache.maxsize:
        cache[key] = value
    return value
