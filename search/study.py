"""The search itself: an Optuna study whose trials are scored on a bank."""

from __future__ import annotations

import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from tqdm import tqdm

from diffsift.errors import StudyError
from diffsift.objectives import RidgeProbe
from diffsift.spaces import Selection
from diffsift.tracking import Evaluation, Ledger, MlflowLog, TrialRecord, tune_sqlite

from .samplers import SiftSampler, make_sampler
from .space import SearchSpace
from .specification import StudySpecification

_NOTE = "diffsift"  # the one user attribute of a trial: each costs a commit
_DUPLICATES_IN_A_ROW = 200


class Probe(Protocol):
    """What scores a selection; see `RidgeProbe`."""

    def score(self, selection: Selection) -> Any: ...


class SearchStudy:
    """An Optuna study with what diffsift adds: identical selections are scored once, and no trial is left running.

    Every finished trial goes, in this order, to the ledger (its score), to Optuna (the trial) and to MLflow (a copy).
    Whatever moment a process is killed at, resuming scores nothing twice and completes what is missing.

    Args:
        url: SQLAlchemy URL of the study database.
        specification: of the study.
        space: pool and limits.
        ledger: in the same database.
        warm_starts: selections to try first.
    """

    def __init__(
        self,
        url: str,
        specification: StudySpecification,
        space: SearchSpace,
        ledger: Ledger,
        *,
        warm_starts: Sequence[Selection] = (),
    ) -> None:
        self._specification, self.space, self._ledger = specification, space, ledger
        self._warm_starts = list(warm_starts)
        self._storage = open_storage(url)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=specification.name,
            directions=["maximize" if name == "score" else "minimize" for name in specification.objectives],
            load_if_exists=True,
        )
        if "uid" not in self._study.user_attrs:
            self._study.set_user_attr("uid", uuid.uuid4().hex[:12])
        self._uid = str(self._study.user_attrs["uid"])
        self._sampler: SiftSampler | None = None

    def reclaim(self) -> int:
        """Fail the trials that a dead process left running; only the holder of the study's lock may call this."""
        left = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in left:
            self._study.tell(trial.number, state=TrialState.FAIL)
        return len(left)

    def records(self) -> list[TrialRecord]:
        """All finished trials in order, as Optuna and the ledger hold them."""
        trials = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        known = {entry.selection: entry for entry in self._ledger.evaluations(self._specification.name)}
        return [self._record(trial, known.get(_noted(trial))) for trial in trials]

    def best(self) -> TrialRecord:
        """The finished trial with the highest score; of equals the first."""
        records = self.records()
        if not records:
            raise StudyError(f"study {self._specification.name!r} must have a finished trial, but has none: resume it.")
        return max(records, key=lambda record: record.score)

    def run(
        self,
        probe: RidgeProbe | Probe,
        *,
        trials: int,
        timeout: float | None = None,
        log: MlflowLog | None = None,
        progress: bool = True,
        after_step: Callable[[str], None] = lambda step: None,
    ) -> None:
        """Evaluate selections until `trials` distinct ones are finished or `timeout` seconds have passed.

        `after_step` is called with "scored", "told" and "logged" as a trial passes those points (for tests).

        Raises:
            KeyboardInterrupt: after the running trial was marked as failed; nothing else is lost.
            StudyError: the study database cannot be written (a full disk, say); resume when it can.
        """
        records = self.records()
        seen = {record.selection for record in records}
        best = max((record.score for record in records), default=float("-inf"))
        started, repeated, finished = time.monotonic(), 0, len(records)
        bar = tqdm(total=trials, initial=min(len(seen), trials), desc="search", unit="trial", disable=not progress)
        with bar:
            while len(seen) < trials and (timeout is None or time.monotonic() - started < timeout):
                # All finished trials count, not the distinct ones: made anew with the same seed after a repeated
                # selection, a sampler would repeat it for ever.
                record = self._trial(probe, finished, log, after_step)
                finished += 1
                repeated = repeated + 1 if record.selection in seen else 0
                if record.selection not in seen:
                    seen.add(record.selection)
                    bar.update()
                if record.score > best:
                    best = record.score
                    bar.set_postfix(best=f"{best:.4f}")
                if repeated >= _DUPLICATES_IN_A_ROW:
                    warnings.warn(
                        f"the search ends after {len(seen)} distinct selections: the {self._specification.sampler} "
                        f"sampler proposed no new one {repeated} times in a row.",
                        stacklevel=2,
                    )
                    break

    def _trial(
        self, probe: RidgeProbe | Probe, finished: int, log: MlflowLog | None, after_step: Callable[[str], None]
    ) -> TrialRecord:
        self._study.sampler = self._sampler_for(finished)
        try:
            return self._asked_trial(probe, self._study.ask(), log, after_step)
        except (SQLAlchemyError, StorageInternalError) as error:
            raise StudyError(f"the study database cannot be written: {error.__cause__ or error}") from error

    def _asked_trial(
        self, probe: RidgeProbe | Probe, trial: Trial, log: MlflowLog | None, after_step: Callable[[str], None]
    ) -> TrialRecord:
        try:
            selection = self.space.suggest(trial)
            evaluation = self._evaluation(probe, selection)
            after_step("scored")
            trial.set_user_attr(_NOTE, {"selection": selection.to_json(), "proposed_by": self._stage(trial)})
            told = self._study.tell(trial, self._values(evaluation))
            after_step("told")
        except BaseException:
            self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
            raise
        record = self._record(told, evaluation)
        if log is not None:
            log.add(record)
            after_step("logged")
        return record

    def _values(self, evaluation: Evaluation) -> list[float]:
        """The study's objectives of a selection, in their order."""
        known = {
            "score": evaluation.score,
            "channels": evaluation.channels,
            "passes": evaluation.selection.passes,
            "operations": self.space.operations(evaluation.selection),
        }
        values = [known[name] for name in self._specification.objectives]
        if None in values:
            raise StudyError("study.objectives must leave out operations, because those of this pool are not known.")
        return [float(value) for value in values if value is not None]

    def _evaluation(self, probe: RidgeProbe | Probe, selection: Selection) -> Evaluation:
        """From the ledger, or scored now and put there."""
        name = self._specification.name
        known = self._ledger.evaluation(name, selection)
        if known is not None:
            return known
        started = time.perf_counter()
        score = probe.score(selection)
        seconds = time.perf_counter() - started
        found = Evaluation(selection, float(score.value), tuple(score.folds), self.space.channels(selection), seconds)
        self._ledger.record_evaluation(
            name,
            selection,
            score=found.score,
            fold_scores=found.fold_scores,
            channels=found.channels,
            seconds=found.seconds,
        )
        return found

    def _record(self, trial: FrozenTrial, known: Evaluation | None) -> TrialRecord:
        if known is None or not trial.values:
            raise StudyError(
                f"trial {trial.number} of study {self._specification.name!r} must have its score in the ledger, but "
                "has none: the database was changed by something else than diffsift."
            )
        return TrialRecord(
            uid=f"{self._uid}-{trial.number}",
            number=trial.number,
            selection=known.selection,
            score=float(trial.values[0]),
            fold_scores=tuple(known.fold_scores),
            channels=known.channels,
            seconds=known.seconds,
            proposed_by=str(trial.user_attrs[_NOTE]["proposed_by"]),
            operations=self.space.operations(known.selection),
        )

    def _sampler_for(self, finished: int) -> optuna.samplers.BaseSampler:
        if self._sampler is not None:
            return self._sampler
        sampler = make_sampler(
            self._specification.sampler,
            self.space,
            seed=self._specification.seed,
            finished=finished,
            warm_starts=self._warm_starts,
        )
        if isinstance(sampler, SiftSampler):
            self._sampler = sampler
        return sampler

    def _stage(self, trial: Trial) -> str:
        if self._sampler is None:
            return self._specification.sampler
        return self._sampler.stage_of.pop(trial.number)


def _noted(trial: FrozenTrial) -> Selection:
    return Selection.from_json(trial.user_attrs[_NOTE]["selection"])


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage on a database that `Ledger` shares; SQLite with write-ahead log and normal sync.

    Raises:
        StudyError: the database cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        storage = RDBStorage(url, engine_kwargs={"connect_args": {"timeout": 30}} if url.startswith("sqlite") else None)
    except (SQLAlchemyError, RuntimeError) as error:
        raise StudyError(f"the study database {url} cannot be used by Optuna: {error}") from error
    tune_sqlite(storage.engine)
    return storage
