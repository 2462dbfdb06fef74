"""Ridge regression on fused features, solved from cached Gram blocks.

Notation, over the n locations that a probe is fit on, with weights v that sum to n and targets Y (n x K), which
are one-hot classes, values or the components of normals:

    X = [s_1 X_1, ..., s_m X_m]     blocks of the bank, s_a = weight_a / sqrt(raw channels of a)
    W = (Xc' V Xc + lambda n I)^-1 Xc' V Yc,   V = diag(v), c: centered with the weighted mean

Per pair of candidates (a, b) and part of the images (a fold, or a third of what is always fit), the moments
X_a' V X_b, X_a' V Y and X_a' v do not depend on the fusion weights or on the rest of a selection. They are computed
when first needed and cached while memory lasts, so a trial is a small linear solve and one matrix product over the
held-out locations.

Where lambda is to be chosen, the parts that are fit on are dealt into at most three sets. Each is held out once, and
the lambda of `PENALTIES` with the least squared error over all of them is taken. That error follows from moments
alone, so it costs one factorisation per lambda and set, and sees nothing of the fold that is scored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Float32, Float64

from diffsift.bank import Entry
from diffsift.errors import DataError
from diffsift.extraction import block_scale
from diffsift.spaces import Candidate, Selection

from .._caching import cached
from ._base import RidgeHead
from ._elimination import Elimination, eliminate
from ._folds import SMALL, FoldProbe, dealt
from ._moments import Moments

_ROWS = 8192
"""Most rows that an elimination is fitted on."""

PENALTIES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
"""What ``auto`` chooses from."""


class RidgeProbe(FoldProbe):
    """Scores selections by ridge regression; see `FoldProbe` for the arguments."""

    def fit(self, selection: Selection) -> RidgeHead:
        """Fit on all development images, for the test split.

        Args:
            selection: candidates of the bank with their weights.

        Returns:
            One column of weights per class or value.

        Raises:
            DataError: the penalty is to be chosen, but there is one group of images alone.
        """
        with self._threads(selection):
            return self._fits(selection).head(list(self._images))

    def eliminate(self, pool: Sequence[Candidate], most: int) -> Elimination:
        """Backward elimination on the images that are always fitted on, or on all where there is no validation split.

        At most 8,192 rows are used, weighing as they were sampled.

        Args:
            pool: candidates of the bank.
            most: how many are to survive; those that go before them are listed behind them.

        Returns:
            The order in which candidates survive.
        """
        always = [part for part in self._images if part < 0]
        images = np.concatenate([self._images[part] for part in always or self._images])
        images = images[:: max(1, len(images) * self._bank.development.rows // _ROWS)]

        def features(candidate: Candidate) -> Float32[np.ndarray, "rows channels"]:
            entry = self._bank[candidate].features[images].astype(np.float32)
            return np.asarray(entry.reshape(-1, entry.shape[-1]))

        return eliminate(pool, features, self._readout.targets(self._bank.development, images), most)

    def fold_outputs(self, selection: Selection) -> Iterator[Float32[np.ndarray, "rows outputs"]]:
        fits = self._fits(selection)
        for fold in self._bank.development.folds:
            head = fits.head([part for part in self._images if part != fold])
            outputs = sum(
                self._features(self._bank[candidate], fold) @ weights for candidate, weights in head.weights.items()
            )
            yield np.asarray(outputs + head.intercept)

    def _fits(self, selection: Selection) -> _Fits:
        return _Fits(self, selection, self._specification.regularisation)

    def head(
        self, selection: Selection, solution: Float64[np.ndarray, "channels outputs"], moments: Moments
    ) -> RidgeHead:
        """Fold the factors of fusion into a solution.

        Args:
            selection: candidates of the bank with their weights.
            solution: weights for the fused feature.
            moments: the moments that they solve.

        Returns:
            The head for features of the bank.
        """
        blocks = self._blocks(selection)
        weights = {entry.candidate: (scale * solution[span]).astype(np.float32) for entry, scale, span in blocks}
        return RidgeHead(weights, (moments.target - moments.mean @ solution).astype(np.float32))

    def moments(self, selection: Selection, parts: Sequence[int]) -> Moments:
        """Weighted moments of a selection's fused feature over some parts together.

        Args:
            selection: candidates of the bank with their weights.
            parts: numbers of parts.

        Returns:
            The centered moments.
        """
        blocks = self._blocks(selection)
        channels = blocks[-1][2].stop
        upper = np.zeros((channels, channels))
        first = np.zeros(channels)
        for part in parts:
            for number, (entry, scale, span) in enumerate(blocks):
                first[span] += scale * self._first(entry, part)
                for other, factor, columns in blocks[number:] if channels <= SMALL else ():
                    upper[span, columns] += (scale * factor) * self._second(entry, other, part)
            if channels > SMALL:
                upper += self._second_of_all(blocks, part)
        totals = np.sum([self._totals(part) for part in parts], axis=0)
        cross = [scale * np.sum([self._cross(entry, part) for part in parts], axis=0) for entry, scale, _ in blocks]
        return Moments.centered(totals, first, upper.T, np.concatenate(cross))

    def _second_of_all(
        self, blocks: Sequence[tuple[Entry, float, slice]], part: int
    ) -> Float32[np.ndarray, "channels channels"]:
        """X'VX of all blocks side by side, its upper triangle: one product, which is not cached.

        A selection this wide is one of few, and its thousands of pairs would push all others out of memory.
        """
        rows = np.sqrt(self._rows(part))
        stacked = np.concatenate([scale * rows * self._features(entry, part) for entry, scale, _ in blocks], axis=1)
        return np.asarray(scipy.linalg.blas.ssyrk(1.0, stacked.T))  # pyright: ignore[reportAttributeAccessIssue]

    def _blocks(self, selection: Selection) -> list[tuple[Entry, float, slice]]:
        """Entry, factor in the fused feature, and channels there of each candidate."""
        entries = [self._bank[candidate] for candidate in selection.candidates]
        ends = np.cumsum([0, *(entry.features.shape[-1] for entry in entries)])
        return [
            (entry, block_scale(weight, entry.standardiser.raw_channels), slice(int(start), int(end)))
            for entry, (_, weight), (start, end) in zip(entries, selection.members, pairwise(ends), strict=True)
        ]

    def _totals(self, part: int) -> Float64[np.ndarray, "two_and_outputs"]:
        """Sums of v, v |Y|^2 and v Y."""

        def compute() -> Float64[np.ndarray, "two_and_outputs"]:
            rows, targets = self._rows(part).astype(np.float64), self._targets(part)
            return np.array([rows.sum(), (rows * targets**2).sum(), *(rows * targets).sum(0)])

        return cached(self._cache, ("totals", part), compute)

    def _first(self, entry: Entry, part: int) -> Float64[np.ndarray, "channels"]:
        return cached(
            self._cache,
            ("first", entry.candidate, part),
            lambda: (self._rows(part)[:, 0] @ self._features(entry, part)).astype(np.float64),
        )

    def _cross(self, entry: Entry, part: int) -> Float64[np.ndarray, "channels outputs"]:
        return cached(
            self._cache,
            ("cross", entry.candidate, part),
            lambda: (self._features(entry, part).T @ (self._targets(part) * self._rows(part))).astype(np.float64),
        )

    def _second(self, a: Entry, b: Entry, part: int) -> Float32[np.ndarray, "a b"]:
        if b.candidate < a.candidate:
            return self._second(b, a, part).T

        def compute() -> Float32[np.ndarray, "a b"]:
            features = self._features(a, part)
            weighted = features if self._even else features * self._rows(part)
            return np.asarray(weighted.T @ self._features(b, part))

        return cached(self._cache, ("second", a.candidate, b.candidate, part), compute)


class _Fits:
    """Fits of one selection; what several folds share is computed once."""

    def __init__(self, probe: RidgeProbe, selection: Selection, regularisation: float | Literal["auto"]) -> None:
        self._probe, self._selection = probe, selection
        self._regularisation: float | Literal["auto"] = regularisation
        self._moments: dict[frozenset[int], Moments] = {}
        self._solutions: dict[frozenset[int], Float64[np.ndarray, "penalties channels outputs"]] = {}

    def head(self, parts: Sequence[int]) -> RidgeHead:
        """Fit on these parts."""
        penalty = self._chosen_penalty(parts) if self._regularisation == "auto" else self._regularisation
        moments = self._probe.moments(self._selection, parts)
        return self._probe.head(self._selection, moments.solve(penalty, overwrite=True), moments)

    def _chosen_penalty(self, parts: Sequence[int]) -> float:
        """The penalty with the least error on parts of these that are held out in turn."""
        sets = dealt(parts)
        if len(sets) < 2:
            raise DataError(
                "probe.regularisation: auto needs at least two groups of training images in every fold, but "
                "there is one: give a number."
            )
        errors = np.zeros(len(PENALTIES))
        for held_out in sets:
            others = [part for part in parts if part not in held_out]
            errors += self._moments_of(held_out).errors(self._moments_of(others), self._solved(others))
        return PENALTIES[int(errors.argmin())]

    def _moments_of(self, parts: Sequence[int]) -> Moments:
        key = frozenset(parts)
        if key not in self._moments:
            self._moments[key] = self._probe.moments(self._selection, parts)
        return self._moments[key]

    def _solved(self, parts: Sequence[int]) -> Float64[np.ndarray, "penalties channels outputs"]:
        """Weights for all of `PENALTIES`."""
        key = frozenset(parts)
        if key not in self._solutions:
            moments = self._moments_of(parts)
            self._solutions[key] = np.stack([moments.solve(penalty) for penalty in PENALTIES])
        return self._solutions[key]
