"""Drawing bootstrap resamples of images as sums of their statistics; see `Metric`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float64

_CHUNK = 4_000_000
"""Draw counts held in memory at once, of 8 bytes each."""


def resample(
    strata: Sequence[Float64[np.ndarray, "..."]], resamples: int, seed: int
) -> Iterator[Float64[np.ndarray, "..."]]:
    """Sums of statistics, some resamples at a time; each has as many units of every stratum as there are."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, but got {resamples}.")
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // max(map(len, strata)))
    for begin in range(0, resamples, at_once):
        rows = min(at_once, resamples - begin)
        yield np.sum([_resampled_sums(units, rows, rng) for units in strata], axis=0)


def _resampled_sums(
    units: Float64[np.ndarray, "units *axes"], rows: int, rng: np.random.Generator
) -> Float64[np.ndarray, "rows *axes"]:
    """Each row is the sum over as many units as there are, drawn with replacement."""
    count = len(units)
    drawn = rng.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
    how_often = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
    return np.asarray((how_often.astype(np.float64) @ units.reshape(count, -1)).reshape(rows, *units.shape[1:]))
