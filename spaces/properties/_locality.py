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

import torch
from jaxtyping import Float
from torch import Tensor

_EDGE = 16
_BINS = 8
_GROUP = 16
"""Channels in one similarity: similarities over few channels vary more by chance, so all use the same number."""


class Locality:
    """Accumulates explained and whole variance of similarity over images."""

    def __init__(self) -> None:
        self._explained = self._whole = 0.0

    def add(self, maps: Float[Tensor, "seeds channels rows columns"]) -> None:
        sampled = maps[:, :, _evenly_spaced(maps.shape[2])][:, :, :, _evenly_spaced(maps.shape[3])]
        rows, columns = sampled.shape[2:]
        features = sampled.flatten(2)
        features = features - features.mean(2, keepdim=True)
        deviation = features.std((0, 2)).clamp(min=1e-300)
        if rows * columns < _BINS * 2:
            return
        for group in torch.split(features / deviation[:, None], _GROUP, dim=1):
            if group.shape[1] in (_GROUP, features.shape[1]):
                self._add_group(group / group.shape[1] ** 0.5, rows, columns)

    def _add_group(self, features: Tensor, rows: int, columns: int) -> None:
        one, other = (_similarity(part) for part in _halves(features))
        bins, pairs = _distance_bins(rows, columns)
        one, other = one[pairs], other[pairs]
        one, other = one - one.mean(), other - other.mean()
        counts = torch.bincount(bins, minlength=_BINS).double()
        sums = [torch.zeros(_BINS, dtype=torch.float64).index_add_(0, bins, entry) for entry in (one, other)]
        self._explained += float((sums[0] * sums[1] / counts.clamp(min=1)).sum())
        self._whole += float((one * other).sum())

    def result(self) -> float:
        if self._whole <= 0:
            return 0.0
        return min(1.0, max(0.0, self._explained / self._whole))


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


def _similarity(pair: tuple[Tensor, Tensor]) -> Tensor:
    return pair[0].T @ pair[1]


def _distance_bins(rows: int, columns: int) -> tuple[Tensor, Tensor]:
    """The bin of each pair of different locations, and a mask of these pairs in a matrix over locations."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    points = torch.stack([y.flatten(), x.flatten()], 1).double()
    distance = torch.cdist(points, points)
    pairs = ~torch.eye(len(points), dtype=torch.bool)
    values = distance[pairs]
    edges = torch.quantile(values[:: max(1, len(values) // 100_000)], torch.linspace(0, 1, _BINS + 1).double())
    return torch.bucketize(values, edges[1:-1].contiguous()), pairs
