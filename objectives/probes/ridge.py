"""Ridge classification of fused features, solved from cached Gram blocks.

Notation, over the n locations that a probe is fit on, with weights v that sum to n and one-hot targets Y (n x K):

    X = [s_1 X_1, ..., s_m X_m]     blocks of the bank, s_a = weight_a / sqrt(raw channels of a)
    W = (Xc' V Xc + lambda n I)^-1 Xc' V Yc,   V = diag(v), c: centered with the weighted mean

Per pair of candidates (a, b) and part of the images (a fold, or what is always fit), the moments X_a' V X_b, X_a' V Y
and X_a' v do not depend on the fusion weights or on the rest of a selection. They are computed when first needed and
kept while memory lasts, so a trial is a small linear solve and one matrix product over the held-out locations.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import scipy.linalg
from jaxtyping import Float32, Float64
from threadpoolctl import threadpool_limits

from diffsift.spaces import Candidate, Selection, block_scale

from ..bank import Bank, Entry
from ..metrics import confusion, confusion_per_image, mean_iou
from ..specification import ProbeSpecification

Array = np.ndarray[Any, Any]

_SMALL_SOLVE = 1024  # channels


@dataclass(frozen=True)
class Score:
    """`value` from the counts of all folds together, `folds` of each alone; both in [0, 1], higher is better."""

    value: float
    folds: tuple[float, ...]


@dataclass(frozen=True)
class RidgeHead:
    """A fitted probe: logits are the sum over blocks of ``features @ weights[candidate]``, plus `intercept`.

    The weights apply to standardised features of the bank; the factors of fusion are folded in.
    """

    weights: Mapping[Candidate, Float32[np.ndarray, "channels classes"]]
    intercept: Float32[np.ndarray, "classes"]


class RidgeProbe:
    """Scores selections on a bank.

    Args:
        bank: holds every candidate that will be asked for.
        specification: penalty and class balance.
        memory: bytes to keep moments and held-out features in.
    """

    def __init__(self, bank: Bank, specification: ProbeSpecification, *, memory: int = 1_000_000_000) -> None:
        development = bank.development
        self._bank, self._specification = bank, specification
        self._classes = len(development.class_names)
        self._images = {part: np.flatnonzero(development.fold == part) for part in np.unique(development.fold)}
        emphasis = development.weights.astype(np.float64) ** (1.0 - specification.balance)
        self._emphasis = (emphasis / emphasis.mean()).astype(np.float32)
        self._kept: OrderedDict[Hashable, Any] = OrderedDict()
        self._kept_bytes, self._memory = 0, memory

    def score(self, selection: Selection) -> Score:
        """Mean IoU over held-out locations, fit fold by fold on the other images; about a millisecond a block."""
        development = self._bank.development
        counts = [
            confusion(development.labels[images].ravel(), predicted, development.weights[images].ravel(), self._classes)
            for images, predicted in self._held_out(selection)
        ]
        return Score(mean_iou(np.sum(counts, axis=0)), tuple(mean_iou(count) for count in counts))

    def held_out_counts(self, selection: Selection) -> Float64[np.ndarray, "images classes classes"]:
        """Weighted confusion counts of each held-out image, fold after fold: what paired comparisons are made from."""
        development = self._bank.development
        return np.concatenate(
            [
                confusion_per_image(
                    development.labels[images],
                    predicted.reshape(len(images), -1),
                    development.weights[images],
                    self._classes,
                )
                for images, predicted in self._held_out(selection)
            ]
        )

    def _held_out(self, selection: Selection) -> Iterator[tuple[Array, Array]]:
        """Per fold, the held-out images and the classes predicted at their locations."""
        with threadpool_limits(self._threads(selection)):
            for fold in self._bank.development.folds:
                head = self._solve(selection, [part for part in self._images if part != fold])
                logits = head.intercept + sum(
                    self._features(self._bank[candidate], fold) @ weights for candidate, weights in head.weights.items()
                )
                yield self._images[fold], logits.argmax(1)

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
        count = float(sum(self._class_totals(part).sum() for part in parts))
        target_mean = sum(self._class_totals(part) for part in parts) / count
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

    def _class_totals(self, part: int) -> Float64[np.ndarray, "classes"]:
        return self._keep(("classes", part), lambda: self._targets(part).sum(0, dtype=np.float64))

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
        """One-hot classes times the weight of each location."""

        def compute() -> Array:
            images = self._images[part]
            targets = np.eye(self._classes, dtype=np.float32)[self._bank.development.labels[images].ravel()]
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
