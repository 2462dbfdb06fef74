"""Zero-shot correspondence: the place of the target image whose fused feature has the highest cosine similarity.

Notation, for a pair (i, j), a keypoint k of i and a place g of the target's grid: x_a(k), x_a(g) are the features of
candidate a in the bank and s_a its factor in the fused feature. With inner products P_a[k, g] = x_a(k) . x_a(g) and
squared norms N_a(k) = |x_a(k)|^2,

    cosine[k, g] = sum_a s_a^2 P_a[k, g] / sqrt(sum_a s_a^2 N_a(k) * sum_a s_a^2 N_a(g))

P_a and N_a depend on one candidate each and are kept; a sum of the candidates' cosines would be another number.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from diffsift.bank import BankView
from diffsift.errors import DataError
from diffsift.extraction import block_scale
from diffsift.spaces import Candidate, Selection

from ..metrics import Metric, RatioMetric, by_pair, correct_keypoints
from ..specification import CorrespondenceSpecification
from ._base import Head, Probe, Score

Array = np.ndarray[Any, Any]


def nearest_places(
    products: Float[np.ndarray, "*pairs keypoints places"], norms: Float[np.ndarray, "*pairs places"]
) -> Int[np.ndarray, "*pairs keypoints"]:
    """The place of highest cosine for each keypoint, from fused inner products and the places' squared norms.

    The keypoint's own norm is the same for all places, so it does not change which is highest.
    """
    return np.asarray((products / np.sqrt(np.maximum(norms, 1e-30))[..., None, :]).argmax(-1))


def pck_metric(task: CorrespondenceSpecification) -> Metric:
    """The PCK that a task optimises."""
    return RatioMetric(f"PCK@{task.threshold:g} by {task.normalise}, per {task.average}")


def _pck(
    task: CorrespondenceSpecification, predicted: Array, truth: Array, size: Array, box: Array, threshold: float
) -> Array:
    """(correct, counted) keypoints of one pair, as the task normalises."""
    chosen = box.tolist() if task.normalise == "box" else None
    return correct_keypoints(predicted, truth, size=size.tolist(), threshold=threshold, box=chosen)


class MatchingProbe(Probe):
    """Scores selections by PCK over the development set's pairs; nothing is fit.

    Args:
        bank: of a development set with pairs.
        task: resolution, thresholds and averaging.
        memory: bytes of inner products that are kept.
    """

    def __init__(self, bank: BankView, task: CorrespondenceSpecification, *, memory: int = 1_000_000_000) -> None:
        found = bank.development.matching
        if found is None or not len(found.pairs):
            raise DataError("correspondence needs at least one pair to search on, but the development set has none.")
        self._bank, self._task, self._memory, self._matching = bank, task, memory, found
        self.metric = pck_metric(task)
        self._kept: OrderedDict[Candidate, tuple[Array, Array]] = OrderedDict()
        source, target = found.pairs.T
        self.groups = bank.development.held_out_groups
        labels = bank.development.labels
        rows = found.rows[source]
        self._truth = np.take_along_axis(labels[target], rows.clip(0)[..., None], axis=1).astype(np.float64)
        self._truth[rows < 0] = np.nan
        self._places = bank.development.points[0, : found.grid]

    def score(self, selection: Selection) -> Score:
        value = self.metric.value(self.held_out(selection))
        return Score(value, (value,))

    def held_out(self, selection: Selection) -> Array:
        """(correct, counted) of each pair, or (share, 1) where the task averages over images."""
        products: Any = 0.0
        norms: Any = 0.0
        for candidate, weight in selection.members:
            factor = block_scale(weight, self._bank[candidate].standardiser.raw_channels) ** 2
            product, norm = self._moments(candidate)
            products, norms = products + factor * product, norms + factor * norm
        predicted = self._places[nearest_places(products, norms)]
        matching = self._matching
        results = np.array(
            [
                _pck(self._task, found, truth, matching.sizes[target], matching.boxes[target], self._task.threshold)
                for found, truth, target in zip(predicted, self._truth, matching.pairs[:, 1], strict=True)
            ]
        )
        return by_pair(results) if self._task.average == "image" else results

    def fit(self, selection: Selection) -> Head | None:
        return None

    def _moments(self, candidate: Candidate) -> tuple[Array, Array]:
        """Inner products (pairs, keypoints, places) and squared norms (pairs, places); least recently used go first."""
        if candidate not in self._kept:
            self._kept[candidate] = self._computed(candidate)
            while len(self._kept) > 1 and sum(p.nbytes + n.nbytes for p, n in self._kept.values()) > self._memory:
                self._kept.popitem(last=False)
        self._kept.move_to_end(candidate)
        return self._kept[candidate]

    def _computed(self, candidate: Candidate) -> tuple[Array, Array]:
        features, grid = self._bank[candidate].features, self._matching.grid
        products, norms = [], []
        for source, target in self._matching.pairs:
            places = features[target, :grid].astype(np.float32)
            products.append(features[source, grid:].astype(np.float32) @ places.T)
            norms.append((places**2).sum(-1))
        return np.stack(products), np.stack(norms)
