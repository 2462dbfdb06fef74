"""What proposes selections: our sampler and, one word away, Optuna's own."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from jaxtyping import Float
from numpy import ndarray
from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler

from diffsift.spaces import Selection

from ..space import Encoding, SearchSpace
from ._subset_gp import SubsetGPSampler

__all__ = ["ENCODINGS", "SubsetGPSampler", "make_sampler"]

ENCODINGS: dict[str, Encoding] = {
    "sift": "slots",
    "tpe": "slots",
    "random": "slots",
    "nsga2": "keys",
    "cmaes": "keys",
}
"""How each sampler writes a selection: crossover and CMA-ES need parameters that mean the same in every trial."""


def make_sampler(
    kind: str,
    space: SearchSpace,
    *,
    seed: int,
    finished: int,
    warm_starts: Sequence[Selection] = (),
    costs: Sequence[str] = (),
    similarity: Float[ndarray, "pool pool"] | None = None,
    skip: Collection[str] = (),
) -> BaseSampler:
    """The sampler for the trial after `finished` ones.

    Optuna's own samplers start their random stream anew when a study is resumed and would repeat their first proposals,
    so they are made for each trial, seeded by (seed, finished).
    """
    if kind == "sift":
        return SubsetGPSampler(space, seed=seed, warm_starts=warm_starts, costs=costs, similarity=similarity, skip=skip)
    seed_here = (seed * 1_000_003 + finished) % 2**32
    if kind == "tpe":
        return TPESampler(seed=seed_here, multivariate=True, group=True)
    if kind == "nsga2":
        return NSGAIISampler(seed=seed_here)
    if kind == "cmaes":  # separable: a full covariance of hundreds of candidates would be stored with every trial
        return CmaEsSampler(seed=seed_here, use_separable_cma=True, warn_independent_sampling=False)
    return RandomSampler(seed=seed_here)
