"""A tracking server that dies or never answers, and what a study says to it: a search waits seconds, not minutes."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from mlflow import MlflowClient
from support.mlflow_store import stored_scores
from support.reporters import Recorder

from diffsift.common.workspace import sqlite_url
from diffsift.errors import StudyError
from diffsift.spaces import Candidate, Selection
from diffsift.tracking import MlflowLogger, TrialRecord
from diffsift.tracking._mlflow_runs import require_store

SECONDS = 30.0
"""What a server that does not answer may cost at most: MLflow's own client takes minutes. Ours take about ten."""


def record(number: int) -> TrialRecord:
    selection = Selection.of([Candidate("main", "mid-vit-out", number)])
    return TrialRecord(f"abc-{number}", number, selection, 0.1 + number, (0.1, 0.2), 192, 0.02, "random")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def server(port: int, store: Path) -> Iterator[subprocess.Popen[bytes]]:
    """MLflow's tracking server, ended with its workers."""
    command = [sys.executable, "-m", "mlflow", "server", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", sqlite_url(store), "--artifacts-destination", str(store.parent / "served")]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert time.monotonic() < deadline, "the server did not start"
            time.sleep(0.2)
        yield process
    finally:
        kill(process)


def kill(process: subprocess.Popen[bytes]) -> None:
    import os

    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_server_that_dies_delays_a_search_by_seconds_and_gets_the_rest_later(
    empty_store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "mlflow.db"
    store.write_bytes(empty_store.read_bytes())
    port, recorder = free_port(), Recorder()
    address = f"http://127.0.0.1:{port}"
    records = [record(number) for number in range(4)]
    with server(port, store) as process:
        log = MlflowLogger(address, tmp_path / "unused", "horses", uid="abc", reporter=recorder)
        log.start({}, None)
        log.repair([])
        log.add(records[0])
        log.flush()
        assert stored_scores(address, "horses") == {"abc-0": 0.1}
        kill(process)
        started = time.monotonic()
        log.add(records[1])
        log.flush()
        assert time.monotonic() - started < SECONDS
        assert "'diffsift resume horses' writes the missing trials" in recorder.lines[0]
        log.add(records[2])
        log.interrupt()
        assert time.monotonic() - started < 2 * SECONDS
    with server(port, store):
        again = MlflowLogger(address, tmp_path / "unused", "horses", uid="abc")
        again.start({}, None)
        again.repair(records)
        assert stored_scores(address, "horses") == {entry.uid: entry.score for entry in records}
        again.flush()
        parent = MlflowClient(address).search_runs(["1"], "tags.`diffsift.role` = 'study'")[0]
        MlflowClient(address).delete_run(parent.info.run_id)  # as somebody may do in its user interface
        third = MlflowLogger(address, tmp_path / "unused", "horses", uid="abc")
        third.start({}, None)
        third.repair(records)
        assert stored_scores(address, "horses") == {entry.uid: entry.score for entry in records}
        children = MlflowClient(address).search_runs(["1"], "tags.`diffsift.role` = 'trial'")
        assert len(children) == 4
        assert {run.data.tags["mlflow.parentRunId"] for run in children} == {third._parent}
        with pytest.raises(StudyError, match="must hold no other study 'horses'"):
            require_store(address, tmp_path / "unused", "horses", "")
        require_store(address, tmp_path / "unused", "horses", "abc")
        require_store(address, tmp_path / "unused", "cats", "")
    assert capsys.readouterr().out == ""


def test_a_server_that_is_not_there_is_refused_at_once(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(StudyError, match=r"MLflow store http://127\.0\.0\.1:\d+ must be reached, but it failed"):
        require_store(f"http://127.0.0.1:{free_port()}", tmp_path, "horses", "")
    assert time.monotonic() - started < SECONDS


def test_a_server_that_never_answers_is_refused_within_seconds(tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        started = time.monotonic()
        with pytest.raises(StudyError, match="must be reached, but it failed"):
            require_store(f"http://me:s3cret@127.0.0.1:{silent.getsockname()[1]}", tmp_path, "horses", "")
        assert time.monotonic() - started < SECONDS


def test_the_time_that_a_user_sets_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(16)
        started = time.monotonic()
        with pytest.raises(StudyError, match="read timeout=1"):
            require_store(f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path, "horses", "")
        assert time.monotonic() - started < 5
