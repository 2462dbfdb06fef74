"""What a search owes its user: stores are refused before the bank, passwords stay secret, the test split opens once."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
from pathlib import Path
from typing import Any

import optuna
import pytest
from support import tiny
from support.reporters import Recorder

import diffsift
from diffsift import Specification
from diffsift.common.workspace import Workspace, sqlite_url
from diffsift.errors import SpecificationError, StudyError
from diffsift.runs import outputs, workers
from diffsift.runs.compare import compare
from diffsift.runs.pick import front_of, pick
from diffsift.runs.plan import plan
from diffsift.runs.report import report_again
from diffsift.runs.status import study_statuses
from diffsift.study_store import StudyStore

SECRET = "s3cretPW"
SMALL: dict[str, Any] = {"timesteps": [50], "filters": {"keep": ["up-level1-*"]}}


@pytest.fixture(scope="module")
def finished(tiny_pipeline: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder with a workspace, whose one study has ended, and its result. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    values = tiny.specification(tiny_pipeline, tiny_data, study={"trials": 3}, tracking={"mlflow": True}, **SMALL)
    return folder, diffsift.select(values, workspace=folder / "ws", out=folder / "found.json")


def copied(finished: tuple[Path, Any], folder: Path) -> Path:
    shutil.copytree(finished[0], folder)
    return folder / "ws"


def openings(workspace: Path) -> int:
    with StudyStore.existing(workspace) as store:
        return len(store.ledger.openings("tiny"))


def small(pipeline: Path, data: Path, **changes: Any) -> dict[str, Any]:
    return tiny.specification(pipeline, data, **{**SMALL, **changes})


def rows(workspace: Path) -> list[int]:
    """Trials in each table of trials in MLflow's artifacts."""
    return [len(file.read_text().splitlines()) - 1 for file in sorted(workspace.rglob("trials.csv"))]


def test_a_copied_workspace_keeps_to_itself(finished: tuple[Path, Any], tmp_path: Path) -> None:
    first, second = copied(finished, tmp_path / "a"), copied(finished, tmp_path / "b ü%41?")
    diffsift.resume("tiny", workspace=second, trials=5, out=tmp_path / "b.json")
    assert (rows(first), rows(second), rows(finished[0])) == ([3], [5], [3])
    moved = second.rename(tmp_path / "moved")
    diffsift.resume("tiny", workspace=moved, trials=6, out=tmp_path / "b.json")
    assert rows(moved) == [6]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("a", "b ü%41?", "b.html", "b.json", "b.safetensors", "moved"),
    ]
    assert [path.name for path in (tmp_path / "b ü%41?").iterdir() if path.name == "ws"] == []


def test_nothing_new_opens_nothing_and_writes_the_same_files(finished: tuple[Path, Any], tmp_path: Path) -> None:
    workspace, recorder = copied(finished, tmp_path / "a"), Recorder()
    before = openings(workspace)
    again = diffsift.resume("tiny", workspace=workspace, out=tmp_path / "again.json", reporter=recorder)
    assert openings(workspace) == before == 1
    assert any("the test split stays closed" in line for line in recorder.lines)
    assert again.outcome == finished[1].outcome
    assert (tmp_path / "again.html").read_bytes() == (finished[0] / "found.html").read_bytes()
    assert (tmp_path / "again.safetensors").read_bytes() == (finished[0] / "found.safetensors").read_bytes()
    diffsift.resume("tiny", workspace=workspace, trials=4, out=tmp_path / "again.json")
    assert openings(workspace) == 2


def test_a_report_is_written_again_without_a_test(finished: tuple[Path, Any], tmp_path: Path) -> None:
    workspace = copied(finished, tmp_path / "a")
    report_again("tiny", workspace=workspace, out=tmp_path / "again.html")
    assert (tmp_path / "again.html").read_bytes() == (finished[0] / "found.html").read_bytes()
    assert openings(workspace) == 1
    results = Workspace.at(workspace).results("tiny")
    results.write_bytes(results.read_bytes()[:-1])
    with pytest.raises(StudyError, match=r"tiny\.npz must be those that the study recorded"):
        report_again("tiny", workspace=workspace, out=tmp_path / "again.html")


def test_a_study_of_an_older_version_has_the_report_that_was_kept(finished: tuple[Path, Any], tmp_path: Path) -> None:
    workspace = copied(finished, tmp_path / "a")
    with StudyStore.existing(workspace) as store:
        recorded = store.ledger.outcome("tiny")
        assert recorded is not None
        store.ledger.record_outcome("tiny", {key: value for key, value in recorded.items() if key != "results"})
    with pytest.raises(StudyError, match="must have ended before it has a report"):
        report_again("tiny", workspace=workspace, out=tmp_path / "again.html")
    stored = Workspace.at(workspace).report("tiny")
    stored.parent.mkdir()
    stored.write_text("kept")
    assert report_again("tiny", workspace=workspace, out=tmp_path / "again.html").read_text() == "kept"


def test_the_test_split_stays_closed_where_its_results_could_not_be_written(
    finished: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copied(finished, tmp_path / "a")

    def full(folder: Path, size: int) -> Any:
        raise OSError(28, "No space left on device", str(folder))

    monkeypatch.setattr(outputs, "reserved", full)
    with pytest.raises(
        StudyError, match=r"need \d+\.\d MB in .*: No space left on device\. The test split was not opened"
    ):
        diffsift.resume("tiny", workspace=workspace, trials=4, out=tmp_path / "again.json")
    assert openings(workspace) == 1
    monkeypatch.undo()
    (tmp_path / "taken").write_text("a file where a folder is needed")
    with pytest.raises(StudyError, match="The test split was not opened"):
        diffsift.resume("tiny", workspace=workspace, trials=4, out=tmp_path / "taken" / "again.json")
    assert openings(workspace) == 1
    assert not list(tmp_path.rglob(".diffsift-*"))


def test_results_outlive_files_that_cannot_be_written(
    finished: tuple[Path, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = copied(finished, tmp_path / "a")

    def fails(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("diffsift.runs.prepare.save_selection", fails)
        with pytest.raises(StudyError, match="writes it without another test"):
            diffsift.resume("tiny", workspace=workspace, trials=4, out=tmp_path / "again.json")
    assert openings(workspace) == 2
    diffsift.resume("tiny", workspace=workspace, out=tmp_path / "again.json")
    assert openings(workspace) == 2
    assert len(json.loads((tmp_path / "again.json").read_text())["members"]) > 0


def test_commands_that_read_write_nothing(finished: tuple[Path, Any], tmp_path: Path) -> None:
    workspace = copied(finished, tmp_path / "a")
    before = {file: file.read_bytes() for file in workspace.rglob("*") if file.is_file()}
    assert study_statuses(workspace=workspace)[0].evaluated == 3
    assert front_of("tiny", workspace=workspace)
    pick("tiny", passes=1, workspace=workspace, out=tmp_path / "picked.json")
    with pytest.raises(StudyError, match="no study is named 'other'"):
        compare(["tiny", "other"], workspace=workspace)
    changed = [file.name for file in workspace.rglob("*") if file.is_file() and before.get(file) != file.read_bytes()]
    assert changed == []


@pytest.mark.parametrize(
    ("changes", "kind", "message"),
    [
        ({"tracking": {"mlflow": True, "uri": "./mlruns"}}, StudyError, "must be a database or server.*got './mlruns'"),
        ({"tracking": {"mlflow": True, "uri": "http://127.0.0.1:9"}}, StudyError, "must be reached, but it failed"),
        (
            {"tracking": {"mlflow": True, "uri": "mssql+nodriver://me:s3cretPW@db/tracks"}},
            StudyError,
            "must be a URL of an installed driver, but got mssql",
        ),
        (
            {"study": {"storage": "postgresql+nodriver://me:s3cretPW@db/studies"}},
            StudyError,
            "must be an SQLAlchemy URL of an installed driver",
        ),
    ],
)
def test_stores_that_cannot_be_used_are_refused_before_the_bank(
    tiny_pipeline: Path,
    tiny_data: Path,
    tmp_path: Path,
    changes: dict[str, Any],
    kind: type[Exception],
    message: str,
) -> None:
    values = small(tiny_pipeline, tiny_data, **changes)
    with pytest.raises(kind, match=message) as refusal:
        diffsift.select(values, workspace=tmp_path / "ws", out=tmp_path / "found.json")
    assert SECRET not in str(refusal.value)
    assert not (tmp_path / "ws" / "bank").exists()


def test_one_database_for_both_is_refused_before_anything_is_written(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    url = sqlite_url(tmp_path / "one.db")
    for storage, uri in ((url, url), (f"sqlite:///{tmp_path / 'x' / '..' / 'one.db'}", url)):
        values = small(tiny_pipeline, tiny_data, study={"storage": storage}, tracking={"mlflow": True, "uri": uri})
        for refused in (diffsift.select, lambda given, **options: plan(Specification.parse(given), **options)):
            with pytest.raises(SpecificationError, match=r"study\.storage and tracking\.uri must be two databases"):
                refused(values, workspace=tmp_path / "ws")
    assert list(tmp_path.iterdir()) == []


def test_studies_of_others_and_an_experiment_in_the_trash_are_refused_before_the_bank(
    finished: tuple[Path, Any], tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    workspace = Workspace.at(tmp_path / "ws")
    workspace.make()
    optuna.create_study(study_name="taken", storage=workspace.study_url)
    with pytest.raises(StudyError, match="must hold no Optuna study 'taken' that diffsift did not make"):
        diffsift.select(small(tiny_pipeline, tiny_data, study={"name": "taken"}), workspace=workspace.folder)
    tracks = copied(finished, tmp_path / "a") / "mlflow.db"
    values = small(tiny_pipeline, tiny_data, tracking={"mlflow": True, "uri": sqlite_url(tracks)})
    with pytest.raises(StudyError, match=r"must hold no other study 'tiny', but has one"):
        diffsift.select(values, workspace=workspace.folder)
    with sqlite3.connect(tracks) as connection:
        connection.execute("UPDATE experiments SET lifecycle_stage = 'deleted' WHERE name = 'diffsift'")
    connection.close()
    with pytest.raises(StudyError, match="must be active, but it is deleted: restore it"):
        diffsift.select(values, workspace=workspace.folder)
    assert not workspace.bank.exists()


def test_passwords_are_in_no_dump(tiny_pipeline: Path, tiny_data: Path) -> None:
    addresses = {
        "study": {"storage": f"postgresql+psycopg://me:{SECRET}@db/studies"},
        "tracking": {"mlflow": True, "uri": f"https://me:{SECRET}@mlflow.example"},
    }
    specification = Specification.parse(small(tiny_pipeline, tiny_data, **addresses))
    assert SECRET not in json.dumps(specification.model_dump(mode="json"))
    assert SECRET not in repr(specification)
    assert specification.model_dump(mode="json")["study"]["storage"] == "postgresql+psycopg://me@db/studies"
    assert SECRET in str(specification.with_runtime(trials=9).study.storage)  # what is connected to keeps it


def test_workers_get_the_database_from_the_environment(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    class Helper(subprocess.Popen[bytes]):
        def __init__(self, command: list[str], **options: Any) -> None:
            started.append((command, options["env"]))
            super().__init__(["true"])

    monkeypatch.setattr(workers.subprocess, "Popen", Helper)
    url = f"postgresql+psycopg://me:{SECRET}@db/studies"
    specification = Specification.parse(small(tiny_pipeline, tiny_data, study={"workers": 2}))
    with workers.spawned_workers(specification, StudyStore(tmp_path, url), Recorder()):
        pass
    ((command, environment),) = started
    assert SECRET not in " ".join(command)
    assert environment["DIFFSIFT_STORAGE"] == url


def test_a_study_elsewhere_is_found_by_its_name(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "elsewhere.db")
    values = small(tiny_pipeline, tiny_data, study={"storage": url, "trials": 2})
    diffsift.select(values, workspace=tmp_path / "ws", out=tmp_path / "found.json")
    diffsift.resume("tiny", workspace=tmp_path / "ws", trials=3, out=tmp_path / "found.json")
    assert [entry.evaluated for entry in study_statuses(workspace=tmp_path / "ws")] == [3]
    assert not (tmp_path / "ws" / "studies.db").exists()
