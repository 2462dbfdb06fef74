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

import torch
from jaxtyping import Float
from torch import Tensor

_FINE = 0.25
"""Cycles per grid cell above which content is fine: half of what the grid can show."""


class Spectrum:
    """Accumulates power per channel and frequency."""

    def __init__(self) -> None:
        self._content: Tensor | float = 0.0
        self._whole: Tensor | float = 0.0

    def add(self, maps: Float[Tensor, "seeds channels rows columns"]) -> None:
        waves = torch.fft.fft2(maps - maps.mean((2, 3), keepdim=True), norm="ortho")
        power = (waves.abs() ** 2).sum(0)
        count = len(maps)
        self._content = self._content + (waves.sum(0).abs() ** 2 - power) / (count * (count - 1))
        self._whole = self._whole + power / count

    def result(self, variance: Float[Tensor, "channels"]) -> tuple[float, float, float]:
        """Granularity, over-refinement and increment noise; nan where there is no content or a single location."""
        assert isinstance(self._content, Tensor)
        assert isinstance(self._whole, Tensor)
        rows, columns = self._content.shape[1:]
        down, across = torch.fft.fftfreq(rows), torch.fft.fftfreq(columns)
        frequency = torch.sqrt(down[:, None] ** 2 + across[None, :] ** 2).double()
        unit = torch.where(variance > 0, 1 / variance.clamp(min=1e-300), 0.0)[:, None, None]
        content, whole = ((power * unit).mean(0) for power in (self._content, self._whole))
        return (
            _centroid(content, frequency),
            _fine_share(content, frequency),
            _fine_share(whole, frequency),
        )


def _centroid(power: Tensor, frequency: Tensor) -> float:
    others = frequency > 0
    total = power[others].sum()
    if total <= 0:
        return float("nan")
    centroid = (power * frequency)[others].sum() / total
    return max(0.0, float(centroid / frequency[others].mean()))


def _fine_share(power: Tensor, frequency: Tensor) -> float:
    others, fine = frequency > 0, frequency > _FINE
    total = power[others].sum()
    if total <= 0 or not bool(fine.any()):
        return float("nan")
    null = fine.sum() / others.sum()
    return max(0.0, float(power[fine].sum() / total / null))
