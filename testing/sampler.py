"""What every sampler must do."""

from __future__ import annotations

import optuna
from optuna.trial import FrozenTrial, TrialState

from diffsift.search import SamplerKind, SamplerSetup, SearchSpace
from diffsift.spaces import Candidate, LimitsSpecification, Selection

PLANTED = (Candidate("main", "activation2", 50), Candidate("main", "activation5", 50))
"""The best selection of the contract's problem, at any weights."""


class SamplerContract:
    """Tests of a sampler. Subclass it in a test module, under a name that pytest collects, and name the sampler.

    ::

        class TestAnnealing(SamplerContract):
            kind = SAMPLERS["annealing"]

    The problem has a pool of eight candidates, of which a selection holds one or two; two of them are planted. A
    selection scores 0.5 for each planted one, minus 0.1 for each other.

    Attributes:
        kind: the sampler under test.
        trials: in which the planted selection must be found.
        needs_history: whether a sampler that is made anew in the middle of a study must go on as if it had not been;
            leave it on unless proposals depend on more than seed and finished trials, which makes studies that are
            resumed irreproducible.
    """

    kind: SamplerKind
    trials: int = 150
    needs_history: bool = True

    def test_a_planted_selection_is_found(self) -> None:
        space = self._space()
        best = max(self._run(space, self.trials), key=score)
        assert set(best.candidates) == set(PLANTED)

    def test_limits_hold(self) -> None:
        space = self._space(channels=12)
        for selection in self._run(space, 30):
            assert space.allows(dict(selection.members))

    def test_the_seed_decides(self) -> None:
        first, again, other = (self._run(self._space(), 15, seed=seed) for seed in (1, 1, 2))
        assert first == again
        assert first != other

    def test_a_resumed_study_goes_on_as_if_it_had_not_stopped(self) -> None:
        if not self.needs_history:
            return
        space = self._space()
        through = self._run(space, 24)
        study = optuna.create_study(direction="maximize")
        self._run(space, 12, study=study)
        resumed = optuna.create_study(direction="maximize")
        resumed.add_trials(study.get_trials())
        assert self._run(space, 12, study=resumed) == through[12:]

    def test_trials_of_other_processes_may_be_running(self) -> None:
        space = self._space()
        study = optuna.create_study(direction="maximize")
        self._run(space, 12, study=study)
        study.add_trial(self._trial(space, Selection.of(PLANTED), TrialState.RUNNING))
        for selection in self._run(space, 5, study=study):
            assert space.allows(dict(selection.members))

    def _space(self, channels: int | None = None) -> SearchSpace:
        pool = [Candidate("main", f"activation{number}", 50) for number in range(8)]
        limits = LimitsSpecification(activations=2, channels=channels)
        return SearchSpace(pool, {entry: 4 + at for at, entry in enumerate(pool)}, limits).encoded(self.kind.encoding)

    def _run(
        self, space: SearchSpace, count: int, *, seed: int = 0, study: optuna.Study | None = None
    ) -> list[Selection]:
        """What the sampler proposes in some further trials of a study, as the search loop runs them."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = study or optuna.create_study(direction="maximize")
        finished = len(study.get_trials(states=(TrialState.COMPLETE,)))
        selections = []
        for number in range(finished, finished + count):
            if number == finished or not self.kind.keeps_state:
                study.sampler = self.kind.make(SamplerSetup(space, seed=seed, finished=number))
            trial = study.ask()
            selections.append(space.suggest(trial))
            study.tell(trial, score(selections[-1]))
        return selections

    @staticmethod
    def _trial(space: SearchSpace, selection: Selection, state: TrialState) -> FrozenTrial:
        parameters = space.parameters(selection)
        distributions = {name: space.distributions[name] for name in parameters}
        return optuna.trial.create_trial(state=state, params=parameters, distributions=distributions)


def score(selection: Selection) -> float:
    """The score of a selection in the contract's problem: at most 1, by `PLANTED`.

    Args:
        selection: any of the contract's candidates.

    Returns:
        0.5 for each planted candidate, less 0.1 for each other one.
    """
    planted = len(set(selection.candidates) & set(PLANTED))
    return 0.5 * planted - 0.1 * (len(selection.members) - planted)
