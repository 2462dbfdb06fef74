"""Filters by name: ours that can be combined, those of entry points, and those registered from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from diffsift.common.registry import Registry

if TYPE_CHECKING:
    from .filters import PropertyFilter

    FilterKind = Callable[[], PropertyFilter]
else:
    FilterKind = Callable  # the class itself needs torch, which a specification does without

FILTERS: Registry[FilterKind] = Registry(
    "filter", "diffsift.filters", {"structural": "diffsift.spaces.filters:StructuralFilter"}
)
"""By the name that ``filters.further`` uses."""


def register_filter(name: str, make: FilterKind) -> None:
    """Make a filter known as ``filters: {further: [name]}`` in this process.

    A package does the same with an entry point of the group ``diffsift.filters``.

    Args:
        name: its name; none of the names there are.
        make: a class or function that is called without arguments and returns a `PropertyFilter`.
            `diffsift.testing.filter.FilterContract` tests what it returns.

    Raises:
        SpecificationError: the name is taken.
    """
    FILTERS.register(name, make)
