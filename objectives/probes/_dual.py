"""Ridge regression in dual form: a weight per row instead of one per channel, where there are fewer rows.

With the notation of `ridge.py`, K = X X' over n rows and count = sum of v:

    W = X' A,   A = V^1/2 (V^1/2 Kc V^1/2 + lambda count I)^-1 V^1/2 Yc,   Kc = (I - 1 v' / count) K (I - v 1' / count)

This is the solution of the primal form (Saunders, Gammerman and Vovk, ICML 1998). The columns of A sum to 0, so the
outputs at any rows are X X' A plus an intercept; neither X nor the channels' means are needed to score other rows of K.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float64, Int

DualSolutions: TypeAlias = tuple[Float64[np.ndarray, "penalties fit outputs"], Float64[np.ndarray, "penalties outputs"]]
"""A and the intercept, for each penalty."""

_TOGETHER = 512
"""Rows and columns that are mirrored at once."""


@dataclass(frozen=True)
class DualRidge:
    """What dual solves on any of some rows need.

    Attributes:
        gram: X X', symmetric.
        weights: v.
        targets: Y.
    """

    gram: Float64[np.ndarray, "rows rows"]
    weights: Float64[np.ndarray, "rows"]
    targets: Float64[np.ndarray, "rows outputs"]

    @classmethod
    def of(
        cls,
        blocks: Iterable[Float[np.ndarray, "rows _"]],
        weights: Float[np.ndarray, "rows"],
        targets: Float[np.ndarray, "rows outputs"],
    ) -> DualRidge:
        """Sum the products of blocks of channels, one block in memory at a time.

        Args:
            blocks: X, in parts side by side.
            weights: v.
            targets: Y.

        Returns:
            The rows.
        """
        gram = np.zeros((len(weights), len(weights)), order="F")
        for block in blocks:
            across = np.ascontiguousarray(block, dtype=np.float64).T
            gram = scipy.linalg.blas.dsyrk(  # pyright: ignore[reportAttributeAccessIssue]
                1.0, across, beta=1.0, c=gram, trans=1, lower=1, overwrite_c=1
            )
        for start in range(0, len(gram), _TOGETHER):
            own, before = slice(start, start + _TOGETHER), slice(start)
            gram[before, own] = gram[own, before].T
            gram[own, own] = np.tril(gram[own, own]) + np.tril(gram[own, own], -1).T
        return cls(gram, weights.astype(np.float64), targets.astype(np.float64))

    def solve(self, rows: Int[np.ndarray, "fit"], penalties: Sequence[float]) -> DualSolutions:
        """Fit on some rows.

        Args:
            rows: positions of the rows.
            penalties: lambda, above 0; each costs a Cholesky factorisation.

        Returns:
            A and the intercept for each penalty.
        """
        gram, weights, targets = self.gram[np.ix_(rows, rows)], self.weights[rows], self.targets[rows]
        count = float(weights.sum())
        share, root = weights / count, np.sqrt(weights)[:, None]
        mean, center = gram @ share, share @ targets
        gram -= mean[:, None]
        gram -= mean - share @ mean
        gram *= root
        gram *= root.T
        sides = root * (targets - center)
        solutions = []
        for number, penalty in enumerate(penalties, start=1):
            system = gram if number == len(penalties) else gram.copy()
            np.einsum("ii->i", system)[:] += penalty * count
            factor = scipy.linalg.cho_factor(system.T, lower=True, overwrite_a=True, check_finite=False)
            solutions.append(root * scipy.linalg.cho_solve(factor, sides, check_finite=False))
        found = np.stack(solutions)
        return found, center - np.einsum("r,sro->so", mean, found)

    def errors(
        self, fit: Int[np.ndarray, "fit"], solved: DualSolutions, rows: Int[np.ndarray, "held_out"]
    ) -> Float64[np.ndarray, "penalties"]:
        """Sum of v |Y - outputs|^2 over other rows than were fit on.

        Args:
            fit: positions of the rows that were fit on.
            solved: what `solve` found on them.
            rows: positions of the others.

        Returns:
            The sum for each penalty.
        """
        gram, weights, targets = self.gram[np.ix_(rows, fit)], self.weights[rows], self.targets[rows]
        residuals = (targets - intercept - gram @ solution for solution, intercept in zip(*solved, strict=True))
        return np.array([float(weights @ (residual**2).sum(1)) for residual in residuals])
