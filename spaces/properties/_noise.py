"""Diffusion noise: the share of a feature's variance that is due to the noise draw, in [0, 1].

Per channel, with W the variance over seeds at a fixed image and location (unbiased, mean over both) and B the variance
over images of the mean over seeds at a fixed location, minus W / S (what noise leaves in such a mean):

    share = W / (W + B),   averaged over the channels that vary

The mean of each location is removed (B is around it), so a positional embedding is neither content nor noise. Source:
the first property of Meng et al. (NeurIPS 2024), as one-way random-effects variance components (Searle et al., 1992).
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

_DEAD = 1e-10


class NoiseShare:
    """Accumulates the mean over seeds per location and channel, and all else per channel."""

    def __init__(self) -> None:
        self._images, self._seeds = 0, 0
        self._within: Tensor | float = 0.0
        self._sum: Tensor | float = 0.0
        self._squares: Tensor | float = 0.0

    def add(self, maps: Float[Tensor, "seeds channels rows columns"]) -> None:
        mean = maps.mean(0)
        self._within = self._within + maps.var(0).mean((1, 2))
        self._sum, self._squares = self._sum + mean, self._squares + (mean**2).mean((1, 2))
        self._images, self._seeds = self._images + 1, len(maps)

    @property
    def total(self) -> Float[Tensor, "channels rows columns"]:
        """The sum over images of the mean over seeds."""
        assert isinstance(self._sum, Tensor)
        return self._sum

    def result(self) -> tuple[float, Float[Tensor, "channels"]]:
        """The share, and each channel's variance W + B."""
        if self._images < 2:
            raise ValueError(f"properties must be measured on at least two images, but got {self._images}.")
        within = torch.as_tensor(self._within) / self._images
        between = (self._squares - (self.total**2).mean((1, 2)) / self._images) / (self._images - 1)
        content = (between - within / self._seeds).clamp(min=0)
        total = within + content
        alive = total > _DEAD * total.max().clamp(min=1e-300)
        share = (within / total.clamp(min=1e-300))[alive]
        return (float(share.mean()) if len(share) else 0.0), total
