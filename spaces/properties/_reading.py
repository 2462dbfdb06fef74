"""What the properties need of a feature map: some channels in a window of its middle, and the energy of every channel.

It is taken while a pass is in the map, so that no map is kept: 64 channels of 32 x 32 locations are 262 kB in float32.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from diffsift.backbones import FeatureMap

CHANNELS = 64
"""Channels that are used at most, drawn once for each number of channels: the properties are means over channels."""

WINDOW = 32
"""Rows and columns that are used at most."""

_AT_ONCE = 4_000_000
"""Values of a map that are squared at once: a float32 copy of the whole is never made."""


class PropertyReader:
    """A reader that returns one row of numbers for each image: its window, then the mean square of every channel.

    Attributes:
        widest: bytes of the largest feature map of one image so far.
    """

    def __init__(self) -> None:
        self.widest = 0
        self._shapes: dict[str, torch.Size] = {}

    def __call__(self, feature_map: FeatureMap) -> Float[Tensor, "batch values"]:
        self.widest = max(self.widest, feature_map.values[0].nbytes)
        window = window_of(feature_map.values)
        self._shapes[feature_map.activation.name] = window.shape[1:]
        return torch.cat([window.flatten(1), energy_of(feature_map.values)], dim=1)

    def parts(
        self, name: str, rows: Float[Tensor, "batch values"]
    ) -> tuple[Float[Tensor, "batch chosen rows columns"], Float[Tensor, "batch channels"]]:
        """Window and energies again.

        Args:
            name: of the activation, which was read before.
            rows: as returned.
        """
        shape = self._shapes[name]
        size = math.prod(shape)
        return rows[:, :size].reshape(-1, *shape), rows[:, size:]


def window_of(maps: Float[Tensor, "batch channels _ _"]) -> Float[Tensor, "batch chosen rows columns"]:
    """The chosen channels of the middle of feature maps, in float32.

    Args:
        maps: of any type.
    """
    rows, columns = (min(edge, WINDOW) for edge in maps.shape[2:])
    top, left = (maps.shape[2] - rows) // 2, (maps.shape[3] - columns) // 2
    chosen = _chosen(maps.shape[1]).to(maps.device)
    return maps[:, :, top : top + rows, left : left + columns].index_select(1, chosen).float()


def energy_of(maps: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch channels"]:
    """The mean square of each channel, computed in float32.

    Args:
        maps: of any type.
    """
    step = max(1, _AT_ONCE // max(1, maps[:, :1].numel()))
    return torch.cat([part.float().square().mean((2, 3)) for part in torch.split(maps, step, dim=1)], dim=1)


@lru_cache
def _chosen(channels: int) -> Tensor:
    order = torch.randperm(channels, generator=torch.Generator().manual_seed(0))
    return order[:CHANNELS].sort().values
