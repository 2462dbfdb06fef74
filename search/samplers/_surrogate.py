"""A Gaussian process over selections, whose kernel needs no label.

Notation: candidate a has a hat matrix P_a = X_a (X_a' X_a + l I)^-1 X_a' over some locations, what ridge regression on
it can express; the entries of the given similarity are M_ab = <P_a, P_b> / (|P_a| |P_b|). A selection S with weights w
is placed at the sum of its members, P_S = sum_a w_a^2 P_a, so that, with M' = (1 - d) M + d I,

    c(S, T) = <P_S, P_T> / (|P_S| |P_T|),     <P_S, P_T> = sum_ab w_a^2 w_b^2 M'_ab
    k(S, T) = r exp(-(1 - c(S, T)) / b^2) + min(|S|, |T|) / m,     m: most members of a selection

How alike two selections are is thus known before either is scored (the distance of hat matrices is that of GULP:
Boix-Adsera et al., NeurIPS 2022, "GULP: a prediction-based metric between representations"). The second term lets the
score grow with the number of members. Distinctness d (1: every candidate is a case of its own), breadth b, share r and
noise are those of the highest marginal likelihood on a fixed grid, the overall variance in closed form.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
import scipy.linalg
from jaxtyping import Float, Float32, Int

Array = npt.NDArray[np.floating]

_DISTINCTNESS = (0.0, 0.3, 0.9)
_BREADTHS = (0.3, 0.5, 0.8, 1.2)
_GRID = tuple(product(_BREADTHS, (0.5, 2.0), (2e-3, 5e-2)))


@dataclass(frozen=True)
class PlacedSelections:
    """Selections by where they lie.

    Attributes:
        positions: of their members in the pool; 0 where there are fewer.
        squares: w_a^2 of the members; 0 where there are fewer.
        inner: <P_S, P_a> with every candidate of the pool.
        norm: |P_S|.
        size: |S| / m.
    """

    positions: Int[np.ndarray, "selections members"]
    squares: Float[np.ndarray, "selections members"]
    inner: Float[np.ndarray, "selections pool"]
    norm: Float[np.ndarray, "selections"]
    size: Float[np.ndarray, "selections"]

    @classmethod
    def at(
        cls,
        positions: Int[np.ndarray, "selections members"],
        squares: Float[np.ndarray, "selections members"],
        similarity: Float[np.ndarray, "pool pool"],
    ) -> PlacedSelections:
        """From members; the similarity is symmetric, with 1 on its diagonal."""
        inner = np.zeros((len(positions), len(similarity)))
        for member in range(positions.shape[1]):
            inner += squares[:, member, None] * similarity[positions[:, member]]
        norm = np.sqrt(np.einsum("sm,sm->s", squares, np.take_along_axis(inner, positions, 1)))
        return cls(positions, squares, inner, norm, (squares > 0).sum(1) / positions.shape[1])

    def joined(self, other: PlacedSelections) -> PlacedSelections:
        """These, then the others."""
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return PlacedSelections(*(np.concatenate(pair) for pair in pairs))

    def products(self, other: PlacedSelections) -> Float[np.ndarray, "selections others"]:
        """<P_S, P_T> with every one of the others."""
        found = np.zeros((len(self.norm), len(other.norm)))
        for member in range(self.positions.shape[1]):
            found += self.squares[:, member, None] * other.inner.T[self.positions[:, member]]
        return found


@dataclass(frozen=True)
class Settings:
    """Distinctness, breadth, share and noise of the kernel, as at the top of the module."""

    distinctness: float
    breadth: float
    share: float
    noise: float


class Similarities:
    """The similarity at each distinctness, made when first needed.

    Args:
        similarity: M: symmetric, positive semi-definite, 1 on its diagonal.
    """

    def __init__(self, similarity: Float[np.ndarray, "pool pool"]) -> None:
        self._made = {0.0: np.asarray(similarity, dtype=np.float32)}

    def at(self, distinctness: float) -> Float32[np.ndarray, "pool pool"]:
        if distinctness not in self._made:
            found = (1 - distinctness) * self._made[0.0]
            found.flat[:: len(found) + 1] += np.float32(distinctness)
            self._made[distinctness] = found
        return self._made[distinctness]


def most_likely(
    positions: Int[np.ndarray, "selections members"],
    squares: Float[np.ndarray, "selections members"],
    scores: Float[np.ndarray, "selections"],
    similarities: Similarities,
) -> Settings:
    """The grid's settings of highest marginal likelihood, with the overall variance at its best."""
    scores = _standardised(scores)[0]
    best, found = -np.inf, Settings(0.0, *_GRID[0])
    for distinctness in _DISTINCTNESS:
        places = PlacedSelections.at(positions, squares, similarities.at(distinctness))
        cosines, sizes = _cosines(places, places), np.minimum.outer(places.size, places.size)
        bells = {breadth: _bell(cosines, breadth) for breadth in _BREADTHS}
        for settings in (Settings(distinctness, *values) for values in _GRID):
            factor, _, variance = _fit(bells[settings.breadth], sizes, scores, settings)
            likelihood = -0.5 * len(scores) * np.log(variance) - np.log(np.diag(factor)).sum()
            if likelihood > best:
                best, found = float(likelihood), settings
    return found


class Surrogate:
    """The posterior, given scores of some selections; up to about 200 of them it answers within milliseconds.

    Args:
        places: the selections that were scored.
        scores: theirs.
        settings: of the kernel.
    """

    def __init__(self, places: PlacedSelections, scores: Float[np.ndarray, "selections"], settings: Settings) -> None:
        self._places, self._settings = places, settings
        standardised, self._mean, self._deviation = _standardised(scores)
        sizes = np.minimum.outer(places.size, places.size)
        bell = _bell(_cosines(places, places), settings.breadth)
        self._factor, whitened, self._variance = _fit(bell, sizes, standardised, settings)
        self._dual = scipy.linalg.solve_triangular(self._factor, whitened, lower=True, trans=1, check_finite=False)

    def predict(
        self,
        products: Float[np.ndarray, "asked observed"],
        norm: Float[np.ndarray, "asked"],
        size: Float[np.ndarray, "asked"],
    ) -> tuple[Float[np.ndarray, "asked"], Float[np.ndarray, "asked"]]:
        """Mean and deviation of the scores of selections, from their <P_S, P_T> with the observed ones."""
        cosines = np.outer(norm, self._places.norm)  # in place from here: to get memory takes longer than to compute
        np.divide(products, cosines, out=cosines)
        sizes = np.minimum.outer(size, self._places.size)
        cross = _kernel(_bell(cosines, self._settings.breadth), sizes, self._settings)
        mean = self._mean + self._deviation * (cross @ self._dual)
        explained = scipy.linalg.solve_triangular(
            self._factor, cross.T, lower=True, overwrite_b=True, check_finite=False
        )
        variance = np.maximum(self._settings.share + size - np.einsum("ij,ij->j", explained, explained), 1e-9)
        return mean, self._deviation * np.sqrt(self._variance * variance)


def _fit(bell: Array, sizes: Array, scores: Array, settings: Settings) -> tuple[Array, Array, float]:
    """Cholesky factor of the kernel, the scores whitened by it, and the variance of highest likelihood."""
    kernel = _kernel(bell, sizes, settings)
    kernel.flat[:: len(kernel) + 1] += settings.noise
    factor = scipy.linalg.cholesky(kernel, lower=True, overwrite_a=True, check_finite=False)
    whitened = scipy.linalg.solve_triangular(factor, scores, lower=True, check_finite=False)
    return factor, whitened, max(float(whitened @ whitened) / len(scores), 1e-12)


def _bell(cosines: Array, breadth: float) -> Array:
    """What is alike about selections: the costliest step, shared by all settings of one breadth."""
    found = np.minimum(cosines, 1.0)
    found -= 1.0
    found /= breadth**2
    return np.asarray(np.exp(found, out=found))


def _kernel(bell: Array, sizes: Array, settings: Settings) -> Array:
    found = settings.share * bell
    found += sizes
    return np.asarray(found)


def _cosines(first: PlacedSelections, second: PlacedSelections) -> Array:
    return np.asarray(first.products(second) / np.outer(first.norm, second.norm))


def _standardised(scores: Array) -> tuple[Array, float, float]:
    mean, deviation = float(scores.mean()), float(scores.std()) or 1.0
    return (scores - mean) / deviation, mean, deviation
