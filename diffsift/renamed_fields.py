"""Fields of specifications that had other names in older versions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_RENAMED = {"study": {"confirm": "rerank", "confirm_probe": "rerank_probe"}}
"""Fields of older versions and their present names, by part."""


def renamed(values: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Rename the fields of older versions.

    Args:
        values: fields by part.

    Returns:
        The fields under their present names, and a note on each that was renamed.
    """
    found, notes = dict(values), []
    for part, names in _RENAMED.items():
        if isinstance(found.get(part), dict):
            notes += [f"{part}.{old} is now called {part}.{new}" for old, new in names.items() if old in found[part]]
            found[part] = {names.get(field, field): value for field, value in found[part].items()}
    return found, tuple(notes)
