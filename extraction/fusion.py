"""The fused feature of a selection: the one place where activations become features.

Per activation, with raw channels x (C of them) at one place:

    z = scale * (x - mean)                standardised with training statistics, in float32
    z = z @ projection                    only where C exceeds the bank's limit
    block = weight / sqrt(C) * z          so that every activation has unit expected squared norm at weight 1

The fused feature is the concatenation of the blocks in the order of the selection. Feature maps are sampled bilinearly
from their native grid with ``align_corners=False`` and edges repeated; standardisation and projection are affine, so it
does not matter whether they come before or after sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_DEAD_CHANNEL = 1e-3
"""A channel is dead when its deviation is below this share of the median channel's."""


@dataclass(frozen=True)
class Standardiser:
    """Training statistics of one candidate.

    Attributes:
        mean: per raw channel.
        scale: 1 / standard deviation per raw channel, with a floor that keeps dead channels from being blown up.
        projection: orthonormal columns onto the leading principal components of the standardised channels, or None.
    """

    mean: Float[Tensor, "channels"]
    scale: Float[Tensor, "channels"]
    projection: Float[Tensor, "channels kept"] | None

    @classmethod
    def fit(cls, features: Float[Tensor, "samples channels"], *, max_channels: int) -> Standardiser:
        """Statistics of raw features; a projection is fit only when there are more than `max_channels` channels."""
        exact = features.to(torch.float64)
        mean, deviation = exact.mean(0), exact.std(0, correction=0)
        floor = torch.clamp(_DEAD_CHANNEL * deviation.median(), min=1e-12)
        scale = 1.0 / torch.maximum(deviation, floor)
        projection = None
        if exact.shape[1] > max_channels:
            standardised = (exact - mean) * scale
            _, vectors = torch.linalg.eigh(standardised.T @ standardised)
            projection = vectors[:, -max_channels:].flip(1)
            # Eigenvectors are defined up to sign: fix it, so that equal statistics give equal projections.
            signs = torch.sign(projection.gather(0, projection.abs().argmax(0, keepdim=True)))
            projection = (projection * signs).to(torch.float32)
        return cls(mean.to(torch.float32), scale.to(torch.float32), projection)

    @property
    def raw_channels(self) -> int:
        return int(self.mean.shape[0])

    @property
    def channels(self) -> int:
        return self.raw_channels if self.projection is None else int(self.projection.shape[1])

    def apply(self, features: Float[Tensor, "*places channels"]) -> Float[Tensor, "*places kept"]:
        """Standardise raw features with channels last, and project them where a projection was fit."""
        standardised = (features - self.mean) * self.scale
        return standardised if self.projection is None else standardised @ self.projection

    def to(self, device: torch.device) -> Standardiser:
        projection = None if self.projection is None else self.projection.to(device)
        return Standardiser(self.mean.to(device), self.scale.to(device), projection)


def block_scale(weight: float, raw_channels: int) -> float:
    """The factor of a standardised block in the fused feature."""
    return float(weight / raw_channels**0.5)


def pool(features: Float[Tensor, "batch places channels"], activation: str) -> Float[Tensor, "batch channels"]:
    """One feature for an image from standardised features at its places: their mean; of attention maps, their spread.

    A channel of an attention map is a place or a word that is attended to, and what a place attends to sums to 1: the
    mean over places hides whether some places attend to it strongly. The standard deviation over places shows that, and
    keeps its meaning under a projection, whose components have no sign of their own.

    Args:
        features: standardised, and projected where the candidate is.
        activation: by name.
    """
    return features.std(1, correction=0) if pooling(activation) == "spread" else features.mean(1)


def pooling(activation: str) -> Literal["mean", "spread"]:
    """How an activation is pooled, by its name: those of attention maps end in ``-map`` in every network."""
    return "spread" if activation.endswith("-map") else "mean"


def sample_map(
    feature_map: Float[Tensor, "batch channels rows columns"], points: Float[Tensor, "batch points 2"]
) -> Float[Tensor, "batch points channels"]:
    """Bilinear samples of feature maps at points (x, y) in [0, 1], where 0 and 1 are the outer edges of the image."""
    grid = (points * 2 - 1).to(feature_map).unsqueeze(2)
    sampled = functional.grid_sample(feature_map, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.squeeze(3).transpose(1, 2)


def resample_map(
    feature_map: Float[Tensor, "batch channels rows columns"], size: tuple[int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Feature maps sampled bilinearly at the centers of another grid."""
    if tuple(feature_map.shape[-2:]) == size:
        return feature_map
    return functional.grid_sample(
        feature_map,
        _centers(size, feature_map).expand(len(feature_map), -1, -1, -1),
        mode="bilinear",
        padding_mode="border",
        align_corners=False,
    )


def _centers(size: tuple[int, int], like: Tensor) -> Float[Tensor, "1 height width 2"]:
    rows, columns = ((torch.arange(edge, device=like.device) + 0.5) / edge * 2 - 1 for edge in size)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    return torch.stack([x, y], dim=-1).to(like.dtype).unsqueeze(0)
