"""Position: the share of a feature's variance over the image that is the same in every image, in [0, 1].

Positional embeddings of transformers show here. Per channel, with m[i, p] the mean over seeds, centred over locations:

    share = mean over p and pairs i != j of m[i, p] m[j, p] / mean over p and i of cross-seed m[i, p]^2

summed over channels in units of their content. Products of different images and seeds contain neither content nor
noise.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


class PositionShare:
    """Accumulates sums per channel; the sum per location is that of `NoiseShare`."""

    def __init__(self) -> None:
        self._images = 0
        self._squares: Tensor | float = 0.0
        self._content: Tensor | float = 0.0

    def add(self, maps: Float[Tensor, "seeds channels rows columns"]) -> None:
        centered, count = _centered(maps), len(maps)
        cross = (centered.sum(0) ** 2 - (centered**2).sum(0)) / (count * (count - 1))
        self._squares = self._squares + (centered.mean(0) ** 2).mean((1, 2))
        self._content = self._content + cross.mean((1, 2))
        self._images += 1

    def result(self, total: Float[Tensor, "channels rows columns"]) -> float:
        content = torch.as_tensor(self._content) / self._images
        whole = (_centered(total) ** 2).mean((1, 2))
        same = (whole - self._squares) / (self._images * (self._images - 1))
        alive = content > 1e-10 * content.max().clamp(min=1e-300)
        if not bool(alive.any()):
            return 0.0
        return min(1.0, max(0.0, float((same[alive] / content[alive]).mean())))


def _centered(maps: Tensor) -> Tensor:
    return maps - maps.mean((-2, -1), keepdim=True)
