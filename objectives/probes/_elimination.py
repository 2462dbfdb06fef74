"""Backward elimination on sketched features: a few large solves say which candidates are worth much together.

Single scores do not show that a candidate is worth something beside others only: one that holds nothing but what
disturbs another (a suppressor) scores nothing alone, and no step of a forward search finds it. Fit together with the
others, it gets weight. So all candidates are fit at once, those that contribute least to the outputs are dropped, and
that is repeated (recursive feature elimination: Guyon et al., Machine Learning 2002, with a block of channels for a
feature). A block's contribution is the variance of X_a W_a over the rows, summed over outputs.

The penalty and the shares were chosen on one division of the scenes that `benchmarks/search_quality.py` searches on.

Each block is sketched to a few channels by a fixed random projection, so that a fit of hundreds of candidates takes
seconds. A pool too large for one fit is halved group by group first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float32, Float64

from diffsift.spaces import Candidate

_WIDTH = 1024
"""Most channels of a fit."""

_CHANNELS = (4, 16)
"""Fewest and most channels of a sketched block."""

_SURVIVING, _SURVIVING_IN_GROUPS = 0.8, 0.5
"""Parts of the candidates that survive a fit."""

_PENALTY = 1e-2


@dataclass(frozen=True)
class Elimination:
    """The order in which candidates survive a backward elimination.

    Attributes:
        survivors: candidates, the last one to go first.
        solves: how many candidate sets were solved on labels.
    """

    survivors: tuple[Candidate, ...]
    solves: int


def eliminate(
    pool: Sequence[Candidate],
    features: Callable[[Candidate], Float32[np.ndarray, "rows channels"]],
    targets: Float32[np.ndarray, "rows outputs"],
    most: int,
) -> Elimination:
    """Drop candidates until `most` are left.

    Args:
        pool: at least one candidate.
        features: of a candidate, at the rows that may be fit on.
        targets: targets at these rows.
        most: number of survivors.

    Returns:
        All candidates of the pool, survivors first.
    """
    width = max(_CHANNELS[0], min(_CHANNELS[1], _WIDTH // len(pool)))
    sketches = {candidate: _sketch(features(candidate), width) for candidate in pool}
    centered = targets - targets.mean(0)
    alive, gone, solves = list(pool), list[Candidate](), 0
    room = _WIDTH // width
    while len(alive) > room:  # each candidate beside others from all over the pool
        groups = -(-len(alive) // room)
        split = [alive[start::groups] for start in range(groups)]
        counts = [max(most, int(len(group) * _SURVIVING_IN_GROUPS)) for group in split]
        fits = [_Fit(sketches, group, centered) for group in split]
        solves += groups
        remaining = {candidate for fit, count in zip(fits, counts, strict=True) for candidate in fit.best(count)}
        gone += [candidate for candidate in alive if candidate not in remaining]
        alive = [candidate for candidate in alive if candidate in remaining]
    fit = _Fit(sketches, alive, centered)
    while len(alive) > most:
        ranked = fit.best(len(alive), alive)
        solves += 1
        count = min(len(alive) - 1, max(most, int(len(alive) * _SURVIVING)))
        gone += reversed(ranked[count:])
        alive = ranked[:count]
    return Elimination((*alive, *reversed(gone)), solves)


def _sketch(features: Float32[np.ndarray, "rows channels"], width: int) -> Float32[np.ndarray, "rows width"]:
    """Centered, projected on random orthonormal directions where there are more channels, of unit total variance."""
    channels = features.shape[1]
    if channels > width:
        directions = np.random.default_rng([channels, width]).standard_normal((channels, width))
        features = features @ np.linalg.qr(directions)[0].astype(np.float32)
    features = features - features.mean(0)
    return np.asarray(features / max(float(np.sqrt((features**2).mean(0).sum())), 1e-12), dtype=np.float32)


class _Fit:
    """Ridge regression on sketches of a group of candidates, and on those of any part of it."""

    def __init__(
        self,
        sketches: dict[Candidate, Float32[np.ndarray, "rows channels"]],
        group: Sequence[Candidate],
        targets: Float32[np.ndarray, "rows outputs"],
    ) -> None:
        stacked = np.concatenate([sketches[candidate] for candidate in group], axis=1)
        self._gram: Float64[np.ndarray, "columns columns"] = (stacked.T @ stacked).astype(np.float64) / len(stacked)
        self._cross = (stacked.T @ targets).astype(np.float64) / len(stacked)
        ends = np.cumsum([0, *(sketches[candidate].shape[1] for candidate in group)])
        self._columns = {
            candidate: np.arange(start, end) for candidate, start, end in zip(group, ends, ends[1:], strict=False)
        }

    def best(self, count: int, among: Sequence[Candidate] | None = None) -> list[Candidate]:
        """The candidates that contribute most to the outputs of a fit of all of them (`among`: of some), best first."""
        candidates = list(self._columns) if among is None else list(among)
        columns = np.concatenate([self._columns[candidate] for candidate in candidates])
        gram = self._gram[np.ix_(columns, columns)]
        gram.flat[:: len(gram) + 1] += _PENALTY
        factor = scipy.linalg.cho_factor(gram, lower=True, overwrite_a=True, check_finite=False)
        solution = scipy.linalg.cho_solve(factor, self._cross[columns], check_finite=False)
        contributions, start = [], 0
        for candidate in candidates:
            own = self._columns[candidate]
            weights = solution[start : start + len(own)]
            contributions.append(float(np.einsum("co,cd,do->", weights, self._gram[np.ix_(own, own)], weights)))
            start += len(own)
        order = np.argsort(-np.array(contributions), kind="stable")
        return [candidates[int(position)] for position in order[:count]]
