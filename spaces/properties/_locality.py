"""Locality: the share of the similarity between locations that is explained by their distance, not by their content.

The similarity of two locations is the mean over channels of the product of their features, centred over the image, in
units of each channel's deviation; channels are taken sixteen at a time. Two estimates K and K' come from disjoint
halves of the seeds' pairs, so that noise cancels in their products. With distances (in image fractions) in eight bins
of equally many pairs:

    locality = sum over bins of N_b mean_b(K) mean_b(K') / sum over pairs K K'      (K, K' centred over pairs)

the share of the variance of similarity that distance explains, in [0, 1]; white content gives 0 on any grid. At most
16 x 16 evenly spaced locations of the grid are used. Source: the third property of Meng et al. (NeurIPS 2024).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

_EDGE = 16
_BINS = 8
_GROUP = 16
"""Channels in one similarity: similarities over few channels vary more by chance, so all use the same number."""


class Locality:
    """Accumulates explained and whole variance of similarity over images."""

    def __init__(self) -> None:
        self._explained: Tensor | float = 0.0
        self._whole: Tensor | float = 0.0

    def add(self, maps: Float[Tensor, "seeds channels rows columns"]) -> None:
        sampled = maps[:, :, _evenly_spaced(maps.shape[2])][:, :, :, _evenly_spaced(maps.shape[3])]
        rows, columns = sampled.shape[2:]
        if rows * columns < _BINS * 2:
            return
        features = sampled.flatten(2)
        features = features - features.mean(2, keepdim=True)
        features = features / features.std((0, 2)).clamp(min=1e-300)[:, None]
        width = min(_GROUP, features.shape[1])
        groups = features[:, : features.shape[1] // width * width].reshape(len(features), -1, width, rows * columns)
        groups = groups / width**0.5
        one, other = (first.transpose(1, 2) @ second for first, second in _halves(groups))
        bins = _distance_bins(rows, columns, maps.device)
        counts = bins.sum(0)
        sums, others = one.flatten(1) @ bins, other.flatten(1) @ bins
        mean, other_mean = (entry.sum(1, keepdim=True) / counts.sum() for entry in (sums, others))
        explained = (sums - counts * mean) * (others - counts * other_mean) / counts.clamp(min=1)
        # All pairs but those of a location with itself, which are in no bin.
        products = (one * other).sum() - (one.diagonal(dim1=1, dim2=2) * other.diagonal(dim1=1, dim2=2)).sum()
        self._explained = self._explained + explained.sum()
        self._whole = self._whole + products - counts.sum() * (mean * other_mean).sum()

    def result(self) -> float:
        if self._whole <= 0:
            return 0.0
        return min(1.0, max(0.0, float(self._explained / self._whole)))


def _evenly_spaced(edge: int) -> Tensor:
    count = min(edge, _EDGE)
    return ((torch.arange(count) + 0.5) * edge / count).long()


def _halves(features: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Two pairs of different seeds' features; with two or three seeds the pairs overlap, and some noise remains."""
    if len(features) < 4:
        return (features[0], features[1]), (features[1], features[0])
    half = len(features) // 4
    parts = [features[start * half : (start + 1) * half].mean(0) for start in range(4)]
    return (parts[0], parts[1]), (parts[2], parts[3])


@lru_cache
def _distance_bins(rows: int, columns: int, device: torch.device) -> Float[Tensor, "pairs bins"]:
    """Which bin each pair of locations is in (1, in the others 0); none where both are the same."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    points = torch.stack([y.flatten(), x.flatten()], 1).double()
    distance = torch.cdist(points, points)
    different = ~torch.eye(len(points), dtype=torch.bool)
    values = distance[different]
    edges = torch.quantile(values[:: max(1, len(values) // 100_000)], torch.linspace(0, 1, _BINS + 1).double())
    bins = functional.one_hot(torch.bucketize(distance, edges[1:-1].contiguous()), _BINS)
    return (bins * different[..., None]).flatten(0, 1).double().to(device)
