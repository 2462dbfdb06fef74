"""A study in MLflow: one parent run, a child run per trial, written in batches and repairable.

The study's own database is the record; MLflow is a projection of it. Each child run carries its trial's uid, so what is
missing or half-written can always be found and completed, and nothing is ever written twice.
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
    read_table,
    table_row,
    trial_metrics,
    trial_parameters,
    write_table,
)
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
"""Of the trials that are known: a write costs time in proportion to them, since it writes their whole table."""
FLUSH_SECONDS = 5.0
RETRY_SECONDS = 60.0
"""How long a store that failed is left alone: a dead server would hold up the search at each flush."""

TABLE, FRONT = "trials.csv", "front.json"
_UID, _STUDY, _ROLE = "diffsift.trial_uid", "diffsift.study", "diffsift.role"
_PARENT = "mlflow.parentRunId"
_PARAMETERS_A_BATCH, _STEPS_A_BATCH = 100, 400  # MLflow's limits: 100 parameters, 1000 metrics (two a step)


class MlflowLogger(Logger):
    """Writes one study to an MLflow store.

    The first `child_runs` trials have a child run each; after them only trials that improve on all trials of a lower
    number have one. Every trial is in the parent run: as a step of the metrics ``score`` and ``best_score`` (the step
    is the trial's number) and as a row of the artifact ``trials.csv``, whose column ``child_run`` says which trials
    have a child run too. A child run is complete exactly when its status is FINISHED.

    A store that fails after `start` never stops the search: trials stay in memory, the failure is counted in
    `failures` and warned of once, and a later flush, `finish`, or ``diffsift resume`` writes what is missing.

    Args:
        store_uri: ``sqlite:///path`` (a file of its own: MLflow and Optuna cannot share one), another SQLAlchemy URL,
            or the address of a tracking server.
        artifacts: folder of the artifacts, used when the experiment is made.
        study: name of the study; its parent run is found again by it.
        child_runs: most child runs before only improvements get one, 0 or more.
        reporter: told of the first failure; default: nobody.
    """

    def __init__(
        self,
        store_uri: str,
        artifacts: Path,
        study: str,
        *,
        child_runs: int = 100,
        reporter: Reporter | None = None,
    ) -> None:
        if child_runs < 0:
            raise StudyError(f"child_runs must be 0 or more, but got {child_runs}.")
        self.failures = 0
        self._reporter = reporter or NullReporter()
        self._store_uri, self._artifacts, self._study, self._most_children = store_uri, artifacts, study, child_runs
        self._client: MlflowClient | None = None
        self._experiment = self._parent = ""
        self._known: dict[str, TrialRecord] = {}  # every record handed in, by uid
        self._pending: dict[str, TrialRecord] = {}  # those not yet known to be in the store
        self._children: dict[str, Run | None] = {}  # uid -> a child that is unfinished, or None: finished
        self._steps: set[int] = set()  # the trial numbers in the parent's metrics
        self._table: dict[str, dict[str, str]] = {}  # uid -> row, as last written
        self._stale = True  # whether the three above must be read from the store before the next write
        self._last_flush = time.monotonic()
        self._silent_until = 0.0

    # Life of a study

    def start(self, parameters: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> None:
        """Open the store and the study's parent run; make them where they are missing.

        Args:
            parameters: nested, logged by dotted path. One that changed since the study was made is logged as the tag
                ``changed.<path>``, since MLflow's parameters cannot change.
            dataset: fields of the data set; must hold ``name``, may hold ``source`` and ``digest``.

        Raises:
            StudyError: the store cannot be opened or written.
        """
        self._client = open_client(self._store_uri, self._artifacts)
        self._or_refuse(lambda: self._start(self._client_(), parameters, dataset))

    def add(self, record: TrialRecord) -> None:
        """Hand in a finished trial. It is written with others: once a hundred wait, or 5 s after the last write.

        Beyond 5,000 trials, once 2 % of all wait.
        """
        self._known[record.uid] = self._pending[record.uid] = record
        enough = max(FLUSH_TRIALS, FLUSH_SHARE * len(self._known))
        due = len(self._pending) >= enough or time.monotonic() - self._last_flush > FLUSH_SECONDS
        if due and time.monotonic() >= self._silent_until:
            self.flush()

    def flush(self) -> None:
        """Write what was handed in. A failure is counted, and the trials are kept for the next flush."""
        self._or_warn(self._write_pending)

    def repair(self, records: Sequence[TrialRecord]) -> None:
        """Make the store hold exactly `records`: write what is missing, complete what is half-written.

        Child runs of trials that are neither in `records` nor were handed in go to MLflow's trash: the study's database
        lost them, as a power cut can do to the last commits. Idempotent. Call it after `start` when a study is resumed.

        Raises:
            StudyError: the store cannot be read or written.
        """
        self._or_refuse(lambda: self._repair(records))

    def finish(self, outcome: Outcome, files: Sequence[Path]) -> None:
        """Log the outcome and end the parent run.

        The final rows are metrics (``test/<row>``), the verdict a tag; the trials table, the Pareto front
        (``front.json``) and `files` (the selection, the report) are artifacts. A failure is counted and warned of.
        """
        self._or_warn(lambda: self._finish(self._client_(), outcome, files))

    def interrupt(self) -> None:
        """Write what was handed in and mark the parent run KILLED; `start` opens it again."""
        self.flush()
        self._or_warn(lambda: self._client_().set_terminated(self._parent, status="KILLED"))

    def scores(self) -> dict[str, float]:
        """Score by uid of every trial that is wholly in the store, read from the store.

        Raises:
            StudyError: the store cannot be read.
        """
        found: dict[str, float] = {}

        def read() -> None:
            self._load()
            found.update((uid, float(row["score"])) for uid, row in self._table.items() if row["child_run"] == "no")
            finished = [run for run in self._search_children() if run.info.status == "FINISHED"]
            found.update((run.data.tags[_UID], float(run.data.metrics["score"])) for run in finished)

        self._or_refuse(read)
        return found

    # Writing

    def _start(self, client: MlflowClient, parameters: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> None:
        is_server = database_url(self._store_uri) is None
        self._experiment = open_experiment(client, None if is_server else self._artifacts)
        run = self._find_parent(client)
        if run is None:
            note = (
                f"Trials of the diffsift study **{self._study}**. The first {self._most_children} trials have a child "
                "run each, later ones only where they improve on all before them. All trials are in the metrics "
                f"`score` and `best_score` (step: trial number) and in the artifact `{TABLE}`."
            )
            tags = {_STUDY: self._study, _ROLE: "study", "mlflow.note.content": note, "mlflow.source.name": "diffsift"}
            run = client.create_run(self._experiment, tags=tags, run_name=self._study)
        else:
            client.update_run(run.info.run_id, status="RUNNING")
        self._parent = run.info.run_id
        self._log_parameters(client, run, flatten(parameters))
        if dataset is not None:
            client.log_inputs(self._parent, [dataset_input(dataset)])
        self._load()

    def _log_parameters(self, client: MlflowClient, run: Run, wanted: Mapping[str, str]) -> None:
        from mlflow.entities import Param, RunTag

        old = run.data.params
        new = [Param(key, value) for key, value in wanted.items() if key not in old]
        changed = [RunTag(f"changed.{key}", value) for key, value in wanted.items() if old.get(key, value) != value]
        for start in range(0, len(new), _PARAMETERS_A_BATCH):
            client.log_batch(self._parent, params=new[start : start + _PARAMETERS_A_BATCH])
        for start in range(0, len(changed), _PARAMETERS_A_BATCH):
            client.log_batch(self._parent, tags=changed[start : start + _PARAMETERS_A_BATCH])

    def _repair(self, records: Sequence[TrialRecord]) -> None:
        self._known.update((record.uid, record) for record in records)
        self._load()
        self._drop_unknown(self._client_())
        self._pending = dict(self._known)
        self._write_pending()

    def _drop_unknown(self, client: MlflowClient) -> None:
        for run in self._search_children():
            if run.data.tags[_UID] not in self._known:
                client.delete_run(run.info.run_id)
                del self._children[run.data.tags[_UID]]
        if not self._table.keys() <= self._known.keys():
            self._table = {uid: row for uid, row in self._table.items() if uid in self._known}
            self._write_table(client, {})

    def _write_pending(self) -> None:
        """Children first, then the parent's curve, then the table; each step skips what the store holds already."""
        self._last_flush = time.monotonic()
        if not self._pending:
            return
        if self._stale:
            self._load()
        self._stale = True  # until all below went well
        pending = sorted(self._pending.values(), key=lambda record: record.number)
        bests = self._bests()
        before = {number: earlier for (number, _), earlier in zip(bests.items(), (None, *bests.values()), strict=False)}
        for record in pending:
            if self._gets_child(record, before[record.number]):
                self._write_child(self._client_(), record)
        self._write_curve(self._client_(), pending, bests)
        rows = {record.uid: table_row(record, has_child=record.uid in self._children) for record in pending}
        without_child = any(row["child_run"] == "no" and self._table.get(uid) != row for uid, row in rows.items())
        if without_child:  # the others' rows are for reading only: `finish` writes them
            self._write_table(self._client_(), rows)
        self._pending.clear()
        self._stale = False

    def _gets_child(self, record: TrialRecord, best_before: float | None) -> bool:
        if record.uid in self._children:
            return self._children[record.uid] is not None
        if self._table.get(record.uid, {}).get("child_run") == "no":
            return False
        improves = best_before is None or record.score > best_before
        return len(self._children) < self._most_children or improves

    def _write_child(self, client: MlflowClient, record: TrialRecord) -> None:
        """Make or complete a trial's child run. Ended last, so that a status of FINISHED means complete."""
        from mlflow.entities import Metric, Param

        now = _now_ms()
        run = self._children.get(record.uid)
        if run is None:
            tags = {_PARENT: self._parent, _UID: record.uid, _ROLE: "trial", _STUDY: self._study}
            begun = now - int(record.seconds * 1000)
            run = client.create_run(self._experiment, begun, tags, run_name=f"trial {record.number}")
            self._children[record.uid] = run
        params = {key: value for key, value in trial_parameters(record).items() if key not in run.data.params}
        metrics = {key: value for key, value in trial_metrics(record).items() if run.data.metrics.get(key) != value}
        client.log_batch(
            run.info.run_id,
            [Metric(key, value, now, record.number) for key, value in metrics.items()],
            [Param(key, value) for key, value in params.items()],
        )
        client.set_terminated(run.info.run_id, end_time=now)
        self._children[record.uid] = None

    def _write_curve(self, client: MlflowClient, records: Sequence[TrialRecord], bests: Mapping[int, float]) -> None:
        from mlflow.entities import Metric

        missing = [record for record in records if record.number not in self._steps]
        for start in range(0, len(missing), _STEPS_A_BATCH):
            batch = missing[start : start + _STEPS_A_BATCH]
            now = _now_ms()
            metrics = [Metric("score", float(record.score), now, record.number) for record in batch]
            metrics += [Metric("best_score", bests[record.number], now, record.number) for record in batch]
            client.log_batch(self._parent, metrics)
            self._steps.update(record.number for record in batch)

    def _write_table(self, client: MlflowClient, rows: Mapping[str, dict[str, str]]) -> None:
        table = {**self._table, **rows}
        client.log_text(self._parent, write_table(table.values()), TABLE)
        self._table = table

    def _finish(self, client: MlflowClient, outcome: Outcome, files: Sequence[Path]) -> None:
        from mlflow.entities import Metric, RunTag

        self._repair(outcome.trials)
        every = {uid: table_row(record, has_child=uid in self._children) for uid, record in self._known.items()}
        self._write_table(client, every)
        old = client.get_run(self._parent).data.metrics
        scores = {field_name(f"test/{row.name}"): float(row.score) for row in outcome.table}
        now = _now_ms()
        metrics = [Metric(key, value, now, 0) for key, value in scores.items() if old.get(key) != value]
        tags = {"diffsift.verdict": str(outcome.verdict), "diffsift.found": str(outcome.found)}
        client.log_batch(self._parent, metrics, tags=[RunTag(key, clip(value)) for key, value in tags.items()])
        client.log_dict(self._parent, front_document(outcome), FRONT)
        for file in files:
            client.log_artifact(self._parent, str(file))
        client.set_terminated(self._parent)

    # Reading

    def _load(self) -> None:
        """Read from the store which trials it holds, so that nothing is written twice."""
        client = self._client_()
        self._children = {}
        for run in self._search_children():
            uid, finished = run.data.tags[_UID], run.info.status == "FINISHED"
            if self._children.get(uid, run) is None:
                # A reply of the server got lost and the run was made again: keep the finished one.
                client.delete_run(run.info.run_id)
            else:
                twin = self._children.get(uid)
                if twin is not None:
                    client.delete_run(twin.info.run_id)
                self._children[uid] = None if finished else run
        self._steps = {metric.step for metric in client.get_metric_history(self._parent, "score")}
        self._table = {}
        if any(entry.path == TABLE for entry in client.list_artifacts(self._parent)):
            self._table = read_table(Path(client.download_artifacts(self._parent, TABLE)))
        self._stale = False

    def _search_children(self) -> list[Run]:
        return self._search(self._client_(), f"tags.`{_PARENT}` = '{self._parent}' and tags.`{_ROLE}` = 'trial'")

    def _find_parent(self, client: MlflowClient) -> Run | None:
        """The oldest parent run of the study. Names are compared here, since they may hold any quote."""
        runs = self._search(client, f"tags.`{_ROLE}` = 'study'")
        ours = [run for run in runs if run.data.tags.get(_STUDY) == self._study]
        return min(ours, key=lambda run: run.info.start_time, default=None)

    def _search(self, client: MlflowClient, filter_string: str) -> list[Run]:
        found: list[Run] = []
        token: str | None = None
        while True:
            page = client.search_runs([self._experiment], filter_string, max_results=1000, page_token=token)
            found.extend(page)
            token = page.token
            if not token:
                return found

    def _bests(self) -> dict[int, float]:
        """The best score up to each known trial, by number; rows of the table stand for trials not handed in."""
        scores = {int(row["number"]): float(row["score"]) for row in self._table.values()}
        scores.update((record.number, float(record.score)) for record in self._known.values())
        bests: dict[int, float] = {}
        best = float("-inf")
        for number in sorted(scores):
            best = bests[number] = max(best, scores[number])
        return bests

    # Failing

    def _client_(self) -> MlflowClient:
        if self._client is None:
            raise StudyError("MlflowLogger.start must be called before anything is logged.")
        return self._client

    def _or_refuse(self, action: Callable[[], None]) -> None:
        from mlflow.exceptions import MlflowException

        try:
            with quiet():
                action()
        except (MlflowException, SQLAlchemyError, OSError) as error:
            self._stale = True
            raise store_error(self._store_uri, error) from error

    def _or_warn(self, action: Callable[[], None]) -> None:
        self._client_()  # a missing start is a mistake of the caller, not a failure of the store
        try:
            self._or_refuse(action)
        except StudyError as error:
            self.failures += 1
            self._silent_until = time.monotonic() + RETRY_SECONDS
            if self.failures == 1:
                self._reporter.warning(
                    f"{error} The search goes on and loses nothing; 'diffsift resume {self._study}' writes to MLflow "
                    "what is missing."
                )


def _now_ms() -> int:
    return int(time.time() * 1000)
