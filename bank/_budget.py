"""How many bytes a bank takes, and what to change where that is too many."""

from __future__ import annotations

import math
from collections.abc import Sequence

from diffsift.errors import BankError

from .development import DevelopmentSet
from .specification import BankSpecification

_ROW, _OVERHEAD = 28, 4096
"""Bytes of an index row, and about those of an entry's description."""


def entry_bytes(raw_channels: int, images: int, rows: int, max_channels: int) -> int:
    """Bytes of an entry: float16 features, their index, and statistics with the projection in float32."""
    kept = min(raw_channels, max_channels)
    projection = raw_channels * kept * 4 if raw_channels > kept else 0
    return images * (rows * kept * 2 + _ROW) + raw_channels * 8 + projection + _OVERHEAD


def check_budget(
    raw_channels: Sequence[int], development: DevelopmentSet, specification: BankSpecification, baselines: int = 0
) -> None:
    """Refuse a bank that takes more than `bank.budget_gb`, and say which settings would fit.

    Args:
        raw_channels: channels of the activation of every entry of a study.
        development: the images and locations.
        specification: holds the budget.
        baselines: number of baselines, which are the last entries and are always extracted.

    Raises:
        BankError: the bank would be larger.
    """
    if specification.budget_gb is None:
        return
    budget = specification.budget_gb * 1e9
    images, rows = len(development.samples), development.rows

    def needed(rows: int) -> int:
        return sum(entry_bytes(entry, images, rows, specification.max_channels) for entry in raw_channels)

    if needed(rows) <= budget:
        return
    advice = [
        *_fewer_rows((budget - needed(0)) / (needed(1) - needed(0)), development),
        *_fewer_entries(
            budget,
            [entry_bytes(entry, images, rows, specification.max_channels) for entry in raw_channels],
            baselines,
        ),
    ]
    lower = f"lower {' or '.join(advice)}, or " if advice else "lower bank.max_channels, or "
    size = _gigabytes(float(needed(rows)))
    raise BankError(f"the bank needs {size} GB, budget {_gigabytes(budget)} GB: {lower}raise bank.budget_gb.")


def _fewer_rows(most: float, development: DevelopmentSet) -> list[str]:
    """The setting that gives at most so many features per image; pooled features have one each whatever is set."""
    if development.pooled or most < 1:
        return []
    if development.matching is None:
        return [f"bank.pixels_per_image to {math.floor(most)}"]
    keypoints = development.rows - development.matching.grid
    edge = math.isqrt(max(0, math.floor(most) - keypoints))
    return [f"task.resolution to {edge}"] if edge else []


def _fewer_entries(budget: float, sizes: Sequence[int], baselines: int) -> list[str]:
    """How many candidates fit beside the baselines whichever they are: the largest are counted."""
    pool, fixed = sizes[: len(sizes) - baselines], sum(sizes[len(sizes) - baselines :])
    fitting, used = 0, fixed
    for size in sorted(pool, reverse=True):
        used += size
        if used > budget:
            break
        fitting += 1
    return [f"the pool to {fitting} of {len(pool)} candidates"] if fitting else []


def _gigabytes(size: float) -> str:
    """Two digits, however small."""
    return f"{size / 1e9:.2g}" if size < 1e9 else f"{size / 1e9:.1f}"
