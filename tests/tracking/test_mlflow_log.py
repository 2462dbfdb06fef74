from __future__ import annotations

import json
import shutil
import socket
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run
from support.mlflow_store import stored_scores
from support.reporters import Recorder

from diffsift.common.reporting import Reporter
from diffsift.errors import StudyError
from diffsift.spaces import Candidate, Selection
from diffsift.tracking import FinalRow, MlflowLogger, Outcome, TrialRecord, Verdict, serve

PARAMETERS = {"model": {"id": "demo"}, "timesteps": [50, 100]}
DATASET = {"name": "rendered scenes", "source": "built-in", "images": 400}


def record(number: int, score: float | None = None) -> TrialRecord:
    selection = Selection.of([Candidate("main", "mid-vit-out", number), Candidate("main", "up-vit-out", 100)])
    value = 0.1 + 0.01 * ((number * 7) % 10) if score is None else score
    return TrialRecord(
        f"uid-{number}", number, selection, value, (value - 0.01, value + 0.01), 192, 0.02, "random", 0.25
    )


def outcome(records: list[TrialRecord]) -> Outcome:
    found = records[0].selection
    rows = (
        FinalRow("found", found, 0.25, 0.2, 0.3, 192, 2),
        FinalRow("raw pixels (5 x 5)", found, 0.07, 0.06, 0.08, 75, 0, 0.18, 0.15, 0.2),
    )
    front = (records[-1],)
    words = ("horses", "task", "mean IoU", "p", "demo", "scenes")
    return Outcome(*words, (), 2, tuple(records), rows, found, Verdict("Better.", "Use it."), front=front)


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return f"sqlite:///{tmp_path / 'mlflow.db'}"


def started(uri: str, tmp_path: Path, *, child_runs: int = 200, reporter: Reporter | None = None) -> MlflowLogger:
    log = MlflowLogger(uri, tmp_path / "artifacts", "horses", child_runs=child_runs, reporter=reporter)
    log.start(PARAMETERS, DATASET)
    return log


def runs(uri: str) -> tuple[Run, list[Run]]:
    """The parent and its children, read with a plain client."""
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("diffsift")
    assert experiment is not None
    found = list(client.search_runs([experiment.experiment_id]))
    children = [run for run in found if "mlflow.parentRunId" in run.data.tags]
    (parent,) = [run for run in found if run not in children]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} <= {parent.info.run_id}
    return parent, children


def stored(uri: str) -> list[tuple[str, float, str]]:
    _, children = runs(uri)
    return sorted((run.data.tags["diffsift.trial_uid"], run.data.metrics["score"], run.info.status) for run in children)


def wanted(records: list[TrialRecord]) -> list[tuple[str, float, str]]:
    return sorted((trial.uid, trial.score, "FINISHED") for trial in records)


def test_a_study_and_its_trials(uri: str, tmp_path: Path) -> None:
    log = started(uri, tmp_path)
    records = [record(number) for number in range(3)]
    for trial in records:
        log.add(trial)
    log.flush()
    assert stored(uri) == wanted(records)
    parent, children = runs(uri)
    assert parent.data.params == {"model.id": "demo", "timesteps": "[50, 100]"}
    assert parent.inputs is not None
    assert parent.inputs.dataset_inputs[0].dataset.name == "rendered scenes"
    child = next(run for run in children if run.data.tags["diffsift.trial_uid"] == "uid-2")
    assert child.data.params["weights"] == "1, 1"
    assert child.data.params["timesteps"] == "2, 100"
    assert child.data.metrics["fold_1"] == pytest.approx(records[2].score + 0.01)
    assert child.data.metrics["passes"] == 2
    history = MlflowClient(tracking_uri=uri).get_metric_history(parent.info.run_id, "best_score")
    assert [(point.step, point.value) for point in history] == [(0, 0.1), (1, records[1].score), (2, records[1].score)]


def test_the_buffer_is_written_at_the_hundredth_trial(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffsift.tracking.mlflow_log.FLUSH_SECONDS", 600.0)  # not by the clock
    log = started(uri, tmp_path)
    for number in range(99):
        log.add(record(number))
    assert stored(uri) == []
    log.add(record(99))
    assert len(stored(uri)) == 100


def test_repair_writes_what_is_missing_and_completes_what_is_half_written(uri: str, tmp_path: Path) -> None:
    records = [record(number) for number in range(10)]
    log = started(uri, tmp_path)
    for trial in records[:5]:
        log.add(trial)
    log.flush()
    parent, children = runs(uri)
    client = MlflowClient(tracking_uri=uri)
    client.update_run(children[0].info.run_id, status="RUNNING")  # as if killed before the run was ended
    tags = {**children[1].data.tags, "diffsift.trial_uid": "uid-7", "mlflow.runName": "trial 7"}
    client.create_run(parent.info.experiment_id, tags=tags)  # killed before anything was logged
    log = started(uri, tmp_path)
    for _ in range(2):
        log.repair(records)
        assert stored(uri) == wanted(records)
        assert stored_scores(uri, "horses") == {trial.uid: trial.score for trial in records}
    steps = [point.step for point in client.get_metric_history(parent.info.run_id, "score")]
    assert sorted(steps) == list(range(10))


def test_repair_keeps_one_of_twins_and_drops_what_the_study_lost(uri: str, tmp_path: Path) -> None:
    log = started(uri, tmp_path)
    for number in range(3):
        log.add(record(number))
    log.flush()
    _, children = runs(uri)
    client = MlflowClient(tracking_uri=uri)
    twin = next(run for run in children if run.data.tags["diffsift.trial_uid"] == "uid-1")
    client.create_run(twin.info.experiment_id, tags=twin.data.tags)
    log = started(uri, tmp_path)
    log.repair([record(0), record(1)])
    assert stored(uri) == wanted([record(0), record(1)])


@pytest.mark.parametrize("child_runs", [0, 4])
def test_beyond_the_limit_only_improvements_have_a_child_run(uri: str, tmp_path: Path, child_runs: int) -> None:
    scores = [0.3, 0.2, 0.4, 0.1, 0.35, 0.5, 0.45, 0.6]
    records = [record(number, score) for number, score in enumerate(scores)]
    log = started(uri, tmp_path, child_runs=child_runs)
    for trial in records[:6]:
        log.add(trial)
        log.flush()
    expected = {0, 2, 5, 7} | set(range(child_runs))
    log = started(uri, tmp_path, child_runs=child_runs)
    for _ in range(2):
        log.repair(records)
        assert stored(uri) == wanted([trial for trial in records if trial.number in expected])
        assert stored_scores(uri, "horses") == {trial.uid: trial.score for trial in records}


def test_parameters_that_changed_are_tags(uri: str, tmp_path: Path) -> None:
    started(uri, tmp_path).interrupt()
    assert runs(uri)[0].info.status == "KILLED"
    MlflowLogger(uri, tmp_path / "artifacts", "horses").start({**PARAMETERS, "timesteps": [50], "trials": 300}, DATASET)
    parent, _ = runs(uri)
    assert parent.info.status == "RUNNING"
    assert parent.data.params["trials"] == "300"
    assert parent.data.tags["changed.timesteps"] == "[50]"


def test_studies_with_quotes_in_their_names_are_kept_apart(uri: str, tmp_path: Path) -> None:
    for name in ("it's", 'say "a"', "it's"):
        MlflowLogger(uri, tmp_path / "artifacts", name).start({}, None)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("diffsift")
    assert experiment is not None
    assert sorted(str(run.info.run_name) for run in client.search_runs([experiment.experiment_id])) == [
        "it's",
        'say "a"',
    ]


def test_finish_logs_the_table_and_files(uri: str, tmp_path: Path) -> None:
    records = [record(number) for number in range(4)]
    log = started(uri, tmp_path)
    log.add(records[0])
    report = tmp_path / "report.html"
    report.write_text("<p>report</p>")
    log.finish(outcome(records), [report])
    assert log.failures == 0
    parent, _ = runs(uri)
    assert parent.info.status == "FINISHED"
    assert stored(uri) == wanted(records)
    assert parent.data.metrics["test/found"] == 0.25
    assert parent.data.metrics["test/raw pixels _5 x 5_"] == 0.07
    assert parent.data.tags["diffsift.verdict"] == "Better. Use it."
    client = MlflowClient(tracking_uri=uri)
    assert {entry.path for entry in client.list_artifacts(parent.info.run_id)} == {
        "trials.csv",
        "front.json",
        "report.html",
    }
    front = json.loads(Path(client.download_artifacts(parent.info.run_id, "front.json")).read_text())
    assert front["score_against"] == ["channels"]
    assert [(point["trial"], point["operations"]) for point in front["points"]] == [(3, 0.25)]
    child = next(run for run in runs(uri)[1] if run.data.tags["diffsift.trial_uid"] == "uid-3")
    assert child.data.metrics["operations"] == 0.25
    table = Path(client.download_artifacts(parent.info.run_id, "trials.csv")).read_text()
    assert len(table.splitlines()) == 5


def test_a_store_that_breaks_is_warned_of_once_and_repaired_later(uri: str, tmp_path: Path) -> None:
    recorder = Recorder()
    log = started(uri, tmp_path, reporter=recorder)
    database = tmp_path / "mlflow.db"
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE runs RENAME TO runs_away")
    log.add(record(0))
    log.flush()
    log.add(record(1))
    log.flush()
    assert log.failures == 2
    (message,) = recorder.lines
    assert "'diffsift resume horses'" in message
    with sqlite3.connect(database) as connection:
        connection.execute("ALTER TABLE runs_away RENAME TO runs")
    connection.close()
    log.flush()
    assert stored(uri) == wanted([record(0), record(1)])


def test_a_store_that_cannot_be_opened_is_refused_at_once(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database at all, but long enough to look at. " * 40)
    with pytest.raises(StudyError, match=r"MLflow store .*notes\.txt is not an SQLite database"):
        MlflowLogger(f"sqlite:///{file}", tmp_path, "horses").start({}, None)
    with pytest.raises(StudyError, match=r"MLflow store .*mlflow\.db cannot be made"):
        MlflowLogger(f"sqlite:///{file}/mlflow.db", tmp_path, "horses").start({}, None)
    with pytest.raises(StudyError, match="must be a database or server"):
        MlflowLogger("nonsense", tmp_path, "horses").start({}, None)


def test_a_store_that_was_left_half_made_is_made_anew(uri: str, tmp_path: Path) -> None:
    """As a process that is killed among MLflow's migrations leaves it, while it holds no run."""
    change(uri, "UPDATE alembic_version SET version_num = 'earlier'")
    change(uri, "CREATE TABLE _alembic_tmp_latest_metrics (a int)")
    log = started(uri, tmp_path)
    log.repair([record(0)])
    assert stored(uri) == wanted([record(0)])
    assert len(list(tmp_path.glob("*.half-made"))) == 1


def test_a_store_of_another_mlflow_with_runs_is_left_alone_and_named(uri: str, tmp_path: Path) -> None:
    started(uri, tmp_path).repair([record(0)])
    change(uri, "UPDATE alembic_version SET version_num = 'earlier'")
    with pytest.raises(StudyError, match=r"MLflow store .*'mlflow db upgrade' .* 'diffsift resume' writes its trials"):
        started(uri, tmp_path)
    assert not list(tmp_path.glob("*.half-made"))


def change(uri: str, statement: str) -> None:
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(statement)


def test_serve_needs_a_free_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StudyError, match="must be free"):
            serve(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path, taken.getsockname()[1])
