"""One process's part in a search: propose, claim, score, tell, trial by trial, beside others that do the same."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial

from diffsift.common.reporting import Reporter
from diffsift.spaces import Selection
from diffsift.tracking import Claim, Claims, Evaluation, TrialRecord
from diffsift.tracking.claims import Answer

from ._local_study import LocalStudy
from .samplers import SubsetGPSampler, make_sampler

if TYPE_CHECKING:
    from .study import Probe, SearchStudy

NOTE = "diffsift"
"""The one user attribute of a trial."""

_COLLIDED = 0.005
"""Seconds before another proposal, where another process was faster."""

_FULL = 0.03
"""Seconds between looks at what others have yet to finish."""

_SAY_WAITING = 60.0
_MANY = 20  # trials whose scores are read together


class Run:
    """What one process does in a study, between opening its claims and giving them back.

    Attributes:
        repeated: trials in a row that proposed what had been evaluated before.
        pause: seconds to wait after an `advance` that came to nothing.
    """

    def __init__(
        self,
        study: SearchStudy,
        probe: Probe,
        claims: Claims,
        trials: int,
        after_step: Callable[[str], None],
        has_peers: bool,
        reporter: Reporter,
    ) -> None:
        self._study, self._probe, self._claims, self._trials = study, probe, claims, trials
        self._after_step, self._has_peers, self._reporter = after_step, has_peers, reporter
        self._local = LocalStudy(study.space, study.directions)
        self._sampler: SubsetGPSampler | None = None
        self._numbers: set[int] = set()  # of the database's trials that the mirror holds
        self._others: list[Claim] = []
        self._collisions = 0
        self._full = False
        self._waiting_since: float | None = None
        self.repeated, self.pause = 0, 0.0
        self.look()

    @property
    def distinct(self) -> int:
        """Distinct selections that are finished, by all processes, as far as known here."""
        return len(self._local.scores)

    @property
    def best(self) -> float:
        """The highest score of all."""
        return self._local.best

    def advance(self) -> list[TrialRecord]:
        """Try to finish a trial; returns it and what others finished meanwhile, by number. Nothing: wait `pause`."""
        if self._full:
            return self._wait_for_others()
        trial = self._local.ask(self._make_sampler())
        selection = self._study.space.suggest(trial)
        stage = self._stage(trial)
        if selection in self._local.scores:
            # Recorded all the same: made anew with the same seed, a sampler would repeat it for ever.
            self.repeated += 1
            return self._told(self._finished(trial, selection, self._study.evaluation(selection), stage))
        asked = self._claims.ask(selection, self._trials)
        self._has_peers = asked.company or asked.evaluations != self.distinct
        if asked.answer is not Answer.OURS:
            self._full = asked.answer is Answer.FULL
            return self._collided(trial)
        found: list[TrialRecord] = []
        if asked.scored:  # nobody told it yet, or another process did a moment ago
            found = self.look()
            if selection in self._local.scores:
                self._claims.told(selection)
                return found + self._collided(trial)
        self.repeated = 0
        evaluation = self._study.evaluation(selection) if asked.scored else self._study.score(self._probe, selection)
        self._after_step("scored")
        written = self._finished(trial, selection, evaluation, stage)
        self._claims.told(selection)
        return found + self._told(written)

    def look(self) -> list[TrialRecord]:
        """Take up what other processes finished, and what they are about to evaluate."""
        new = [trial for trial in self._study.finished_trials() if trial.number not in self._numbers]
        evaluations: dict[Selection, Evaluation] = {}
        if len(new) > _MANY:
            evaluations = {entry.selection: entry for entry in self._study.evaluations()}
        found = []
        for trial in new:
            selection = noted(trial)
            self._numbers.add(trial.number)
            self._local.add(trial, selection)
            found.append(self._study.record(trial, evaluations.get(selection) or self._study.evaluation(selection)))
        self._others = self._claims.others()
        self._local.set_pending(claim.selection for claim in self._others)
        return found

    def _finished(self, trial: Trial, selection: Selection, evaluation: Evaluation, stage: str) -> TrialRecord:
        trial.set_user_attr(NOTE, _note(selection, stage))
        return self._written(self._local.tell(trial, selection, self._study.values(evaluation)), evaluation)

    def _written(self, trial: FrozenTrial, evaluation: Evaluation) -> TrialRecord:
        written = self._study.write(trial)
        self._numbers.add(written.number)
        return self._study.record(written, evaluation)

    def _told(self, record: TrialRecord) -> list[TrialRecord]:
        """The record behind what others told before it."""
        self._after_step("told")
        found = self.look() if self._has_peers else []
        return sorted([*found, record], key=lambda entry: entry.number)

    def _collided(self, trial: Trial) -> list[TrialRecord]:
        self._local.drop(trial)
        self._collisions += 1
        self.pause = _COLLIDED
        return self.look()

    def _wait_for_others(self) -> list[TrialRecord]:
        """All that was asked for is evaluated or being evaluated: see to it that all of that is told."""
        self._claims.settle()
        found = self.look()
        if self._study.evaluated() > self.distinct + len(self._others):
            return found + self._tell_orphans()
        if self.distinct < self._trials <= self.distinct + len(self._others):
            self.pause = _FULL
            self._say_waiting()
        else:
            self._full, self._waiting_since = False, None
        return found

    def _tell_orphans(self) -> list[TrialRecord]:
        """Finish the trials of scores whose process ended before it told them."""
        told = []
        for evaluation in self._study.evaluations():
            selection = evaluation.selection
            if selection in self._local.scores or self._claims.ask(selection, 0).answer is not Answer.OURS:
                continue
            told += self.look()
            if selection not in self._local.scores:
                trial = self._local.finished_trial(
                    selection, self._study.values(evaluation), {NOTE: _note(selection, "resumed")}
                )
                self._local.add(trial, selection)
                told.append(self._written(trial, evaluation))
                self._after_step("told")
            self._claims.told(selection)
        return told

    def _say_waiting(self) -> None:
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        elif now - self._waiting_since > _SAY_WAITING:
            self._waiting_since = float("inf")  # said once
            process = self._others[0].process
            elsewhere = (
                ""
                if process.is_here
                else (
                    f"; if that process or its host is gone for good, drop its claim with Ledger.break_lock"
                    f"({self._study.name!r})"
                )
            )
            self._reporter.warning(
                f"waiting for process {process.pid} on host {process.host}, which evaluates the last selections since "
                f"{self._others[0].since:%H:%M:%S} UTC{elsewhere}."
            )

    def _make_sampler(self) -> BaseSampler:
        if self._sampler is not None:
            return self._sampler
        specification = self._study.specification
        seed = specification.seed
        if self._study.seed_stream:
            seed = int(np.random.SeedSequence([seed, self._study.seed_stream]).generate_state(1)[0]) % 2**31
        sampler = make_sampler(
            specification.sampler,
            self._study.space,
            seed=seed,
            finished=self._local.finished + self._collisions,
            warm_starts=self._study.warm_starts,
            costs=specification.objectives[1:],
            similarity=self._study.similarity,
            skip=specification.skip,
        )
        if isinstance(sampler, SubsetGPSampler):
            self._sampler = sampler
        return sampler

    def _stage(self, trial: Trial) -> str:
        if self._sampler is None:
            return self._study.specification.sampler
        return self._sampler.stage_of.pop(trial.number)


def noted(trial: FrozenTrial) -> Selection:
    """The selection of a finished trial."""
    return Selection.from_json(trial.user_attrs[NOTE]["selection"])


def stage_of(trial: FrozenTrial) -> str:
    """What proposed a finished trial."""
    return str(trial.user_attrs[NOTE]["proposed_by"])


def _note(selection: Selection, stage: str) -> dict[str, object]:
    return {"selection": selection.to_json(), "proposed_by": stage}
