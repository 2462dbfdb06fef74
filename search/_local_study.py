"""A study in memory, in which samplers work, beside the one in the database."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import InMemoryStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial

from diffsift.spaces import Selection

from .space import SearchSpace


class LocalStudy:
    """The finished trials of a study; what other processes evaluate appears as running trials.

    Optuna's SQL storage takes milliseconds for each parameter of a trial, and its running trials outlive the process
    that runs them. So a trial is asked for and told in this study, and is written to the database whole, in one
    transaction, when it is finished. Trial numbers here are those of this process's proposals, not the database's.

    Args:
        space: of the study.
        directions: of its objectives; the first is the score.

    Attributes:
        scores: of all finished selections.
        finished: trials; more than selections where a sampler repeats itself.
        best: the highest score.
    """

    def __init__(self, space: SearchSpace, directions: Sequence[StudyDirection]) -> None:
        self._space = space
        self._study = optuna.create_study(storage=InMemoryStorage(), directions=list(directions))
        self._pending: dict[Selection, int] = {}
        self.scores: dict[Selection, float] = {}
        self.finished = 0
        self.best = float("-inf")

    def ask(self, sampler: BaseSampler) -> Trial:
        """A new trial, whose parameters `sampler` proposes."""
        self._study.sampler = sampler
        return self._study.ask()

    def tell(self, trial: Trial, selection: Selection, values: Sequence[float]) -> FrozenTrial:
        """Finish a trial."""
        self._count(selection, values[0])
        return self._study.tell(trial, values)

    def drop(self, trial: Trial) -> None:
        """Give up a trial: samplers do not count it."""
        self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)

    def add(self, trial: FrozenTrial, selection: Selection) -> None:
        """Take up a finished trial of the database."""
        self._study.add_trial(trial)
        self._count(selection, float(trial.values[0]))

    def set_pending(self, selections: Iterable[Selection]) -> None:
        """Set what other processes evaluate now: samplers see it as running trials."""
        wanted = set(selections)
        for selection in self._pending.keys() - wanted:
            self._study.tell(self._pending.pop(selection), state=TrialState.FAIL)
        for selection in wanted - self._pending.keys():
            self._study.add_trial(self._template(selection, TrialState.RUNNING))
            self._pending[selection] = len(self._study.get_trials(deepcopy=False)) - 1

    def finished_trial(self, selection: Selection, values: Sequence[float], attributes: dict[str, Any]) -> FrozenTrial:
        """A finished trial of a selection that no sampler of this process proposed, to be added."""
        return self._template(selection, TrialState.COMPLETE, values, attributes)

    def _template(
        self,
        selection: Selection,
        state: TrialState,
        values: Sequence[float] | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> FrozenTrial:
        parameters = self._space.parameters(selection)
        known = self._space.distributions
        return create_trial(
            state=state,
            values=values,
            params=parameters,
            distributions={name: known[name] for name in parameters},
            user_attrs=attributes,
        )

    def _count(self, selection: Selection, score: float) -> None:
        self.scores[selection] = score
        self.finished += 1
        self.best = max(self.best, score)
