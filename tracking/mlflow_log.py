"""A study in MLflow: a parent run, a child run per trial, written in batches and repairable.

MLflow is a projection: everything in it follows from the trials in the study's database. Each child run carries its
trial's uid, so what is missing or half-written can be found and completed, and nothing is written twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from diffsift.common.reporting import NullReporter, Reporter
from diffsift.errors import StudyError

from ._mlflow_fields import (
    clip,
    dataset_input,
    field_name,
    flatten,
    front_document,
    trial_metrics,
    trial_parameters,
    trials_table,
)
from ._mlflow_runs import PARENT, ROLE, STUDY, STUDY_UID, UID, may_be_of, study_runs, trial_runs
from ._mlflow_server import serve
from ._mlflow_store import database_url, open_client, open_experiment, quiet, store_error
from .logger import Logger
from .records import Outcome, TrialRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

__all__ = ["MlflowLogger", "serve"]

FLUSH_TRIALS = 100
FLUSH_SHARE = 0.02
"""Of the trials that are known: a write costs time in proportion to them, since it may write their whole table."""
FLUSH_SECONDS = 5.0
RETRY_SECONDS = 60.0
"""How long a store that failed is left alone, twice as long after each failure: a dead one would hold up the search."""

TABLE, FRONT = "trials.csv", "front.json"
_BATCH = 100  # MLflow's limits are 100 parameters or tags and 1000 metrics


class MlflowLogger(Logger):
    """Writes one study to an MLflow store; see `Logger` for the life of a logger.

    A trial has a child run if its number is below `child_runs` or if it improves on all trials of a lower number. Every
    trial is in the parent run: as a step of the metrics ``score`` and ``best_score`` (the step is the trial's number),
    and as a row of the artifact ``trials.csv``, whose column ``child_run`` says which trials have a child run too. A
    child run is complete exactly when its status is FINISHED.

    A store that fails after `start` and `repair` never stops the search: trials stay in memory, the failure is counted
    and the first one reported, and a later flush, `finish`, or ``diffsift resume`` writes what is missing.

    Args:
        store_uri: ``sqlite:///path`` (a file of its own: MLflow and Optuna cannot share one), another SQLAlchemy URL,
            or the address of a tracking server.
        artifacts: folder of the artifacts, used when the experiment is made.
        study: name of the study; its parent run is found again by it.
        uid: of the study, with which the uids of its trials begin: a study of the same name that was made in another
            database keeps its own runs. Empty: the name alone counts.
        child_runs: trials with a child run each before only improvements get one, 0 or more.
        reporter: gets the first failure as a warning; default: none.

    Attributes:
        failures: writes that failed.

    Raises:
        StudyError: `child_runs` is negative.
    """

    def __init__(
        self,
        store_uri: str,
        artifacts: Path,
        study: str,
        *,
        uid: str = "",
        child_runs: int = 100,
        reporter: Reporter | None = None,
    ) -> None:
        if child_runs < 0:
            raise StudyError(f"child_runs must be 0 or more, but got {child_runs}.")
        self.failures = 0
        self._reporter = reporter or NullReporter()
        self._store_uri, self._artifacts, self._child_runs = store_uri, artifacts, child_runs
        self._study, self._study_uid = study, uid
        self._opened: MlflowClient | None = None
        self._experiment = self._parent = ""
        self._records: dict[str, TrialRecord] = {}  # all that were handed in, by uid
        self._pending: dict[str, TrialRecord] = {}  # those not yet known to be in the store
        self._children: dict[str, Run | None] = {}  # by uid: a child run that is unfinished, or None: finished
        self._steps: set[int] = set()  # the trial numbers in the parent's metrics
        self._is_stale = True  # whether the two above must be read from the store before the next write
        self._last_flush, self._silent_until, self._silence = time.monotonic(), 0.0, RETRY_SECONDS

    def start(self, parameters: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> None:
        """Open the store and the study's parent run; make them where they are missing.

        Args:
            parameters: nested, logged by dotted path. One that changed since the study was made is logged as the tag
                ``changed.<path>``, since MLflow's parameters cannot change.
            dataset: fields of the data set; must hold ``name``, may hold ``source`` and ``digest``.

        Raises:
            StudyError: the store cannot be opened or written.
        """
        self._opened = open_client(self._store_uri, self._artifacts)
        self._or_refuse(lambda: self._start(flatten(parameters), dataset))

    def add(self, record: TrialRecord) -> None:
        """Take a finished trial; it is written with others, once 100 (or 2 % of all) wait or 5 s after the last write.

        Args:
            record: of the trial; one that was added before is not written again.
        """
        self._records[record.uid] = self._pending[record.uid] = record
        enough = max(FLUSH_TRIALS, FLUSH_SHARE * len(self._records))
        due = len(self._pending) >= enough or time.monotonic() - self._last_flush > FLUSH_SECONDS
        if due and time.monotonic() >= self._silent_until:
            self.flush()

    def flush(self) -> None:
        """Write what was added. A failure is counted, and the trials are kept for the next flush."""
        self._or_warn(self._write_pending)

    def repair(self, records: Sequence[TrialRecord]) -> None:
        """Make the store hold exactly `records`: complete what is missing or half-written.

        Child runs of other trials go to MLflow's trash: the study's database lost those trials, as a power cut can do
        to the last commits.

        Args:
            records: all finished trials of the study.

        Raises:
            StudyError: the store cannot be read or written.
        """
        self._or_refuse(lambda: self._repair(records))

    def finish(self, outcome: Outcome, files: Sequence[Path]) -> None:
        """Log the outcome and end the parent run. A failure is counted and reported.

        Args:
            outcome: its final table becomes metrics (``test/<row>``), its verdict a tag, its Pareto front and its
                trials the artifacts ``front.json`` and ``trials.csv``.
            files: further artifacts: the selection, the report.
        """
        self._or_warn(lambda: self._finish(outcome, files))

    def interrupt(self) -> None:
        """Write what was added and mark the parent run KILLED; `start` opens it again."""
        self.flush()
        self._or_warn(lambda: self._client.set_terminated(self._parent, status="KILLED"))

    # Writing

    def _start(self, parameters: Mapping[str, str], dataset: Mapping[str, Any] | None) -> None:
        is_server = database_url(self._store_uri) is None
        self._experiment = open_experiment(self._client, None if is_server else self._artifacts)
        runs = study_runs(self._client, self._experiment, self._study)
        ours = [run for run in runs if may_be_of(run, self._study_uid)]
        run = min(ours, key=lambda run: run.info.start_time, default=None)
        if run is None:
            note = (
                f"Trials of the diffsift study **{self._study}**. The first {self._child_runs} trials have a child run "
                "each, later ones only where they improve on all before them. All trials are in the metrics `score` "
                f"and `best_score` (step: trial number) and in the artifact `{TABLE}`."
            )
            tags = {STUDY: self._study, ROLE: "study", "mlflow.note.content": note, "mlflow.source.name": "diffsift"}
            run = self._client.create_run(self._experiment, tags=tags, run_name=self._study)
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
        self._parent = run.info.run_id
        if self._study_uid:
            self._client.set_tag(self._parent, STUDY_UID, self._study_uid)
        self._log_parameters(run.data.params, parameters)
        if dataset is not None:
            self._client.log_inputs(self._parent, [dataset_input(dataset)])
        self._load()

    def _log_parameters(self, old: Mapping[str, str], new: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        added = [Param(key, value) for key, value in new.items() if key not in old]
        changed = [RunTag(f"changed.{key}", value) for key, value in new.items() if old.get(key, value) != value]
        for start in range(0, max(len(added), len(changed)), _BATCH):
            batch = slice(start, start + _BATCH)
            self._client.log_batch(self._parent, params=added[batch], tags=changed[batch])

    def _repair(self, records: Sequence[TrialRecord]) -> None:
        self._records = {record.uid: record for record in records}
        self._load()
        for run in self._trial_runs():
            if (uid := run.data.tags[UID]) not in self._records:
                self._client.delete_run(run.info.run_id)
                del self._children[uid]
        self._pending = dict(self._records)
        self._write_pending()

    def _write_pending(self) -> None:
        """Children first, then the parent's curve, then the table; each step skips what the store holds already."""
        self._last_flush = time.monotonic()
        if not self._pending:
            return
        if self._is_stale:
            self._load()
        self._is_stale = True  # until all below went well
        steps: list[tuple[TrialRecord, float]] = []
        best = float("-inf")
        for record in sorted(self._records.values(), key=lambda record: record.number):
            if record.uid in self._pending:
                has_child = record.number < self._child_runs or record.score > best
                if self._children.get(record.uid) is not None or (has_child and record.uid not in self._children):
                    self._write_child(record)
            best = max(best, float(record.score))
            if record.number not in self._steps:
                steps.append((record, best))
        self._write_curve(steps)
        if any(uid not in self._children for uid in self._pending):  # else the table is only for reading: see `_finish`
            self._client.log_text(self._parent, trials_table(self._records.values(), self._children), TABLE)
        self._pending.clear()
        self._is_stale = False

    def _write_child(self, record: TrialRecord) -> None:
        """Make or complete a trial's child run. Ended last, so that a status of FINISHED means complete."""
        from mlflow.entities import Metric, Param

        now = _now_ms()
        run = self._children.get(record.uid)
        if run is None:
            tags = {PARENT: self._parent, UID: record.uid, ROLE: "trial", STUDY: self._study}
            begun = now - int(record.seconds * 1000)
            run = self._client.create_run(self._experiment, begun, tags, run_name=f"trial {record.number}")
            self._children[record.uid] = run
        params = {key: value for key, value in trial_parameters(record).items() if key not in run.data.params}
        metrics = {key: value for key, value in trial_metrics(record).items() if run.data.metrics.get(key) != value}
        self._client.log_batch(
            run.info.run_id,
            [Metric(key, value, now, record.number) for key, value in metrics.items()],
            [Param(key, value) for key, value in params.items()],
        )
        self._client.set_terminated(run.info.run_id, end_time=now)
        self._children[record.uid] = None

    def _write_curve(self, steps: Sequence[tuple[TrialRecord, float]]) -> None:
        from mlflow.entities import Metric

        for start in range(0, len(steps), _BATCH):
            batch, now = steps[start : start + _BATCH], _now_ms()
            scores = [Metric("score", float(record.score), now, record.number) for record, _ in batch]
            bests = [Metric("best_score", best, now, record.number) for record, best in batch]
            self._client.log_batch(self._parent, scores + bests)
            self._steps.update(record.number for record, _ in batch)

    def _finish(self, outcome: Outcome, files: Sequence[Path]) -> None:
        from mlflow.entities import Metric, RunTag

        self._repair(outcome.trials)
        self._client.log_text(self._parent, trials_table(self._records.values(), self._children), TABLE)
        self._client.log_dict(self._parent, front_document(outcome), FRONT)
        for file in files:
            self._client.log_artifact(self._parent, str(file))
        old, now = self._client.get_run(self._parent).data.metrics, _now_ms()
        scores = {field_name(f"test/{row.name}"): float(row.score) for row in outcome.table}
        metrics = [Metric(key, value, now, 0) for key, value in scores.items() if old.get(key) != value]
        tags = {"diffsift.verdict": str(outcome.verdict), "diffsift.found": str(outcome.found)}
        self._client.log_batch(self._parent, metrics, tags=[RunTag(key, clip(value)) for key, value in tags.items()])
        self._client.set_terminated(self._parent)

    # Reading

    def _load(self) -> None:
        """Read from the store which trials it holds, so that nothing is written twice."""
        self._children = {}
        for run in sorted(
            self._trial_runs(),
            key=lambda run: run.info.status != "FINISHED",
        ):
            uid = run.data.tags[UID]
            if uid in self._children:  # a reply of the server got lost, and the run was made again
                self._client.delete_run(run.info.run_id)
            else:
                self._children[uid] = None if run.info.status == "FINISHED" else run
        self._steps = {metric.step for metric in self._client.get_metric_history(self._parent, "score")}
        self._is_stale = False

    def _trial_runs(self) -> list[Run]:
        return trial_runs(self._client, self._experiment, self._study_uid, self._parent)

    # Failing

    @property
    def _client(self) -> MlflowClient:
        if self._opened is None:
            raise StudyError("MlflowLogger.start must be called before anything is logged.")
        return self._opened

    def _or_refuse(self, action: Callable[[], None]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            with quiet():
                action()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            self._is_stale = True
            raise store_error(self._store_uri, error) from error

    def _or_warn(self, action: Callable[[], None]) -> None:
        _ = self._client  # a missing start is a mistake of the caller, not a failure of the store
        try:
            self._or_refuse(action)
            self._silence = RETRY_SECONDS
        except StudyError as error:
            self.failures += 1
            self._silent_until = time.monotonic() + self._silence
            self._silence *= 2
            if self.failures == 1:
                self._reporter.warning(
                    f"{error} The search continues and loses nothing; 'diffsift resume {self._study}' writes the "
                    "missing trials to MLflow."
                )


def _now_ms() -> int:
    return int(time.time() * 1000)
