"""Outlier channels: the share of energy in the largest 1 % of channels (at least one), in [0, 1].

    outliers = (e - k / C) / (1 - k / C)   with e the share of sum x^2 in the k = max(1, C / 100) largest channels

0 when all channels carry the same, 1 when k of them carry everything: "massive activations", as diffusion transformers
have them (Sun et al., COLM 2024). Raw values are used, because standardisation removes these channels.
"""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor


class OutlierEnergy:
    """Accumulates the energy of each channel."""

    def __init__(self) -> None:
        self._energy: Tensor | float = 0.0

    def add(self, energy: Float[Tensor, "seeds channels"]) -> None:
        self._energy = self._energy + energy.mean(0)

    def result(self) -> float:
        assert isinstance(self._energy, Tensor)
        count = len(self._energy)
        most = max(1, count // 100)
        total = float(self._energy.sum())
        if count <= most or total <= 0:
            return 0.0
        share = float(self._energy.sort(descending=True).values[:most].sum()) / total
        return max(0.0, (share - most / count) / (1 - most / count))
