"""A sampler of one's own: simulated annealing over the parameters of a study.

    python examples/custom_sampler.py

A package offers its sampler to every specification by an entry point that names a `SamplerKind`:

    [project.entry-points."diffsift.samplers"]
    annealing = "my_package:ANNEALING"
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.trial import FrozenTrial, TrialState

import diffsift
from diffsift.demo import PIPELINE
from diffsift.search import SamplerSetup, register_sampler


class Annealing(BaseSampler):
    """Keeps most parameters of a good trial and draws the others at random; good means best, more often over time."""

    def __init__(self, setup: SamplerSetup) -> None:
        self._space = setup.space
        self._rng = np.random.default_rng([setup.seed, setup.finished])
        self._random = RandomSampler(seed=int(self._rng.integers(2**31)))

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not finished:
            return {}
        finished.sort(key=lambda entry: -entry.values[0])
        good = finished[int(self._rng.integers(1 + len(finished) // 10))]
        return {name: value for name, value in good.params.items() if self._rng.random() < 0.7}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._random.sample_independent(study, trial, param_name, param_distribution)


if __name__ == "__main__":
    register_sampler("annealing", Annealing)
    result = diffsift.select(
        {
            "model": {"id": str(PIPELINE)},
            "data": {"kind": "rendered-scenes", "train": 20, "validation": 20, "test": 10},
            "timesteps": [50],
            "study": {"name": "annealed", "trials": 40, "sampler": "annealing"},
            "tracking": {"mlflow": False},
        }
    )
    print(result.outcome.verdict)
