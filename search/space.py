"""How a selection is written as Optuna parameters.

In *slots*: ``count`` members, each a ``slot`` (position in the frozen pool), and only if ``weighted`` a ``weight``
each. Slots beyond the count and weights that are all equal are not asked for.

In *keys*: a ``key`` in [0, 1] for every candidate of the pool; the ``count`` candidates of largest key are the members,
at equal weights (random keys: Bean, 1994). Every parameter means the same in every trial.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from copy import copy
from typing import Any, Self, cast

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, Trial

from diffsift.errors import SpecificationError
from diffsift.spaces import (
    WEIGHT_STEP,
    Candidate,
    Cost,
    LimitsSpecification,
    Selection,
    SelectionCosts,
    operations_per_image,
    passes_per_image,
)

from .sampler_registry import Encoding

_ROUNDING = 1e-9  # sums of shares


class SearchSpace:
    """The pool and the limits of a study, and the way between selections and Optuna parameters.

    Args:
        pool: candidates in their frozen order.
        channels: fused channels of each candidate.
        limits: most activations, channels, passes and operations of a selection.
        operations: share of a whole pass that each candidate needs, where it is known.
        noise_draws: by backbone, the noise draws that its features are averaged over, each of them a pass; default: 1.
        variants: by the name of a backbone that runs another one in another way, the name of that other one.

    Attributes:
        pool: the candidates.
        limits: of a selection.
        encoding: how selections are written as parameters; see `encoded`.

    Raises:
        SpecificationError: a limit cannot be met by this pool, or operations are limited but not known.
    """

    def __init__(
        self,
        pool: Sequence[Candidate],
        channels: Mapping[Candidate, int],
        limits: LimitsSpecification,
        operations: Mapping[Candidate, float] | None = None,
        *,
        noise_draws: Mapping[str, int] | None = None,
        variants: Mapping[str, str] | None = None,
    ) -> None:
        if limits.activations > len(pool):
            raise SpecificationError(
                f"limits.activations must be at most the number of candidates in the pool ({len(pool)}), "
                f"but got {limits.activations}."
            )
        self.channels_of, self.operations_of = dict(channels), dict(operations or {})
        self.noise_draws, self.variants = dict(noise_draws or {}), dict(variants or {})
        self.costs = SelectionCosts(self.channels_of, self.operations_of, self.noise_draws)
        self.limits = limits
        self.encoding: Encoding = "slots"
        self.pool = tuple(pool)
        self._index = {candidate: index for index, candidate in enumerate(self.pool)}
        if limits.operations is not None:
            require_operations("limits.operations", {str(entry): self.operations_of.get(entry) for entry in self.pool})
        alone = [candidate for candidate in self.pool if self.allows({candidate: 1.0})]
        if not alone:
            raise SpecificationError(self._nothing_fits())
        self._narrowest = min(alone, key=self.channels_of.__getitem__)

    def encoded(self, encoding: Encoding) -> Self:
        """The same space with selections written in another way.

        Args:
            encoding: "slots", as new spaces have it, or "keys"; see the top of the module.

        Returns:
            A copy; this space stays as it is.
        """
        other = copy(self)
        other.encoding = encoding
        return other

    def _nothing_fits(self) -> str:
        """Which limits leave no room for a single activation."""
        limits, said = self.limits, []
        if limits.channels is not None:
            narrowest = min(self.channels_of[candidate] for candidate in self.pool)
            said.append(f"limits.channels {limits.channels} (the narrowest has {narrowest} channels)")
        fewest = min(self.noise_draws.get(candidate.backbone, 1) for candidate in self.pool)
        if limits.passes is not None and limits.passes < fewest:
            said.append(f"limits.passes {limits.passes} (noise draws make it at least {fewest})")
        if limits.operations is not None:
            first = min(self.cost("operations", [candidate]) for candidate in self.pool)
            said.append(f"limits.operations {limits.operations:g} (the first is reached after {first:.3f} of a pass)")
        return f"limits must leave room for one activation, but none is within {' and '.join(said)}."

    @property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Of all parameters, at the largest count."""
        found: dict[str, BaseDistribution] = {"count": IntDistribution(1, self.limits.activations)}
        if self.encoding == "keys":
            return found | {f"key{position}": FloatDistribution(0.0, 1.0) for position in range(len(self.pool))}
        found["weighted"] = CategoricalDistribution((False, True))
        for slot in range(self.limits.activations):
            found[f"slot{slot}"] = IntDistribution(0, len(self.pool) - 1)
            found[f"weight{slot}"] = FloatDistribution(WEIGHT_STEP, 1.0, step=WEIGHT_STEP)
        return found

    def suggest(self, trial: Trial) -> Selection:
        """The selection that a trial's sampler proposes, repaired to meet the limits.

        Args:
            trial: a running trial of Optuna; all parameters of the selection are asked of its sampler.

        Returns:
            A selection within all limits.
        """
        count = trial.suggest_int("count", 1, self.limits.activations)
        if self.encoding == "keys":
            keys = [trial.suggest_float(f"key{position}", 0.0, 1.0) for position in range(len(self.pool))]
            return self._highest(keys, count)
        weighted = count > 1 and trial.suggest_categorical("weighted", (False, True))
        members: dict[Candidate, float] = {}
        for slot in range(count):
            candidate = self.pool[trial.suggest_int(f"slot{slot}", 0, len(self.pool) - 1)]
            weight = trial.suggest_float(f"weight{slot}", WEIGHT_STEP, 1.0, step=WEIGHT_STEP) if weighted else 1.0
            members.setdefault(candidate, weight)
        return self.repaired(members)

    def read(self, trial: FrozenTrial) -> Selection:
        """The selection of a trial.

        Args:
            trial: has all parameters of a selection; see `is_complete`.

        Returns:
            The same selection that `suggest` gave for these parameters.
        """
        count = int(trial.params["count"])
        if self.encoding == "keys":
            return self._highest([float(trial.params[f"key{position}"]) for position in range(len(self.pool))], count)
        members: dict[Candidate, float] = {}
        for slot in range(count):
            weight = float(trial.params.get(f"weight{slot}", 1.0))
            members.setdefault(self.pool[int(trial.params[f"slot{slot}"])], weight)
        return self.repaired(members)

    def _highest(self, keys: Sequence[float], count: int) -> Selection:
        """The `count` candidates of largest key that the limits allow, one after another."""
        kept: dict[Candidate, float] = {}
        for position in sorted(range(len(keys)), key=lambda position: -keys[position]):
            if len(kept) == count:
                break
            if self.allows({**kept, self.pool[position]: 1.0}):
                kept[self.pool[position]] = 1.0
        return Selection.of(kept)

    def is_complete(self, parameters: Mapping[str, Any]) -> bool:
        """Whether these parameters of a trial are all that `read` needs.

        Args:
            parameters: by name.

        Returns:
            False for a trial that ended before all its parameters were suggested, or that is written in the other
            encoding.
        """
        if "count" not in parameters:
            return False
        if self.encoding == "keys":
            return all(f"key{position}" in parameters for position in range(len(self.pool)))
        named = ["slot"] + (["weight"] if parameters.get("weighted") else [])
        return all(f"{name}{slot}" in parameters for name in named for slot in range(int(parameters["count"])))

    def parameters(self, selection: Selection) -> dict[str, Any]:
        """A selection as parameters: the inverse of `read`; in keys, weights are lost.

        Args:
            selection: of candidates of the pool.

        Returns:
            Values by name, as Optuna stores them, for `Study.enqueue_trial` and the like.
        """
        found: dict[str, Any] = {"count": len(selection.members)}
        if self.encoding == "keys":
            members = {self._index[candidate] for candidate in selection.candidates}
            return found | {f"key{position}": float(position in members) for position in range(len(self.pool))}
        found["weighted"] = any(weight != 1.0 for _, weight in selection.members)
        for slot, (candidate, weight) in enumerate(selection.members):
            found[f"slot{slot}"], found[f"weight{slot}"] = self._index[candidate], weight
        return found

    def channels(self, selection: Selection) -> int:
        """Channels of the fused feature.

        Args:
            selection: candidates of the pool.

        Returns:
            The sum over its candidates, each after its projection.
        """
        return sum(self.channels_of[candidate] for candidate in selection.candidates)

    def passes(self, selection: Selection) -> int:
        """How often a model runs per image.

        Args:
            selection: candidates of the pool.

        Returns:
            Passes per image: one for each pair of backbone and timestep, and for each noise draw.
        """
        return passes_per_image(selection.candidates, self.noise_draws)

    def operations(self, selection: Selection) -> float | None:
        """Operations per image as a share of a whole pass's; None where a candidate's are not known.

        Args:
            selection: candidates of the pool.

        Returns:
            The number of whole passes that take as many operations: below 1 where passes can stop early.
        """
        return operations_per_image(selection.candidates, self.operations_of, self.noise_draws)

    def cost(self, name: str, members: Iterable[Candidate]) -> float:
        """What a selection costs per image.

        Args:
            name: "channels", "passes" or "operations".
            members: its candidates.

        Returns:
            Channels of the fused feature, passes of backbones, or operations as a share of a whole pass's; infinite
            where operations are not known.
        """
        return self.costs.of(cast("Cost", name), members)

    def allows(self, members: Mapping[Candidate, float]) -> bool:
        """Whether a selection is within all limits.

        Args:
            members: its candidates; weights do not matter.

        Returns:
            Whether it has candidates of the pool only, and no more of them, of channels, passes and operations than the
            limits say.
        """
        limits = self.limits
        if not 1 <= len(members) <= limits.activations or not all(key in self._index for key in members):
            return False
        if limits.channels is not None and sum(map(self.channels_of.__getitem__, members)) > limits.channels:
            return False
        if limits.passes is not None and passes_per_image(members, self.noise_draws) > limits.passes:
            return False
        if limits.operations is None:
            return True
        operations = operations_per_image(members, self.operations_of, self.noise_draws)
        return operations is not None and operations <= limits.operations + _ROUNDING

    def repaired(self, members: Mapping[Candidate, float]) -> Selection:
        """The largest selection within the limits that keeps the first members.

        Args:
            members: weights by candidate. Each is kept if the limits allow it beside those kept before it; if none is,
                the selection is the candidate with the fewest channels.

        Returns:
            A selection within the limits, in canonical form: the largest weight is 1.
        """
        kept: dict[Candidate, float] = {}
        for candidate, weight in members.items():
            if self.allows({**kept, candidate: weight}):
                kept[candidate] = weight
        return Selection.of(kept or {self._narrowest: 1.0})


def require_operations(field: str, shares: Mapping[str, float | None]) -> None:
    """Check that the operations that a field of the specification needs are known.

    Args:
        field: that needs them, by its dotted path.
        shares: operations of each candidate by its name; None: not known.

    Raises:
        SpecificationError: some are not known.
    """
    unknown = [name for name, share in shares.items() if share is None]
    if unknown:
        raise SpecificationError(
            f"{field} must be left out for this model, because its operations cannot be counted: {unknown[0]} is one "
            f"of {len(unknown)} without a count."
        )
