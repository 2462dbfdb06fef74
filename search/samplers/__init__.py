"""The samplers: ours and, one word away, Optuna's own."""

from __future__ import annotations

from optuna.samplers import BaseSampler, CmaEsSampler, NSGAIISampler, RandomSampler, TPESampler

from ..sampler_registry import SamplerKind, SamplerSetup
from ._history import SubsetGPOptions
from ._subset_gp import SubsetGPSampler

__all__ = ["CMAES", "NSGA2", "RANDOM", "SIFT", "TPE", "SubsetGPOptions", "SubsetGPSampler"]


def _seed(setup: SamplerSetup) -> int:
    """A seed for the next trial: Optuna's samplers start their random stream anew when they are made."""
    return (setup.seed * 1_000_003 + setup.finished) % 2**32


def _sift(setup: SamplerSetup) -> BaseSampler:
    return SubsetGPSampler(
        setup.space,
        seed=setup.seed,
        warm_starts=setup.warm_starts,
        costs=setup.costs,
        similarity=setup.similarity,
        options=SubsetGPOptions(skip=tuple(setup.skip)),
    )


def _tpe(setup: SamplerSetup) -> BaseSampler:
    return TPESampler(seed=_seed(setup), multivariate=True, group=True)


def _nsga2(setup: SamplerSetup) -> BaseSampler:
    return NSGAIISampler(seed=_seed(setup))


def _cmaes(setup: SamplerSetup) -> BaseSampler:
    # Separable: a full covariance of hundreds of candidates would be stored with every trial.
    return CmaEsSampler(seed=_seed(setup), use_separable_cma=True, warn_independent_sampling=False)


def _random(setup: SamplerSetup) -> BaseSampler:
    return RandomSampler(seed=_seed(setup))


SIFT = SamplerKind(_sift, keeps_state=True)
TPE = SamplerKind(_tpe)
RANDOM = SamplerKind(_random)
# Crossover and CMA-ES need parameters that mean the same in every trial.
NSGA2 = SamplerKind(_nsga2, encoding="keys")
CMAES = SamplerKind(_cmaes, encoding="keys")
