"""What proposes selections: our sampler and, one word away, Optuna's own."""

from __future__ import annotations

from collections.abc import Sequence

from optuna.samplers import BaseSampler, NSGAIISampler, RandomSampler, TPESampler

from diffsift.spaces import Selection

from ..space import SearchSpace
from ._sift import SiftSampler

__all__ = ["SiftSampler", "make_sampler"]


def make_sampler(
    kind: str, space: SearchSpace, *, seed: int, finished: int, warm_starts: Sequence[Selection] = ()
) -> BaseSampler:
    """The sampler for the trial after `finished` ones.

    Optuna's own samplers start their random stream anew when a study is resumed and would repeat their first proposals,
    so they are made for each trial, seeded by (seed, finished).
    """
    if kind == "sift":
        return SiftSampler(space, seed=seed, warm_starts=warm_starts)
    seed_here = (seed * 1_000_003 + finished) % 2**32
    if kind == "tpe":
        return TPESampler(seed=seed_here, multivariate=True, group=True)
    if kind == "nsga2":
        return NSGAIISampler(seed=seed_here)
    return RandomSampler(seed=seed_here)
