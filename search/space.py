"""How a selection is written as Optuna parameters.

In *slots*: ``count`` members, each a ``slot`` (position in the frozen pool), and only if ``weighted`` a ``weight`` each.
Slots beyond the count and weights that are all equal are not asked for.

In *keys*: a ``key`` in [0, 1] for every candidate of the pool; the ``count`` candidates of largest key are the members, at
equal weights (random keys: Bean, 1994). Every parameter means the same in every trial.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial

from diffsift.errors import SpecificationError
from diffsift.spaces import WEIGHT_STEP, Candidate, LimitsSpecification, Selection

Encoding = Literal["slots", "keys"]


class SearchSpace:
    """The pool and the limits of a study, and the way between selections and Optuna parameters.

    Args:
        pool: candidates in their frozen order.
        channels: fused channels of each candidate.
        limits: most activations, channels and passes of a selection.

    Raises:
        SpecificationError: a limit cannot be met by this pool.
    """

    def __init__(
        self, pool: Sequence[Candidate], channels: Mapping[Candidate, int], limits: LimitsSpecification
    ) -> None:
        if limits.activations > len(pool):
            raise SpecificationError(
                f"limits.activations must be at most the number of candidates in the pool ({len(pool)}), "
                f"but got {limits.activations}."
            )
        self.channels_of = dict(channels)
        self.limits = limits
        self.pool = tuple(pool)
        self._index = {candidate: index for index, candidate in enumerate(self.pool)}
        narrowest = min(self.channels_of[candidate] for candidate in self.pool)
        if limits.channels is not None and narrowest > limits.channels:
            raise SpecificationError(
                f"limits.channels must leave room for one activation (the narrowest has {narrowest} channels), "
                f"but got {limits.channels}."
            )

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Of all parameters, at the largest count."""
        found: dict[str, BaseDistribution] = {
            "count": IntDistribution(1, self.limits.activations),
            "weighted": CategoricalDistribution((False, True)),
        }
        for slot in range(self.limits.activations):
            found[f"slot{slot}"] = IntDistribution(0, len(self.pool) - 1)
            found[f"weight{slot}"] = FloatDistribution(WEIGHT_STEP, 1.0, step=WEIGHT_STEP)
        return found

    def suggest(self, trial: Trial) -> Selection:
        """The selection that a trial's sampler proposes, repaired to meet the limits."""
        limit = len(self.pool) - 1
        count = trial.suggest_int("count", 1, self.limits.activations)
        weighted = count > 1 and trial.suggest_categorical("weighted", (False, True))
        members: dict[Candidate, float] = {}
        for slot in range(count):
            candidate = self.pool[trial.suggest_int(f"slot{slot}", 0, limit)]
            weight = trial.suggest_float(f"weight{slot}", WEIGHT_STEP, 1.0, step=WEIGHT_STEP) if weighted else 1.0
            members.setdefault(candidate, weight)
        return self.repaired(members)

    def read(self, trial: FrozenTrial) -> Selection:
        """The selection of a trial that has all its parameters."""
        members: dict[Candidate, float] = {}
        for slot in range(int(trial.params["count"])):
            weight = float(trial.params.get(f"weight{slot}", 1.0))
            members.setdefault(self.pool[int(trial.params[f"slot{slot}"])], weight)
        return self.repaired(members)

    def is_complete(self, parameters: Mapping[str, Any]) -> bool:
        """Whether these parameters of a running trial say all that `read` needs."""
        count = int(parameters.get("count", 0))
        named = ["slot"] + (["weight"] if parameters.get("weighted") else [])
        return count > 0 and all(f"{name}{slot}" in parameters for name in named for slot in range(count))

    def parameters(self, selection: Selection) -> dict[str, Any]:
        """A selection as parameters: the inverse of `read`."""
        weighted = any(weight != 1.0 for _, weight in selection.members)
        found: dict[str, Any] = {"count": len(selection.members), "weighted": weighted}
        for slot, (candidate, weight) in enumerate(selection.members):
            found[f"slot{slot}"], found[f"weight{slot}"] = self._index[candidate], weight
        return found

    def channels(self, selection: Selection) -> int:
        """Channels of the fused feature."""
        return sum(self.channels_of[candidate] for candidate in selection.candidates)

    def allows(self, members: Mapping[Candidate, float]) -> bool:
        passes = len({(candidate.backbone, candidate.timestep) for candidate in members})
        within = (
            self.limits.channels is None or sum(map(self.channels_of.__getitem__, members)) <= self.limits.channels
        ) and (self.limits.passes is None or passes <= self.limits.passes)
        return within and 1 <= len(members) <= self.limits.activations and all(key in self._index for key in members)

    def repaired(self, members: Mapping[Candidate, float]) -> Selection:
        """The selection without its last members, or at worst the narrowest candidate, until the limits are met."""
        kept: dict[Candidate, float] = {}
        for candidate, weight in members.items():
            if self.allows({**kept, candidate: weight}):
                kept[candidate] = weight
        return Selection.of(kept or {min(self.pool, key=self.channels_of.__getitem__): 1.0})
