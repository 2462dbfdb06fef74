"""The fused feature of a selection: the one module where activations become features.

Per candidate, with its C raw channels x at one location:

    z = scale * (x - mean)                standardised with training statistics, in float32
    z = z @ projection                    only where C exceeds the bank's limit
    block = weight / sqrt(C) * z          so that every candidate has unit expected squared norm at weight 1

The fused feature is the concatenation of the blocks in the order of the selection (`Fusion`). Feature maps are sampled
bilinearly from their native grid with ``align_corners=False`` and edges repeated; standardisation and projection are
affine, so they may come before or after sampling.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional

from diffsift.spaces import Candidate, Selection

from ._components import fit_bytes, leading_components, moments

_DEAD_CHANNEL = 1e-3
"""A channel is dead when its standard deviation is below this share of the median channel's."""


@dataclass(frozen=True)
class Standardiser:
    """Training statistics of one candidate.

    Attributes:
        mean: mean of each raw channel.
        scale: 1 / standard deviation of each raw channel, bounded so that dead channels are not amplified.
        projection: orthonormal columns, the leading principal components of the standardised channels; or None.
    """

    mean: Float[Tensor, "channels"]
    scale: Float[Tensor, "channels"]
    projection: Float[Tensor, "channels components"] | None

    @classmethod
    def fit(
        cls, features: Float[Tensor, "samples channels"], *, max_channels: int, overwrite: bool = False
    ) -> Standardiser:
        """Fit the statistics of raw features.

        Mean and scale are computed in float64. The projection is exact, from float64, where channels or samples are at
        most 1,280 or four times `max_channels`: from a matrix of C x C, or of samples x samples where C is more than
        that. Beyond, it is found by block Krylov iteration in float32, which explains at least 0.999 of the variance
        that the exact one explains (`_components.py`). The same features give the same projection.

        Args:
            features: raw values, one row for each sampled location, in float32 or float64.
            max_channels: a projection to so many components is fit when there are more channels.
            overwrite: use the memory of `features`, which saves a copy; they are spent then.

        Returns:
            Mean and scale of each channel, and the projection where one is needed: the leading principal components, at
            most `max_channels`, and at most one for each sample where C is above 1,280. Stored in float32.
        """
        mean, deviation = moments(features)
        floor = torch.clamp(_DEAD_CHANNEL * deviation.median(), min=1e-12)
        scale = 1.0 / torch.maximum(deviation, floor)
        projection = None
        if features.shape[1] > max_channels:
            projection = leading_components(features, mean, scale, max_channels, overwrite=overwrite).to(torch.float32)
        return cls(mean.to(torch.float32), scale.to(torch.float32), projection)

    @staticmethod
    def fit_memory(samples: int, channels: int, max_channels: int) -> int:
        """Estimate the memory that `fit` takes beside the features that it overwrites.

        Args:
            samples: sampled locations.
            channels: of the raw features.
            max_channels: see `fit`.

        Returns:
            Bytes at most.
        """
        return fit_bytes(samples, channels, max_channels)

    @property
    def raw_channels(self) -> int:
        """Channels of the activation, C."""
        return int(self.mean.shape[0])

    @property
    def channels(self) -> int:
        """Channels of the standardised and projected features."""
        return self.raw_channels if self.projection is None else int(self.projection.shape[1])

    def apply(self, features: Float[Tensor, "*locations channels"]) -> Float[Tensor, "*locations components"]:
        """Standardise raw features, and project them where a projection was fit.

        Args:
            features: raw values in float32, channels last, on the device of the statistics.

        Returns:
            Values in standard deviations: one for each channel, or for each component of the projection.
        """
        standardised = (features - self.mean) * self.scale
        return standardised if self.projection is None else standardised @ self.projection

    def to(self, device: torch.device) -> Standardiser:
        """The same statistics on another device.

        Args:
            device: where features will be.

        Returns:
            A new standardiser with its tensors there.
        """
        projection = None if self.projection is None else self.projection.to(device)
        return Standardiser(self.mean.to(device), self.scale.to(device), projection)


class Fusion:
    """Computes the fused feature of a selection from the raw features of its candidates.

    Args:
        selection: candidates and weights.
        standardisers: training statistics of each candidate.

    Attributes:
        scales: the factor of each candidate's standardised features, weight / sqrt(C), in the order of the selection.
        channels: channels of the fused feature.
    """

    def __init__(self, selection: Selection, standardisers: Mapping[Candidate, Standardiser]) -> None:
        self._standardisers = {candidate: standardisers[candidate] for candidate in selection.candidates}
        self.scales = {
            candidate: block_scale(weight, self._standardisers[candidate].raw_channels)
            for candidate, weight in selection.members
        }
        self.channels = sum(standardiser.channels for standardiser in self._standardisers.values())

    def block(
        self, candidate: Candidate, features: Float[Tensor, "*locations channels"]
    ) -> Float[Tensor, "*locations components"]:
        """A candidate's part of the fused feature.

        Args:
            candidate: of the selection.
            features: its raw features in float32, channels last, on any device.

        Returns:
            The standardised features, projected where the candidate has a projection, times the candidate's factor
            (`block_scale`); float32, on the device of `features`.
        """
        return self._standardisers[candidate].to(features.device).apply(features) * self.scales[candidate]

    def fuse(self, features: Mapping[Candidate, Float[Tensor, "*locations _"]]) -> Float[Tensor, "*locations fused"]:
        """The fused feature.

        Args:
            features: the raw features of each candidate at the same locations, in float32, channels last.

        Returns:
            The blocks of all candidates side by side along the last axis, in the order of the selection; float32.
        """
        return torch.cat([self.block(candidate, features[candidate]) for candidate in self.scales], dim=-1)


def block_scale(weight: float, raw_channels: int) -> float:
    """The factor of a candidate's standardised features in the fused feature, weight / sqrt(C).

    Args:
        weight: of the candidate in the selection.
        raw_channels: channels of the activation before any projection, C.

    Returns:
        The factor, without a unit: at equal weights, activations with many channels do not outweigh those with few.
    """
    return float(weight / raw_channels**0.5)


def pool(features: Float[Tensor, "batch locations channels"], activation: str) -> Float[Tensor, "batch channels"]:
    """Pool standardised features over the locations of an image: their mean; for attention maps, their spread.

    A channel of an attention map is a location or token that is attended to, and the weights at a location sum to 1, so
    the mean over locations hides whether some locations attend to it strongly. The standard deviation over locations
    shows that, and keeps its meaning under a projection, whose components have arbitrary signs.

    Args:
        features: standardised, and projected where the candidate is.
        activation: name of the activation.

    Returns:
        One vector for each image.
    """
    return features.std(1, correction=0) if pooling(activation) == "spread" else features.mean(1)


def pooling(activation: str) -> Literal["mean", "spread"]:
    """How an activation is pooled over locations.

    Args:
        activation: its name; those of attention maps end in ``-map`` in every network.

    Returns:
        ``spread`` (the standard deviation) for attention maps, ``mean`` for all others.
    """
    return "spread" if activation.endswith("-map") else "mean"


def sample_map(
    feature_map: Float[Tensor, "batch channels rows columns"], points: Float[Tensor, "batch points 2"]
) -> Float[Tensor, "batch points channels"]:
    """Sample feature maps bilinearly at points.

    Args:
        feature_map: on any grid. Of maps in half precision only the four cells around each point are converted, so a
            few points of a large map cost little memory.
        points: (x, y) in [0, 1], where 0 and 1 are the outer edges of the image; beyond them the edge is repeated.

    Returns:
        The values at each point, channels last, in the type of the maps; those of maps in half precision in float32.
    """
    if feature_map.dtype in (torch.float16, torch.bfloat16):
        return _sampled_cells(feature_map, points.to(feature_map.device, torch.float32))
    grid = (points * 2 - 1).to(feature_map).unsqueeze(2)
    sampled = functional.grid_sample(feature_map, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return sampled.squeeze(3).transpose(1, 2)


def _sampled_cells(
    feature_map: Float[Tensor, "batch channels rows columns"], points: Float32[Tensor, "batch points 2"]
) -> Float32[Tensor, "batch points channels"]:
    """The mean of the four cells around each point, weighted by nearness in x and y."""
    rows, columns = feature_map.shape[-2:]
    cells = feature_map.flatten(2).transpose(1, 2)
    size = torch.tensor([columns, rows], device=points.device)
    position = (points * size - 0.5).clamp(min=0).minimum(size - 1.0)
    first = position.floor().long()
    second = (first + 1).minimum(size - 1)
    share = position - first
    image = torch.arange(len(cells), device=points.device)[:, None]
    total = torch.zeros(1, device=points.device)
    for x, across in ((first[..., 0], 1 - share[..., 0]), (second[..., 0], share[..., 0])):
        for y, down in ((first[..., 1], 1 - share[..., 1]), (second[..., 1], share[..., 1])):
            total = total + (across * down)[..., None] * cells[image, y * columns + x].to(torch.float32)
    return total


def resample_map(
    feature_map: Float[Tensor, "batch channels rows columns"], size: tuple[int, int]
) -> Float[Tensor, "batch channels height width"]:
    """Sample feature maps bilinearly at the centres of another grid's cells.

    Args:
        feature_map: on any grid.
        size: rows and columns of the other grid.

    Returns:
        Maps of the new size; the same tensor where the size is the same already.
    """
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
