"""Granularity and over-refinement: how fine the content of a feature is, on the scale of its own grid.

The power spectrum over rows and columns is taken from products of different seeds, in which noise cancels, each channel
in units of its variance. With f the distance from frequency 0 in cycles per grid cell, P the power and sums over all
frequencies but 0:

    granularity     = (sum f P / sum P) / (mean f)               the centroid, over that of white content
    over-refinement = (sum_{f > 1/4} P / sum P) / (share of f > 1/4)

so that a grid's stride alone changes neither. Increment noise is the latter with the power of single seeds, noise
included.
Source: the second property of Meng et al. (NeurIPS 2024), which they judged by eye.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

_FINE = 0.25
"""Cycles per grid cell above which content is fine: half of what the grid can show."""


class Spectrum:
    """Accumulates per channel the sums over frequencies that the three measures are made of."""

    def __init__(self) -> None:
        self._content: Tensor | float = 0.0
        self._whole: Tensor | float = 0.0
        self._grid = (1, 1)

    def add(self, maps: Float[Tensor, "seeds channels rows columns"]) -> None:
        self._grid = (maps.shape[2], maps.shape[3])
        waves = torch.fft.fft2(maps - maps.mean((2, 3), keepdim=True), norm="ortho")
        power = (waves.abs() ** 2).sum(0)
        count = len(maps)
        weights = _weights(*self._grid, maps.device)
        content = (waves.sum(0).abs() ** 2 - power) / (count * (count - 1))
        self._content = self._content + content.flatten(1) @ weights
        self._whole = self._whole + power.flatten(1) @ weights / count

    def result(self, variance: Float[Tensor, "channels"]) -> tuple[float, float, float]:
        """Granularity, over-refinement and increment noise; nan where there is no content or a single location."""
        unit = torch.where(variance > 0, 1 / variance.clamp(min=1e-300), 0.0)
        content, whole = (unit @ sums / len(unit) for sums in (self._content, self._whole))
        null = _weights(*self._grid, variance.device).sum(0)
        return (_ratio(content, null, 1), _ratio(content, null, 2), _ratio(whole, null, 2))


def _ratio(sums: Float[Tensor, "3"], null: Float[Tensor, "3"], measure: int) -> float:
    """A weighted mean of the power over that of white content."""
    if sums[0] <= 0 or null[measure] <= 0:
        return float("nan")
    return max(0.0, float(sums[measure] / sums[0] / (null[measure] / null[0])))


@lru_cache
def _weights(rows: int, columns: int, device: torch.device) -> Float[Tensor, "frequencies 3"]:
    """For each frequency but 0 (which gets none): 1, the frequency, and whether it is fine."""
    down, across = torch.fft.fftfreq(rows), torch.fft.fftfreq(columns)
    frequency = torch.sqrt(down[:, None] ** 2 + across[None, :] ** 2).double().flatten()
    return torch.stack([(frequency > 0).double(), frequency, (frequency > _FINE).double()], dim=1).to(device)
