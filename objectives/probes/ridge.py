"""Ridge regression on fused features, solved from cached Gram blocks.

Notation, over the n locations that a probe is fit on, with weights v that sum to n and targets Y (n x K), which
are one-hot classes or values:

    X = [s_1 X_1, ..., s_m X_m]     blocks of the bank, s_a = weight_a / sqrt(raw channels of a)
    W = (Xc' V Xc + lambda n I)^-1 Xc' V Yc,   V = diag(v), c: centered with the weighted mean

Per pair of candidates (a, b) and part of the images (a fold, or what is always fit), the moments X_a' V X_b, X_a' V Y
and X_a' v do not depend on the fusion weights or on the rest of a selection. They are computed when first needed and
kept while memory lasts, so a trial is a small linear solve and one matrix product over the held-out locations.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float32, Float64
from threadpoolctl import threadpool_limits

from diffsift.spaces import Selection, block_scale

from ..bank import BankView, Entry
from ..specification import ProbeSpecification
from ._base import Probe, RidgeHead, Score
from ._readout import ClassReadout, Readout

Array = np.ndarray[Any, Any]

_SMALL_SOLVE = 1024  # channels


class RidgeProbe(Probe):
    """Scores selections on a bank.

    Args:
        bank: holds every candidate that will be asked for.
        specification: penalty and class balance.
        readout: targets and metric; default: the classes of points, by mean IoU.
        memory: bytes to keep moments and held-out features in.
    """

    def __init__(
        self,
        bank: BankView,
        specification: ProbeSpecification,
        readout: Readout | None = None,
        *,
        memory: int = 1_000_000_000,
    ) -> None:
        development = bank.development
        self._bank, self._specification = bank, specification
        self._readout = readout or ClassReadout()
        self.metric = self._readout.metric
        self._images = {part: np.flatnonzero(development.fold == part) for part in np.unique(development.fold)}
        self.groups = [development.groups[int(image)] for fold in development.folds for image in self._images[fold]]
        emphasis = development.weights.astype(np.float64) ** (1.0 - specification.balance)
        self._emphasis = (emphasis / emphasis.mean()).astype(np.float32)
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._kept_bytes, self._memory = 0, memory

    def score(self, selection: Selection) -> Score:
        """Signed score over held-out images, fit fold by fold on the others; about a millisecond a block."""
        results = list(self._held_out(selection))
        sign = self.metric.sign
        value = sign * self.metric.value(np.concatenate(results))
        return Score(value, tuple(sign * self.metric.value(result) for result in results))

    def held_out(self, selection: Selection) -> Array:
        """Results of each held-out image, fold after fold: what paired comparisons are made from."""
        return np.concatenate(list(self._held_out(selection)))

    def sampling_error(self, selection: Selection, *, draws: int = 100, seed: int = 0) -> float | None:
        """Standard error of the score as an estimate of that of the same heads at all pixels of the same images.

        A bootstrap over the locations of each image, which were drawn independently. None for pooled features.
        """
        development = self._bank.development
        if development.pooled:
            return None
        folds, rng = list(self._outputs(selection)), np.random.default_rng(seed)
        count = int(development.weights.shape[1])
        values = []
        for _ in range(draws):
            how_often = rng.multinomial(count, np.full(count, 1 / count), size=len(development.weights))
            resampled = replace(development, weights=development.weights * how_often.astype(np.float32))
            results = [self._readout.results(resampled, images, outputs) for images, outputs in folds]
            values.append(self.metric.value(np.concatenate(results)))
        return float(np.std(values, ddof=1))

    def _held_out(self, selection: Selection) -> Iterator[Array]:
        """Per fold, the results of its held-out images."""
        for images, outputs in self._outputs(selection):
            yield self._readout.results(self._bank.development, images, outputs)

    def _outputs(self, selection: Selection) -> Iterator[tuple[Array, Array]]:
        """Per fold, its held-out images and the outputs at their locations."""
        with threadpool_limits(self._threads(selection)):
            for fold in self._bank.development.folds:
                head = self._solve(selection, [part for part in self._images if part != fold])
                outputs = head.intercept + sum(
                    self._features(self._bank[candidate], fold) @ weights for candidate, weights in head.weights.items()
                )
                yield self._images[fold], outputs

    def fit(self, selection: Selection) -> RidgeHead:
        """The probe fit on all development images, for the test split."""
        with threadpool_limits(self._threads(selection)):
            return self._solve(selection, list(self._images))

    def _threads(self, selection: Selection) -> int | None:
        """One for the solves of a trial, which get slower with more; no limit where all candidates are fused."""
        channels = sum(self._bank[candidate].features.shape[-1] for candidate in selection.candidates)
        return 1 if channels <= _SMALL_SOLVE else None

    def _solve(self, selection: Selection, parts: list[int]) -> RidgeHead:
        entries = [self._bank[candidate] for candidate in selection.candidates]
        scales = [
            block_scale(weight, entry.standardiser.raw_channels)
            for entry, (_, weight) in zip(entries, selection.members, strict=True)
        ]
        count = float(sum(self._emphasis[self._images[part]].sum(dtype=np.float64) for part in parts))
        target_mean = sum(self._target_totals(part) for part in parts) / count
        means = [
            scale * self._sum(self._first, entry, parts) / count for entry, scale in zip(entries, scales, strict=True)
        ]
        mean = np.concatenate([first[0] for first in means])
        right = np.concatenate(
            [scale * self._sum(self._cross, entry, parts) for entry, scale in zip(entries, scales, strict=True)]
        ) - count * np.outer(mean, target_mean)
        offsets = np.cumsum([0, *(entry.features.shape[-1] for entry in entries)])
        gram = np.zeros((offsets[-1], offsets[-1]))
        for i, first in enumerate(entries):
            for j, second in enumerate(entries[: i + 1]):
                block = scales[i] * scales[j] * self._pair(first, second, parts)
                gram[offsets[i] : offsets[i + 1], offsets[j] : offsets[j + 1]] = block
        gram -= count * np.outer(mean, mean)  # only the lower triangle is read
        gram.flat[:: len(gram) + 1] += self._specification.regularisation * count
        factor = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
        solution = scipy.linalg.cho_solve(factor, right, check_finite=False)
        weights = {
            entry.candidate: (scale * solution[start:end]).astype(np.float32)
            for entry, scale, (start, end) in zip(entries, scales, pairwise(offsets), strict=True)
        }
        return RidgeHead(weights, (target_mean - mean @ solution).astype(np.float32))

    def _sum(self, moment: Callable[[Entry, int], Array], entry: Entry, parts: list[int]) -> Array:
        return np.asarray(np.stack([moment(entry, part) for part in parts]).sum(axis=0))

    def _pair(self, first: Entry, second: Entry, parts: list[int]) -> Float64[np.ndarray, "first second"]:
        swap = second.candidate < first.candidate
        a, b = (second, first) if swap else (first, second)
        total = np.stack([self._second(a, b, part) for part in parts]).sum(axis=0, dtype=np.float64)
        return np.asarray(total.T if swap else total)

    def _target_totals(self, part: int) -> Float64[np.ndarray, "classes"]:
        return self._keep(("totals", part), lambda: self._targets(part).sum(0, dtype=np.float64))

    def _first(self, entry: Entry, part: int) -> Float64[np.ndarray, "1 channels"]:
        emphasis = self._emphasis[self._images[part]].reshape(1, -1)
        return self._keep(
            ("mean", entry.candidate, part), lambda: (emphasis @ self._features(entry, part)).astype(np.float64)
        )

    def _cross(self, entry: Entry, part: int) -> Float64[np.ndarray, "channels classes"]:
        return self._keep(
            ("cross", entry.candidate, part),
            lambda: (self._features(entry, part).T @ self._targets(part)).astype(np.float64),
        )

    def _second(self, a: Entry, b: Entry, part: int) -> Float32[np.ndarray, "a b"]:
        def compute() -> Array:
            emphasis = self._emphasis[self._images[part]].reshape(-1, 1)
            product: Array = (self._features(a, part) * emphasis).T @ self._features(b, part)
            return product

        return self._keep(("gram", a.candidate, b.candidate, part), compute)

    def _targets(self, part: int) -> Float32[np.ndarray, "locations classes"]:
        """Targets times the weight of each location."""

        def compute() -> Array:
            images = self._images[part]
            targets = self._readout.targets(self._bank.development, images)
            return np.asarray(targets * self._emphasis[images].reshape(-1, 1))

        return self._keep(("targets", part), compute)

    def _features(self, entry: Entry, part: int) -> Float32[np.ndarray, "locations channels"]:
        def compute() -> Array:
            features: Array = entry.features[self._images[part]].astype(np.float32)
            return features.reshape(-1, features.shape[-1])

        return self._keep(("features", entry.candidate, part), compute)

    def _keep(self, key: Hashable, compute: Callable[[], Array]) -> Array:
        """Least recently used cache over everything above, bounded in bytes."""
        if key in self._kept:
            self._kept.move_to_end(key)
        else:
            value = compute()
            self._kept[key] = value
            self._kept_bytes += value.nbytes
            while self._kept_bytes > self._memory and len(self._kept) > 1:
                _, dropped = self._kept.popitem(last=False)
                self._kept_bytes -= dropped.nbytes
            return value
        kept: Array = self._kept[key]
        return kept
