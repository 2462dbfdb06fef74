"""Ridge regression on fused features, solved from cached Gram blocks.

Notation, over the n locations that a probe is fit on, with weights v that sum to n and targets Y (n x K), which
are one-hot classes, values or the components of normals:

    X = [s_1 X_1, ..., s_m X_m]     blocks of the bank, s_a = weight_a / sqrt(raw channels of a)
    W = (Xc' V Xc + lambda n I)^-1 Xc' V Yc,   V = diag(v), c: centered with the weighted mean

Per pair of candidates (a, b) and part of the images (a fold, or a third of what is always fit), the moments
X_a' V X_b, X_a' V Y and X_a' v do not depend on the fusion weights or on the rest of a selection. They are computed
when first needed and cached while memory lasts, so a trial is a small linear solve and one matrix product over the
held-out locations.

A selection of more channels than there are rows to fit on (all candidates of a timestep together) is solved in dual
form instead (`_dual.py`): the same W, without a matrix of channels x channels, and nothing is cached.

Where lambda is to be chosen, the parts that are fit on are dealt into at most three sets. Each is held out once, and
the lambda of `PENALTIES` with the least squared error over all of them is taken. That error follows from moments
alone (in dual form, from K), so it costs one factorisation per lambda and set, and sees nothing of the fold that is
scored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Literal

import numpy as np
import scipy.linalg
from jaxtyping import Float32, Float64, Int

from diffsift.bank import Entry
from diffsift.errors import DataError
from diffsift.extraction import block_scale
from diffsift.spaces import Candidate, Selection

from .._caching import cached
from ._base import RidgeHead
from ._dual import DualRidge, DualSolutions
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
            return self._fits(selection, list(self._images)).head(list(self._images))

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
        folds = self._bank.development.folds
        fitted = {fold: [part for part in self._images if part != fold] for fold in folds}
        fits = self._fits(selection, sorted(set().union(*fitted.values())))
        read = self._read if isinstance(fits, _DualFits) else self._features
        for fold in folds:
            head = fits.head(fitted[fold])
            outputs = sum(read(self._bank[candidate], fold) @ weights for candidate, weights in head.weights.items())
            yield np.asarray(outputs + head.intercept)

    def _fits(self, selection: Selection, parts: Sequence[int]) -> _Fits:
        """Fits on any of these parts, in the form that costs less."""
        channels = sum(self._bank[candidate].features.shape[-1] for candidate in selection.candidates)
        if channels <= max(SMALL, sum(map(self.rows_of, parts))):
            return _PrimalFits(self, selection, self._specification.regularisation)
        return _DualFits(self, selection, self._specification.regularisation, parts)

    def rows_of(self, part: int) -> int:
        """Rows of a part of the images.

        Args:
            part: its number.

        Returns:
            How many features its images have together.
        """
        return len(self._images[part]) * self._bank.development.rows

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

    def dual(self, selection: Selection, parts: Sequence[int]) -> DualRidge:
        """Rows of a selection's fused feature, for solves in dual form.

        Args:
            selection: candidates of the bank with their weights.
            parts: numbers of parts, whose rows come in this order.

        Returns:
            The rows.
        """
        return DualRidge.of(
            (
                scale * np.concatenate([self._read(entry, part) for part in parts]).astype(np.float64)
                for entry, scale, _ in self._blocks(selection)
            ),
            np.concatenate([self._rows(part)[:, 0] for part in parts]),
            np.concatenate([self._targets(part) for part in parts]),
        )

    def dual_head(
        self,
        selection: Selection,
        parts: Sequence[int],
        solution: Float64[np.ndarray, "rows outputs"],
        intercept: Float64[np.ndarray, "outputs"],
    ) -> RidgeHead:
        """Turn a dual solution into weights of channels.

        Args:
            selection: candidates of the bank with their weights.
            parts: numbers of the parts that were fit on.
            solution: one row of weights for each of their rows.
            intercept: of the outputs.

        Returns:
            The head for features of the bank.
        """
        ends = np.cumsum([self.rows_of(part) for part in parts])[:-1]
        own = list(zip(parts, np.split(solution, ends), strict=True))
        weights = {
            entry.candidate: (
                scale**2 * np.sum([self._read(entry, part).T @ rows for part, rows in own], axis=0)
            ).astype(np.float32)
            for entry, scale, _ in self._blocks(selection)
        }
        return RidgeHead(weights, intercept.astype(np.float32))

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


class _Fits(ABC):
    """Fits of one selection; what several folds share is computed once."""

    def __init__(self, probe: RidgeProbe, selection: Selection, regularisation: float | Literal["auto"]) -> None:
        self._probe, self._selection = probe, selection
        self._regularisation: float | Literal["auto"] = regularisation

    def head(self, parts: Sequence[int]) -> RidgeHead:
        """Fit on these parts."""
        return self._head(
            parts, self._chosen_penalty(parts) if self._regularisation == "auto" else self._regularisation
        )

    @abstractmethod
    def _head(self, parts: Sequence[int], penalty: float) -> RidgeHead:
        """Fit on these parts with this penalty."""

    @abstractmethod
    def _errors(self, held_out: Sequence[int], others: Sequence[int]) -> Float64[np.ndarray, "penalties"]:
        """Squared error on parts that are held out, for each of `PENALTIES`, when others are fit on."""

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
            errors += self._errors(held_out, [part for part in parts if part not in held_out])
        return PENALTIES[int(errors.argmin())]


class _PrimalFits(_Fits):
    """From moments."""

    def __init__(self, probe: RidgeProbe, selection: Selection, regularisation: float | Literal["auto"]) -> None:
        super().__init__(probe, selection, regularisation)
        self._moments: dict[frozenset[int], Moments] = {}
        self._solutions: dict[frozenset[int], Float64[np.ndarray, "penalties channels outputs"]] = {}

    def _head(self, parts: Sequence[int], penalty: float) -> RidgeHead:
        moments = self._probe.moments(self._selection, parts)
        return self._probe.head(self._selection, moments.solve(penalty, overwrite=True), moments)

    def _errors(self, held_out: Sequence[int], others: Sequence[int]) -> Float64[np.ndarray, "penalties"]:
        return self._moments_of(held_out).errors(self._moments_of(others), self._solved(others))

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


class _DualFits(_Fits):
    """From products of rows, which are computed once for all parts that are fit on."""

    def __init__(
        self,
        probe: RidgeProbe,
        selection: Selection,
        regularisation: float | Literal["auto"],
        parts: Sequence[int],
    ) -> None:
        super().__init__(probe, selection, regularisation)
        self._ridge = probe.dual(selection, parts)
        counts = [probe.rows_of(part) for part in parts]
        self._of_part = dict(zip(parts, np.split(np.arange(sum(counts)), np.cumsum(counts)[:-1]), strict=True))
        self._solutions: dict[frozenset[int], DualSolutions] = {}

    def _head(self, parts: Sequence[int], penalty: float) -> RidgeHead:
        solutions, intercepts = self._ridge.solve(self._rows(parts), [penalty])
        return self._probe.dual_head(self._selection, parts, solutions[0], intercepts[0])

    def _errors(self, held_out: Sequence[int], others: Sequence[int]) -> Float64[np.ndarray, "penalties"]:
        key, fit = frozenset(others), self._rows(sorted(others))
        if key not in self._solutions:
            self._solutions[key] = self._ridge.solve(fit, PENALTIES)
        return self._ridge.errors(fit, self._solutions[key], self._rows(held_out))

    def _rows(self, parts: Sequence[int]) -> Int[np.ndarray, "rows"]:
        return np.concatenate([self._of_part[part] for part in parts])
