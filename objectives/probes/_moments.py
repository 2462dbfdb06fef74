"""Weighted moments of a selection's features and targets over some parts of the images, and ridge solves from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float64


@dataclass(frozen=True)
class Moments:
    """Sums over rows with weights v, features X and targets Y, about their weighted means.

    Attributes:
        count: sum of v.
        mean: of the features.
        target: mean of the targets.
        gram: Xc' V Xc, in Fortran's order; only the lower triangle is filled.
        cross: Xc' V Yc.
        spread: sum of v |Yc|^2.
    """

    count: float
    mean: Float64[np.ndarray, "channels"]
    target: Float64[np.ndarray, "outputs"]
    gram: Float64[np.ndarray, "channels channels"]
    cross: Float64[np.ndarray, "channels outputs"]
    spread: float

    @classmethod
    def centered(
        cls,
        totals: Float64[np.ndarray, "two_and_outputs"],
        first: Float64[np.ndarray, "channels"],
        gram: Float64[np.ndarray, "channels channels"],
        cross: Float[np.ndarray, "channels outputs"],
    ) -> Moments:
        """Center sums about their weighted means; `gram` is overwritten.

        Args:
            totals: sums of v and of v |Y|^2, then v'Y.
            first: X'v.
            gram: X'VX, in Fortran's order; only the lower triangle is filled.
            cross: X'VY.

        Returns:
            The centered moments.
        """
        count, squares = float(totals[0]), float(totals[1])
        mean, target = first / count, totals[2:] / count
        gram.T[:] -= np.outer(count * mean, mean)
        return cls(count, mean, target, gram, cross - np.outer(first, target), squares - count * float(target @ target))

    def solve(self, penalty: float, *, overwrite: bool = False) -> Float64[np.ndarray, "channels outputs"]:
        """Weights of ridge regression, (gram + penalty count I)^-1 cross.

        Args:
            penalty: above 0.
            overwrite: use the memory of `gram`, which saves a copy; these moments are spent then.

        Returns:
            One column of weights per output.
        """
        gram = self.gram if overwrite else self.gram.copy(order="F")
        np.einsum("ii->i", gram)[:] += penalty * self.count
        factor = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
        return np.asarray(scipy.linalg.cho_solve(factor, self.cross, check_finite=False))

    def errors(
        self, fit: Moments, weights: Float64[np.ndarray, "solutions channels outputs"]
    ) -> Float64[np.ndarray, "solutions"]:
        """Sum of v |Y - intercept - X weights|^2 over these rows, for solutions fit on others.

        Nothing is predicted: with W and an intercept from `fit`, and d the mean residual here,
        the sum is spread - 2 tr(W' cross) + tr(W' gram W) + count |d|^2.

        Args:
            fit: the moments that the solutions are fitted on.
            weights: weights of each solution.

        Returns:
            The sum for each solution.
        """
        solutions, channels, outputs = weights.shape
        side_by_side = np.asfortranarray(weights.transpose(1, 0, 2).reshape(channels, -1))
        product = scipy.linalg.blas.dsymm(  # pyright: ignore[reportAttributeAccessIssue]
            1.0, self.gram, side_by_side, lower=1
        )
        product = product.reshape(channels, solutions, outputs).transpose(1, 0, 2)
        residual = (self.target - fit.target) - (self.mean - fit.mean) @ weights
        quadratic = np.einsum("sco,sco->s", weights, product - 2 * self.cross)
        return np.asarray(self.spread + quadratic + self.count * (residual**2).sum(-1))
