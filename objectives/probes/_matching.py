"""Zero-shot correspondence: the location of the target image whose fused feature has the highest cosine similarity.

Notation, for a pair (i, j), a keypoint k of i and a location g of the target's grid: x_a(k), x_a(g) are the features of
candidate a in the bank and s_a its factor in the fused feature. With inner products P_a[k, g] = x_a(k) . x_a(g) and
squared norms N_a(k) = |x_a(k)|^2,

    cosine[k, g] = sum_a s_a^2 P_a[k, g] / sqrt(sum_a s_a^2 N_a(k) * sum_a s_a^2 N_a(g))

P_a and N_a depend on one candidate each and are cached; a sum of the candidates' cosines would be another number.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
from cachetools import LRUCache
from jaxtyping import Float, Float32, Float64, Int

from diffsift.bank import BankView
from diffsift.errors import DataError
from diffsift.extraction import block_scale
from diffsift.spaces import Candidate, Selection

from .._caching import cached
from ..metrics import Metric, RatioMetric, by_pair, correct_keypoints
from ..specification import CorrespondenceSpecification
from ._base import Head, Probe, Score


class _Products(NamedTuple):
    """P_a and N_a of one candidate, over all pairs."""

    products: Float32[np.ndarray, "pairs keypoints locations"]
    norms: Float32[np.ndarray, "pairs locations"]

    @property
    def nbytes(self) -> int:
        return self.products.nbytes + self.norms.nbytes


def nearest_locations(
    products: Float[np.ndarray, "*pairs keypoints locations"], norms: Float[np.ndarray, "*pairs locations"]
) -> Int[np.ndarray, "*pairs keypoints"]:
    """The location of highest cosine for each keypoint.

    The keypoint's own norm is the same for all locations, so it does not change which is highest.

    Args:
        products: fused inner products of keypoints and locations.
        norms: squared norms of the locations' features.

    Returns:
        Position of a location for each keypoint.
    """
    return np.asarray((products / np.sqrt(np.maximum(norms, 1e-30))[..., None, :]).argmax(-1))


def pck_metric(task: CorrespondenceSpecification) -> Metric:
    """The PCK that a task optimises.

    Args:
        task: threshold, normalisation and averaging.

    Returns:
        A metric of (correct, counted) keypoints per pair.
    """
    return RatioMetric(f"PCK@{task.threshold:g} by {task.normalise}, per {task.average}")


class MatchingProbe(Probe):
    """Scores selections by PCK over the development set's pairs; nothing is fitted.

    Args:
        bank: features of a development set with pairs.
        task: resolution, thresholds and averaging.
        memory: bytes to cache inner products in.

    Raises:
        DataError: the development set has no pair.
    """

    def __init__(self, bank: BankView, task: CorrespondenceSpecification, *, memory: int = 1_000_000_000) -> None:
        development = bank.development
        matching = development.matching
        if matching is None or not len(matching.pairs):
            raise DataError("correspondence needs at least one pair to search on, but the development set has none.")
        self._bank, self._task, self._matching = bank, task, matching
        self.metric = pck_metric(task)
        self._cache: LRUCache[Hashable, _Products] = LRUCache(memory, getsizeof=lambda entry: entry.nbytes)
        source, target = matching.pairs.T
        self.groups = development.held_out_groups
        rows = matching.rows[source]
        truth = np.take_along_axis(development.labels[target], rows.clip(0)[..., None], axis=1).astype(np.float64)
        truth[rows < 0] = np.nan
        self._truth = truth
        self._grid = development.points[0, : matching.grid]

    def score(self, selection: Selection) -> Score:
        value = self.metric.value(self.held_out(selection))
        return Score(value, (value,))

    def held_out(self, selection: Selection) -> Float64[np.ndarray, "pairs 2"]:
        """Match the keypoints of every pair.

        Args:
            selection: candidates of the bank with their weights.

        Returns:
            (correct, counted) keypoints of each pair, or (fraction correct, 1) where the task averages over images.
        """
        matching, task = self._matching, self._task
        parts = []
        for candidate, weight in selection.members:
            factor = block_scale(weight, self._bank[candidate].standardiser.raw_channels) ** 2
            entry = self._products(candidate)
            parts.append((factor * entry.products, factor * entry.norms))
        products, norms = (sum(entries) for entries in zip(*parts, strict=True))
        matched = self._grid[nearest_locations(np.asarray(products), np.asarray(norms))]
        results = [
            correct_keypoints(
                predicted,
                truth,
                size=matching.sizes[target].tolist(),
                threshold=task.threshold,
                box=matching.boxes[target].tolist() if task.normalise == "box" else None,
            )
            for predicted, truth, target in zip(matched, self._truth, matching.pairs[:, 1], strict=True)
        ]
        return by_pair(np.array(results)) if task.average == "image" else np.array(results)

    def fit(self, selection: Selection) -> Head | None:
        return None

    def _products(self, candidate: Candidate) -> _Products:
        features, grid = self._bank[candidate].features, self._matching.grid

        def compute() -> _Products:
            products, norms = [], []
            for source, target in self._matching.pairs:
                on_grid = features[target, :grid].astype(np.float32)
                products.append(features[source, grid:].astype(np.float32) @ on_grid.T)
                norms.append((on_grid**2).sum(-1))
            return _Products(np.stack(products), np.stack(norms))

        return cached(self._cache, candidate, compute)
