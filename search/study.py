"""The search itself: an Optuna study whose trials are scored on a bank."""

from __future__ import annotations

import contextlib
import gc
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import optuna
from jaxtyping import Float
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, get_storage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from diffsift.common.reporting import NullReporter, Reporter
from diffsift.errors import StudyError
from diffsift.objectives import RidgeProbe
from diffsift.spaces import Selection
from diffsift.tracking import Evaluation, Ledger, Logger, TrialRecord, tune_sqlite

from ._run import Run, noted, stage_of
from .space import SearchSpace
from .specification import StudySpecification

_DUPLICATES_IN_A_ROW = 200


class Probe(Protocol):
    """What scores a selection; see `RidgeProbe`."""

    def score(self, selection: Selection) -> Any: ...


class SearchStudy:
    """An Optuna study with what diffsift adds: identical selections are scored once, by one process of several.

    A finished trial goes, in this order, to the ledger (its score), to Optuna (the whole trial, in one transaction) and
    to MLflow (a copy). Whatever moment a process is killed at, what it leaves is a score that nobody told or a claim
    that nobody holds: the others, or the next one, score nothing twice and complete what is missing.

    Args:
        url: SQLAlchemy URL of the study database.
        specification: of the study.
        space: pool and limits.
        ledger: in the same database.
        warm_starts: selections to try first.
        similarity: of the pool's candidates, for our sampler; see `SubsetGPSampler`.
        seed_stream: number of the random stream that proposals are drawn from: 0 for the leader of a study, another
            for each process that joins it.
    """

    def __init__(
        self,
        url: str,
        specification: StudySpecification,
        space: SearchSpace,
        ledger: Ledger,
        *,
        warm_starts: Sequence[Selection] = (),
        similarity: Float[np.ndarray, "pool pool"] | None = None,
        seed_stream: int = 0,
    ) -> None:
        self.specification, self.space, self._ledger = specification, space, ledger
        self.warm_starts, self.similarity, self.seed_stream = list(warm_starts), similarity, seed_stream
        self._database = open_storage(url)
        self._storage = get_storage(self._database)
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=specification.name,
            directions=["maximize" if name == "score" else "minimize" for name in specification.objectives],
            load_if_exists=True,
        )
        if "uid" not in self._study.user_attrs:
            self._study.set_user_attr("uid", uuid.uuid4().hex[:12])
        self._uid = str(self._study.user_attrs["uid"])
        self._study_id = self._storage.get_study_id_from_name(specification.name)

    @property
    def name(self) -> str:
        return self.specification.name

    @property
    def directions(self) -> list[StudyDirection]:
        """Of the objectives."""
        return self._study.directions

    def reclaim(self) -> int:
        """Fail trials that are left running, as ledgers of schema 1 or other users of the study may have them.

        Ours are not in the database while they run. Only the leader of a study may call this.
        """
        left = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for trial in left:
            self._study.tell(trial.number, state=TrialState.FAIL)
        return len(left)

    def records(self) -> list[TrialRecord]:
        """All finished trials in order, as Optuna and the ledger hold them."""
        known = {entry.selection: entry for entry in self.evaluations()}
        return [self.record(trial, known.get(noted(trial))) for trial in self.finished_trials()]

    def best(self) -> TrialRecord:
        """The finished trial with the highest score; of equals the first."""
        records = self.records()
        if not records:
            raise StudyError(f"study {self.name!r} must have a finished trial, but has none: resume it.")
        return max(records, key=lambda record: record.score)

    def run(
        self,
        probe: RidgeProbe | Probe,
        *,
        trials: int,
        timeout: float | None = None,
        log: Logger | None = None,
        reporter: Reporter | None = None,
        has_peers: bool = False,
        after_step: Callable[[str], None] = lambda step: None,
        stop: Callable[[], bool] = lambda: False,
    ) -> None:
        """Evaluate selections until `trials` distinct ones are finished or `timeout` seconds have passed.

        Other processes may do the same at the same time: no selection is evaluated twice, nor more than `trials` in
        all, and each sees what the others finished. With none beside it, what a process proposes depends on the seed
        and the finished trials alone.

        Args:
            probe: scores a selection.
            trials: distinct selections to end with.
            timeout: seconds after which no new trial starts.
            log: gets the trials of all processes; give it to one of them.
            reporter: told of trials and shown progress; default: nobody.
            has_peers: whether other processes are expected; they are noticed anyway, but later.
            after_step: called with "scored", "told" and "logged" as a trial passes those points (for tests).
            stop: asked before each trial; True ends the run.

        Raises:
            KeyboardInterrupt: the running trial is lost, or its score kept for the next run; nothing else is lost.
            StudyError: the study database cannot be written (a full disk, say); resume when it can.
        """
        reporter = reporter or NullReporter()
        ends = None if timeout is None else time.monotonic() + timeout
        try:
            with _settled_garbage(), self._ledger.claims(self.name) as claims:
                run = Run(self, probe, claims, trials, after_step, has_peers, reporter)
                there = min(run.distinct, trials)
                with reporter.progress(trials, "search", "trial", initial=there) as bar:
                    while run.distinct < trials and not stop() and (ends is None or time.monotonic() < ends):
                        found = run.advance()
                        _hand_over(found, log, reporter, after_step)
                        _show(bar, run)
                        if not found:
                            time.sleep(run.pause)
                        if run.repeated >= _DUPLICATES_IN_A_ROW:
                            _report_exhausted(run, self.specification.sampler, reporter)
                            break
        except (SQLAlchemyError, StorageInternalError) as error:
            raise StudyError(f"the study database cannot be written: {error.__cause__ or error}") from error

    # What a run needs of the databases

    def finished_trials(self) -> list[FrozenTrial]:
        """In order, as Optuna holds them; not to be changed."""
        return self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))

    def write(self, trial: FrozenTrial) -> FrozenTrial:
        """Write a finished trial, whole or not at all; returns it with the number it got."""
        # Its parameters in one go, not each by itself before the next is looked up.
        with self._database.scoped_session.no_autoflush:
            identifier = self._storage.create_new_trial(self._study_id, template_trial=trial)
        return self._storage.get_trial(identifier)

    def values(self, evaluation: Evaluation) -> list[float]:
        """The study's objectives of a selection, in their order.

        Raises:
            StudyError: operations are one of them and not known.
        """
        known = {
            "score": evaluation.score,
            "channels": evaluation.channels,
            "passes": self.space.passes(evaluation.selection),
            "operations": self.space.operations(evaluation.selection),
        }
        values = [known[name] for name in self.specification.objectives]
        if None in values:
            raise StudyError("study.objectives must leave out operations, because those of this pool are not known.")
        return [float(value) for value in values if value is not None]

    def record(self, trial: FrozenTrial, known: Evaluation | None) -> TrialRecord:
        """A finished trial with what the ledger knows of it.

        Raises:
            StudyError: the ledger knows nothing of it.
        """
        if known is None or not trial.values:
            raise StudyError(
                f"trial {trial.number} of study {self.name!r} must have its score in the ledger, but has none: the "
                "database was changed by something else than diffsift."
            )
        return TrialRecord(
            uid=f"{self._uid}-{trial.number}",
            number=trial.number,
            selection=known.selection,
            score=float(trial.values[0]),
            fold_scores=tuple(known.fold_scores),
            channels=known.channels,
            seconds=known.seconds,
            proposed_by=stage_of(trial),
            operations=self.space.operations(known.selection),
            draws=self.space.draws,
        )

    def score(self, probe: RidgeProbe | Probe, selection: Selection) -> Evaluation:
        """Score a selection and put that into the ledger."""
        started = time.perf_counter()
        score = probe.score(selection)
        seconds = time.perf_counter() - started
        found = Evaluation(selection, float(score.value), tuple(score.folds), self.space.channels(selection), seconds)
        self._ledger.record_evaluation(
            self.name,
            selection,
            score=found.score,
            fold_scores=found.fold_scores,
            channels=found.channels,
            seconds=found.seconds,
        )
        return found

    def evaluation(self, selection: Selection) -> Evaluation:
        """From the ledger.

        Raises:
            StudyError: it is not there.
        """
        found = self._ledger.evaluation(self.name, selection)
        if found is None:
            raise StudyError(
                f"the score of {selection} in study {self.name!r} must be in the ledger, but is not: the database was "
                "changed by something else than diffsift."
            )
        return found

    def evaluations(self) -> list[Evaluation]:
        """All of the ledger."""
        return self._ledger.evaluations(self.name)

    def evaluated(self) -> int:
        """How many the ledger holds."""
        return self._ledger.evaluated(self.name)


@contextlib.contextmanager
def _settled_garbage() -> Iterator[None]:
    """Spare Python's collector what is there already: a good part of a trial went into looking through it again."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _hand_over(
    records: Sequence[TrialRecord], log: Logger | None, reporter: Reporter, after_step: Callable[[str], None]
) -> None:
    for record in records:
        reporter.trial(record)
        if log is not None:
            log.add(record)
            after_step("logged")


def _report_exhausted(run: Run, sampler: str, reporter: Reporter) -> None:
    reporter.warning(
        f"the search ends after {run.distinct} distinct selections: the {sampler} sampler proposed no new one "
        f"{run.repeated} times in a row."
    )


def _show(bar: Any, run: Run) -> None:
    """Move the progress bar to where the study is."""
    gone = min(run.distinct, bar.total) - bar.n
    if gone > 0:
        bar.update(gone)
        bar.set_postfix(best=f"{run.best:.4f}", refresh=False)


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
