"""One process's part in a search: propose, claim, score and record, trial by trial, beside others that do the same."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
from jaxtyping import Float
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, Trial

from diffsift.common.reporting import NullReporter, Reporter
from diffsift.errors import StudyError
from diffsift.objectives import Score
from diffsift.spaces import Selection
from diffsift.tracking import Claim, ClaimStatus, Evaluation, Logger, TrialRecord

from ._local_study import LocalStudy
from .sampler_registry import SAMPLERS, SamplerSetup
from .trial_store import ATTRIBUTE, DATABASE_ERRORS, TrialStore, attribute, selection_of

_RETRY_PAUSE = 0.005
"""Seconds before another proposal, where another process was faster."""

_WAIT_PAUSE = 0.03
"""Seconds between looks at what other processes have yet to finish."""

_WAIT_NOTICE = 60.0
"""Seconds of waiting for other processes after which the user is told why."""

_READ_TOGETHER = 20  # new trials beyond which all scores are read at once
_MOST_REPEATED = 200  # trials in a row that repeat a selection, after which the search ends


class SelectionScorer(Protocol):
    """What scores selections, as every `diffsift.objectives.Probe` does."""

    def score(self, selection: Selection) -> Score:
        """The score of a selection on the validation folds; higher is better.

        Args:
            selection: of candidates of the pool.

        Returns:
            The score over all validation images, and that of each fold.
        """
        ...


class SearchLoop:
    """What one process does in a study: it evaluates selections until the study has as many as it asks for.

    In each trial the sampler proposes a selection, which is claimed in the ledger, scored by the probe, and recorded:
    the score in the ledger, then the whole trial in Optuna, then a copy in the loggers.

    Several processes may run a loop on the same study at the same time. No selection is evaluated twice, exactly as
    many are evaluated as asked for, and each process learns what the others finished. A process that is killed leaves
    at most a claim without a holder or a score without a trial: the others, or the next run, remove the one and
    complete the other.

    A process that is alone proposes what the seed and the finished trials determine, and nothing else.

    Args:
        store: the study's trials.
        probe: scores a selection.
        warm_starts: selections to try first, by the sampler ``sift``.
        similarity: of every two candidates of the pool, for the sampler ``sift``; see `SubsetGPSampler`.
        seed_stream: number of the random stream that proposals come from: 0 for the leader of a study, another one for
            each process that joins it.
        reporter: gets finished trials, progress and warnings; default: none.
    """

    def __init__(
        self,
        store: TrialStore,
        probe: SelectionScorer,
        *,
        warm_starts: Sequence[Selection] = (),
        similarity: Float[np.ndarray, "pool pool"] | None = None,
        seed_stream: int = 0,
        reporter: Reporter | None = None,
    ) -> None:
        self._store, self._probe, self._reporter = store, probe, reporter or NullReporter()
        self._warm_starts, self._similarity = tuple(warm_starts), similarity
        self._seed = _seed(store.specification.seed, seed_stream)
        self._claims = store.claims()
        self._local = LocalStudy(store.space, store.directions)
        self._sampler: BaseSampler | None = None
        self._numbers: set[int] = set()  # of the database's trials that the local study holds
        self._others: list[Claim] = []
        self._unrecorded: set[Selection] = set()  # scored by others, who have yet to write the trial
        self._limit = self._repeated = self._rejected = 0
        self._has_peers = self._is_full = False
        self._pause = 0.0
        self._waiting_since: float | None = None

    def run(
        self,
        trials: int,
        *,
        timeout: float | None = None,
        logger: Logger | None = None,
        has_peers: bool = False,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Evaluate selections until `trials` distinct ones are finished or `timeout` seconds have passed.

        Args:
            trials: distinct selections that the study is to have in all, 1 or more.
            timeout: seconds after which no new trial starts; default: no limit.
            logger: gets the trials of all processes; give it to one of them.
            has_peers: whether other processes are expected; they are noticed anyway, but later.
            stop: called before each trial; True ends the loop.

        Raises:
            KeyboardInterrupt: the running trial is lost, or its score kept for the next run; nothing else is lost.
            StudyError: the study database cannot be written (a full disk, say); resume when it can.
        """
        self._limit, self._has_peers = trials, has_peers
        ends = float("inf") if timeout is None else time.monotonic() + timeout
        try:
            with _frozen_garbage(), self._claims:
                self._take_up_finished()
                done = min(self._distinct, trials)
                with self._reporter.progress(trials, "search", "trial", initial=done) as bar:
                    while self._distinct < trials and time.monotonic() < ends and not stop():
                        records = self._advance()
                        self._hand_over(records, logger)
                        self._show_progress(bar)
                        if not records:
                            time.sleep(self._pause)
                        if self._repeated >= _MOST_REPEATED:
                            self._report_exhausted()
                            break
        except DATABASE_ERRORS as error:
            raise StudyError(f"the study database cannot be written: {error.__cause__ or error}") from error

    def after_step(self, step: str) -> None:
        """Called as a trial passes a point; does nothing. Tests and benchmarks replace it.

        Args:
            step: "scored": its score is in the ledger; "recorded": its trial is in the database; "logged": the logger
                has it.
        """

    @property
    def _distinct(self) -> int:
        """Distinct selections that all processes have finished, as far as this one knows."""
        return len(self._local.scores)

    def _advance(self) -> list[TrialRecord]:
        """Try to finish a trial; returns it and what others finished meanwhile, by number. Nothing: pause."""
        if self._is_full:
            return self._wait_for_others()
        trial = self._local.ask(self._sampler_for_trial())
        selection = self._store.space.suggest(trial)
        trial.set_user_attr(ATTRIBUTE, attribute(selection, self._proposer(trial)))
        if selection in self._local.scores:
            # Recorded all the same: made anew with the same seed, a sampler would repeat it for ever.
            self._repeated += 1
            return self._finish(trial, self._store.evaluation(selection))
        result = self._claims.claim(selection, self._limit)
        self._has_peers = result.has_peers or result.scored != self._distinct
        if result.status is not ClaimStatus.GRANTED:
            self._is_full = result.status is ClaimStatus.FULL
            if result.is_scored:
                self._unrecorded.add(selection)
            return self._reject(trial)
        new: list[TrialRecord] = []
        if result.is_scored:  # its trial is missing, or another process wrote it a moment ago
            new = self._take_up_finished()
            if selection in self._local.scores:
                return new + self._reject(trial)
        self._repeated = 0
        evaluation = self._store.evaluation(selection) if result.is_scored else self._score(selection)
        if not result.is_scored and not self._claims.complete(evaluation):
            return self._reject(trial)
        self.after_step("scored")
        return new + self._finish(trial, evaluation)

    def _score(self, selection: Selection) -> Evaluation:
        started = time.perf_counter()
        score = self._probe.score(selection)
        seconds = time.perf_counter() - started
        channels = self._store.space.channels(selection)
        return Evaluation(selection, float(score.value), tuple(score.folds), channels, seconds)

    def _finish(self, trial: Trial, evaluation: Evaluation) -> list[TrialRecord]:
        """Record a trial; returns it behind what others recorded before it."""
        finished = self._local.tell(trial, evaluation.selection, self._store.values(evaluation))
        record = self._write(finished, evaluation)
        new = self._take_up_finished() if self._has_peers else []
        return sorted([*new, record], key=lambda entry: entry.number)

    def _write(self, trial: FrozenTrial, evaluation: Evaluation) -> TrialRecord:
        written = self._store.write(trial)
        self._numbers.add(written.number)
        self.after_step("recorded")
        return self._store.record(written, evaluation)

    def _reject(self, trial: Trial) -> list[TrialRecord]:
        """Give up a trial whose selection is another process's."""
        self._local.drop(trial)
        self._rejected += 1
        self._pause = _RETRY_PAUSE
        return self._take_up_finished()

    def _take_up_finished(self) -> list[TrialRecord]:
        """Take up what other processes finished, and what they evaluate now."""
        new = [trial for trial in self._store.finished_trials() if trial.number not in self._numbers]
        evaluations: dict[Selection, Evaluation] = {}
        if len(new) > _READ_TOGETHER:
            evaluations = {evaluation.selection: evaluation for evaluation in self._store.evaluations()}
        records = []
        for trial in new:
            selection = selection_of(trial)
            self._numbers.add(trial.number)
            self._local.add(trial, selection)
            evaluation = evaluations.get(selection) or self._store.evaluation(selection)
            records.append(self._store.record(trial, evaluation))
        self._others = self._claims.others()
        self._unrecorded -= self._local.scores.keys()
        self._local.set_pending(self._unrecorded.union(claim.selection for claim in self._others))
        return records

    def _wait_for_others(self) -> list[TrialRecord]:
        """As many selections as asked for are scored or being evaluated: see to it that all get their trial."""
        records = self._take_up_finished()
        holder = self._others[0] if self._others else None
        evaluated = self._store.evaluated()
        if evaluated > self._distinct:
            completed, taken = self._complete_orphans()
            records, holder = records + completed, holder or taken
        if self._distinct < self._limit <= evaluated + len(self._others):
            self._pause = _WAIT_PAUSE
            self._notify_waiting(holder)
        else:
            self._is_full, self._waiting_since = False, None
        return records

    def _complete_orphans(self) -> tuple[list[TrialRecord], Claim | None]:
        """Write the trials of scores whose process ended before it did; returns them, and who holds another score."""
        records, holder = [], None
        for evaluation in self._store.evaluations():
            selection = evaluation.selection
            if selection in self._local.scores:
                continue
            result = self._claims.claim(selection, 0)
            if result.status is not ClaimStatus.GRANTED:
                holder = result.holder or holder
                continue
            records += self._take_up_finished()
            if selection not in self._local.scores:
                note = {ATTRIBUTE: attribute(selection, "resumed")}
                trial = self._local.finished_trial(selection, self._store.values(evaluation), note)
                self._local.add(trial, selection)
                records.append(self._write(trial, evaluation))
        return records, holder

    def _notify_waiting(self, holder: Claim | None) -> None:
        """Say once, after a while, which process is waited for."""
        now = time.monotonic()
        if self._waiting_since is None:
            self._waiting_since = now
        elif holder is not None and now - self._waiting_since > _WAIT_NOTICE:
            self._waiting_since = float("inf")
            process = holder.process
            free = f"'diffsift unlock {self._store.name}' drops its claim"
            elsewhere = "" if process.is_here else f"; if that process or its host is gone for good, {free}"
            self._reporter.warning(
                f"waiting for process {process.pid} on host {process.host}, which evaluates the last selections since "
                f"{holder.since:%H:%M:%S} UTC{elsewhere}."
            )

    def _sampler_for_trial(self) -> BaseSampler:
        if self._sampler is not None:
            return self._sampler
        specification = self._store.specification
        setup = SamplerSetup(
            self._store.space,
            seed=self._seed,
            finished=self._local.finished + self._rejected,
            warm_starts=self._warm_starts,
            costs=specification.objectives[1:],
            similarity=self._similarity,
            skip=specification.skip,
        )
        kind = SAMPLERS[specification.sampler]
        sampler = kind.make(setup)
        if kind.keeps_state:
            self._sampler = sampler
        return sampler

    def _proposer(self, trial: Trial) -> str:
        """The stage that a sampler names, or the sampler."""
        stages: dict[int, str] = getattr(self._sampler, "stage_of", {})
        return stages.pop(trial.number, self._store.specification.sampler)

    def _hand_over(self, records: Sequence[TrialRecord], logger: Logger | None) -> None:
        for record in records:
            self._reporter.trial(record)
            if logger is not None:
                logger.add(record)
                self.after_step("logged")

    def _show_progress(self, bar: Any) -> None:
        advanced = min(self._distinct, bar.total) - bar.n
        if advanced > 0:
            bar.update(advanced)
            bar.set_postfix(best=f"{self._local.best:.4f}", refresh=False)

    def _report_exhausted(self) -> None:
        self._reporter.warning(
            f"the search ends after {self._distinct} distinct selections: the {self._store.specification.sampler} "
            f"sampler proposed no new one {self._repeated} times in a row."
        )


def _seed(seed: int, stream: int) -> int:
    """The seed of a process's random stream."""
    return int(np.random.SeedSequence([seed, stream]).generate_state(1)[0]) % 2**31 if stream else seed


@contextlib.contextmanager
def _frozen_garbage() -> Iterator[None]:
    """Spare Python's collector what exists already: much of a trial's time went into looking through it again.

    A program that froze objects itself is left alone: it would lose that by the thawing.
    """
    if gc.get_freeze_count():
        yield
        return
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
