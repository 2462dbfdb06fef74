"""Studies on a PostgreSQL server that restarts, and that cuts connections."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import optuna
import pytest
from optuna.trial import TrialState
from support import ROOT, planted, postgresql
from support.postgresql import Server

from diffsift.errors import StudyError
from diffsift.tracking import Ledger, _retry, open_database

REASON = postgresql.missing()
pytestmark = pytest.mark.skipif(REASON is not None, reason=str(REASON))

WORKER = """
import sys, time
sys.path.insert(0, sys.argv[1])
from support import planted
from diffsift.common.reporting import ConsoleReporter

class SlowProbe(planted.SyntheticProbe):
    def score(self, selection):
        time.sleep(0.01)
        return super().score(selection)

print("ready", flush=True)
planted.search(planted.store(sys.argv[2]), SlowProbe(), 150, stream=int(sys.argv[3]), has_peers=True)
"""


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.remove()


def test_restarts_and_cut_connections_are_survived_and_the_numbers_stay_exact(server: Server) -> None:
    planted.store(server.url)
    command = [sys.executable, "-c", WORKER, str(ROOT / "tests"), server.url]
    workers = [
        subprocess.Popen([*command, str(stream)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for stream in (1, 2)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "ready\n"
        cuts = 0
        for disturbance in ("cut", "fast", "cut", "immediate", "cut"):
            wait_for_trials(server.url, 8)
            if disturbance == "cut":
                cuts += server.cut()
            else:
                server.stop(disturbance)
                time.sleep(1)
                server.start()
        assert cuts > 0
        ended = [(worker.communicate(timeout=120)[1], worker.returncode) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [code for _, code in ended] == [0, 0], ended
    assert any("the study database answers again" in said for said, _ in ended)
    trials = optuna.load_study(study_name=planted.STUDY, storage=server.url).get_trials(deepcopy=False)
    assert Counter(trial.state for trial in trials) == {TrialState.COMPLETE: 150}
    records = planted.store(server.url).records()
    assert len({record.selection for record in records}) == 150
    with Ledger(open_database(server.url)) as ledger, ledger.claims(planted.STUDY) as claims:
        assert claims.others() == []
        assert {entry.selection for entry in ledger.evaluations(planted.STUDY)} == {
            record.selection for record in records
        }


def wait_for_trials(url: str, more: int) -> None:
    """Until the workers have finished some more."""
    with Ledger(open_database(url)) as ledger:
        goal = ledger.evaluated(planted.STUDY) + more
        ends = time.monotonic() + 60
        while ledger.evaluated(planted.STUDY) < goal:
            assert time.monotonic() < ends
            time.sleep(0.05)


def test_a_server_that_stays_away_is_waited_for_no_longer_than_promised(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_retry, "PATIENCE", 0.5)
    notes: list[str] = []
    with Ledger(open_database(server.url), notes.append) as ledger:
        ledger.create_study("horses", {}, {}, [])
        server.stop()
        started = time.monotonic()
        with pytest.raises(StudyError, match=r"study database postgresql.* failed"):
            ledger.studies()
        assert time.monotonic() - started < 10
        assert len(notes) == 1
        assert "does not answer" in notes[0]
        threading.Timer(0.2, server.start).start()
        monkeypatch.setattr(_retry, "PATIENCE", 60)
        assert [study.name for study in ledger.studies()] == ["horses"]
        assert "answers again" in notes[-1]


def test_a_server_that_is_not_there_is_refused_soon(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffsift.tracking._database.AT_START", 1.0)
    server.stop()
    started = time.monotonic()
    try:
        with pytest.raises(StudyError, match=r"study database postgresql.* failed"):
            open_database(server.url)
        assert time.monotonic() - started < 10
    finally:
        server.start()


def test_a_user_that_the_server_does_not_know_is_refused_at_once(server: Server) -> None:
    started = time.monotonic()
    with pytest.raises(StudyError, match=r"study database .*does not exist"):
        open_database(server.url.replace("sift@", "nobody@"))
    assert time.monotonic() - started < 5


def test_processes_that_open_a_new_database_together_all_succeed(server: Server) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from support import planted
planted.STUDY = sys.argv[1]
input()
planted.search(planted.store({server.url!r}), planted.SyntheticProbe(), 3)
"""
    started = [
        subprocess.Popen([sys.executable, "-c", code, f"study{number}"], stdin=subprocess.PIPE) for number in range(3)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
    assert [process.wait(120) for process in started] == [0, 0, 0]
