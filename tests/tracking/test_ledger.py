from __future__ import annotations

import dataclasses
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import pytest
from sqlalchemy import Engine, event, inspect, text
from support import ROOT, planted

from diffsift.common.process import Process
from diffsift.errors import StudyError
from diffsift.spaces import Candidate, Selection
from diffsift.tracking import ActivationDecision, ClaimStatus, Evaluation, Ledger, open_database

IDENTITY = {"model": {"id": "demo"}, "timesteps": [50, 100], "seed": 0}
SELECTION = Selection.of({Candidate("main", "mid-vit-out", 50): 1.0, Candidate("main", "up-vit-out", 100): 0.5})
EVALUATION = Evaluation(SELECTION, 0.25, (0.2, 0.3), 192, 0.01)
DECISION = ActivationDecision("mid-vit-out", "vit-out", "mid", None, 7, 128, 4, True, "kept")

HOLD_LOCK = """
import sys, time
from diffsift.tracking import Ledger, open_database
with Ledger(open_database(sys.argv[1])).exclusive("horses"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'folder' / 'studies.db'}"


@pytest.fixture
def engine(url: str) -> Iterator[Engine]:
    engine = open_database(url)
    yield engine
    engine.dispose()


@pytest.fixture
def ledger(engine: Engine) -> Ledger:
    ledger = Ledger(engine)
    ledger.create_study("horses", IDENTITY, {"trials": 100}, [["main", "mid-vit-out", 50]])
    return ledger


def test_a_study_reads_back_as_it_was_made(ledger: Ledger) -> None:
    row = ledger.study("horses")
    assert row is not None
    assert (row.identity, row.runtime, row.pool) == (IDENTITY, {"trials": 100}, [["main", "mid-vit-out", 50]])
    assert abs(datetime.now(UTC) - row.created) < timedelta(minutes=1)
    ledger.set_runtime("horses", {"trials": 300})
    assert [study.runtime for study in ledger.studies()] == [{"trials": 300}]
    assert ledger.study("cows") is None


def test_a_study_cannot_be_made_twice_and_an_unknown_one_is_named(ledger: Ledger) -> None:
    with pytest.raises(StudyError, match="there is already a study"):
        ledger.create_study("horses", {}, {}, [])
    with pytest.raises(StudyError, match="no study 'horse'; did you mean 'horses'"):
        ledger.evaluations("horse")


def test_identity_names_every_differing_field(ledger: Ledger) -> None:
    ledger.check_identity("horses", {**IDENTITY, "timesteps": (50, 100)})  # a tuple is a list in JSON
    with pytest.raises(StudyError) as caught:
        ledger.check_identity("horses", {"model": {"id": "other"}, "timesteps": [50], "seed": 0, "probe": "ridge"})
    assert str(caught.value) == (
        "study 'horses' was made with model.id='demo', probe=(not set), timesteps=[50, 100], but got model.id='other', "
        "probe='ridge', timesteps=[50]: identity fields cannot change; give the study another name (study.name) to "
        "start a new one."
    )


def test_a_selection_is_scored_once(ledger: Ledger) -> None:
    assert ledger.evaluation("horses", SELECTION) is None
    ledger.record_evaluation("horses", EVALUATION)
    ledger.record_evaluation("horses", Evaluation(SELECTION, 0.99, (0.9,), 1, 9.0))
    found = ledger.evaluation("horses", SELECTION)
    assert found is not None
    assert (found.selection, found.score, found.fold_scores) == (SELECTION, 0.25, (0.2, 0.3))
    assert ledger.evaluations("horses") == [found]
    ledger.create_study("cows", IDENTITY, {}, [])
    assert ledger.evaluation("cows", SELECTION) is None


def test_a_score_must_be_finite(ledger: Ledger) -> None:
    with pytest.raises(StudyError, match="must be finite"):
        ledger.record_evaluation("horses", Evaluation(SELECTION, float("nan"), (0.1,), 1, 0.1))


def test_what_elimination_cost_is_remembered(ledger: Ledger) -> None:
    assert ledger.elimination("horses") is None
    ledger.record_elimination("horses", SELECTION, 57)
    found = ledger.elimination("horses")
    assert found is not None
    assert (found.selection, found.solves) == (SELECTION, 57)
    assert ledger.evaluated("horses") == 0
    with pytest.raises(StudyError, match="there is no study 'horse'"):
        ledger.elimination("horse")


def test_decisions_openings_and_outcome(ledger: Ledger) -> None:
    ledger.record_decisions("horses", [DECISION, DECISION])
    ledger.record_decisions("horses", [DECISION])
    assert ledger.decisions("horses") == [DECISION]
    ledger.open_test_split("horses", ["found", "raw pixels"])
    ledger.open_test_split("horses", ["found"])
    openings = ledger.openings("horses")
    assert [opening.rows for opening in openings] == [("found", "raw pixels"), ("found",)]
    assert openings[0].opened.tzinfo is not None
    assert ledger.outcome("horses") is None
    ledger.record_outcome("horses", {"verdict": "a"})
    ledger.record_outcome("horses", {"verdict": "b"})
    assert ledger.outcome("horses") == {"verdict": "b"}


def test_lock_is_released_also_on_an_exception_and_refuses_a_second_holder(ledger: Ledger) -> None:
    with ledger.exclusive("horses"), pytest.raises(StudyError, match=rf"process {os.getpid()} on host"):
        ledger.exclusive("horses").__enter__()
    with pytest.raises(ZeroDivisionError), ledger.exclusive("horses"):
        raise ZeroDivisionError
    with ledger.exclusive("horses"), ledger.exclusive("cows"):
        pass


def test_lock_of_a_killed_process_is_taken_over(url: str, ledger: Ledger) -> None:
    process = subprocess.Popen([sys.executable, "-c", HOLD_LOCK, url], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        with pytest.raises(StudyError, match=f"searched by process {process.pid} on host {socket.gethostname()}"):
            ledger.exclusive("horses").__enter__()
        process.send_signal(signal.SIGKILL)
        process.wait()
        with ledger.exclusive("horses"), pytest.raises(StudyError, match=f"process {os.getpid()}"):
            ledger.exclusive("horses").__enter__()
    finally:
        process.kill()
        process.communicate()


def test_lock_of_a_process_whose_number_was_given_anew_is_taken_over(engine: Engine, ledger: Ledger) -> None:
    with ledger.exclusive("horses"):
        with engine.begin() as connection:
            connection.execute(text("UPDATE diffsift_holder SET started = started || '0'"))
        with ledger.exclusive("horses"):
            pass


def test_lock_of_another_host_stands_while_that_one_gives_signs_of_life(
    engine: Engine, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffsift.tracking._lease.BEAT", 0.05)
    monkeypatch.setattr("diffsift.tracking._lock.BEAT", 0.05)
    with ledger.exclusive("horses"):
        with engine.begin() as connection:
            connection.execute(text("UPDATE diffsift_holder SET host = 'elsewhere', pid = 1"))
        with pytest.raises(StudyError, match="on host elsewhere since"):
            ledger.exclusive("horses").__enter__()


def test_lock_of_another_host_that_gives_no_sign_of_life_is_taken_over(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the process that lost it does not open the test split, should it go on one day."""
    notes: list[str] = []
    first, second = Ledger(engine), Ledger(engine, notes.append)
    first.create_study("horses", IDENTITY, {}, [])
    with first.exclusive("horses"):
        with engine.begin() as connection:
            connection.execute(text("UPDATE diffsift_holder SET host = 'elsewhere', pid = 1"))
        monkeypatch.setattr("diffsift.tracking._lease.LEASE", 0.2)
        monkeypatch.setattr("diffsift.tracking._lock.BEAT", 0.05)
        with second.exclusive("horses"):
            with pytest.raises(StudyError, match="another one took it over"):
                first.open_test_split("horses", ["found"])
            second.open_test_split("horses", ["found"])
    assert len(second.openings("horses")) == 1
    assert len(notes) == 1
    assert "process 1 on host elsewhere" in notes[0]


def test_unlock_frees_a_study_of_other_hosts_and_not_of_living_processes_here(engine: Engine, ledger: Ledger) -> None:
    with ledger.exclusive("horses"), ledger.claims("horses") as claims:
        claims.claim(SELECTION, 5)
        assert ledger.unlock("horses") == []
        assert claims.claim(SELECTION, 5).status is ClaimStatus.GRANTED
        with engine.begin() as connection:
            connection.execute(text("UPDATE diffsift_holder SET host = 'elsewhere', pid = 1"))
        assert ledger.unlock("horses") == ["process 1 on host elsewhere"]
        assert ledger.unlock("horses") == []
        with ledger.exclusive("horses"):
            assert not claims.complete(EVALUATION)
    with pytest.raises(StudyError, match="there is no study 'cows'"):
        ledger.unlock("cows")


@pytest.mark.skipif(sys.platform != "linux", reason="bind mounts and /proc are Linux's")
def test_a_clock_that_is_set_does_not_make_a_living_process_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """psutil computes the time of a start from the clock; a process is not told by that."""
    process = Process.this()
    monkeypatch.setattr("psutil.Process.create_time", lambda _: 0.0)
    assert process.lives()
    assert Process.this() == process


@pytest.mark.skipif(sys.platform != "linux", reason="zombies are looked up in /proc")
def test_a_process_that_ended_but_was_not_collected_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = dataclasses.replace(
        Process.this(), pid=child.pid, started=re.sub(r"\d+$", start_ticks(child.pid), Process.this().started)
    )
    assert process.lives()
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.lives()
    child.communicate()
    assert not process.lives()


def start_ticks(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]


def test_a_process_of_another_boot_or_container_is_not_here() -> None:
    process = Process.this()
    boot, namespace, ticks = process.started.split("/")
    assert process.is_here
    assert not dataclasses.replace(process, started=f"{boot}/1/{ticks}").is_here
    assert not dataclasses.replace(process, started=f"another/{namespace}/{ticks}").is_here
    assert not dataclasses.replace(process, host="elsewhere").is_here


def test_sqlite_has_a_write_ahead_log_and_opening_again_changes_nothing(url: str, ledger: Ledger) -> None:
    again = open_database(url)
    with again.connect() as connection:
        assert connection.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert connection.execute(text("PRAGMA synchronous")).scalar() == 1
        assert connection.execute(text("PRAGMA busy_timeout")).scalar() == 30_000
        assert list(connection.execute(text('SELECT "schema" FROM diffsift_version'))) == [(4,)]
    assert [study.name for study in Ledger(again).studies()] == ["horses"]
    again.dispose()


def test_a_newer_schema_is_refused(url: str, engine: Engine) -> None:
    with engine.begin() as connection:
        connection.execute(text('UPDATE diffsift_version SET "schema" = 5'))
    with pytest.raises(StudyError, match=r"got schema 5.*upgrade diffsift"):
        open_database(url)


@pytest.fixture
def old_url(tmp_path: Path) -> str:
    return stored_study(tmp_path, 2)


def stored_study(folder: Path, schema: int) -> str:
    """A study of a schema: seven trials, a score whose process was killed before its trial, two claims left behind.

    Of schema 3 also a lock; locks and claims are of a host that is gone.
    """
    with sqlite3.connect(folder / "old.db") as connection:
        dump = ROOT / "tests" / "assets" / f"study_of_schema_{schema}.sql"
        connection.executescript(dump.read_text(encoding="utf-8"))
    connection.close()
    return f"sqlite:///{folder / 'old.db'}"


def tables(engine: Engine) -> set[str]:
    return {name for name in inspect(engine).get_table_names() if name.startswith("diffsift_")}


@pytest.mark.parametrize("schema", [1, 2])
def test_a_database_of_an_older_schema_is_brought_up_to_date(old_url: str, engine: Engine, schema: int) -> None:
    """Nothing is lost, nothing is repeated, and the diffsift that wrote it refuses it from then on."""
    with sqlite3.connect(old_url.removeprefix("sqlite:///")) as connection:
        before = connection.execute(
            "SELECT selection_key, score, channels, created FROM diffsift_evaluation"
        ).fetchall()
        if schema == 1:  # which had no tables of claims and eliminations
            connection.execute("DROP TABLE diffsift_claim")
            connection.execute("DROP TABLE diffsift_elimination")
            connection.execute('UPDATE diffsift_version SET "schema" = 1')
    connection.close()
    migrated = open_database(old_url)
    assert tables(migrated) == tables(engine)
    with migrated.connect() as connected:
        after = connected.execute(text("SELECT selection_key, score, channels, created FROM diffsift_selection")).all()
        assert sorted(map(tuple, after)) == sorted(before)
        assert list(connected.execute(text('SELECT "schema" FROM diffsift_version'))) == [(4,)]
    ledger = Ledger(migrated)
    assert ledger.elimination("planted") is None
    assert len(ledger.evaluations("planted")) == ledger.evaluated("planted") == 8
    open_database(old_url).dispose()
    assert ledger.evaluated("planted") == 8
    migrated.dispose()


def test_a_database_of_schema_3_loses_the_locks_and_claims_of_processes_that_ended(tmp_path: Path) -> None:
    url = stored_study(tmp_path, 3)
    with sqlite3.connect(tmp_path / "old.db") as connection:
        before = connection.execute("SELECT selection_key, score FROM diffsift_selection WHERE score > 0").fetchall()
        assert connection.execute("SELECT count(*) FROM diffsift_lock").fetchall() == [(1,)]
    connection.close()
    migrated = open_database(url)
    ledger = Ledger(migrated)
    assert [(entry.selection.key, entry.score) for entry in ledger.evaluations("planted")] == before
    with ledger.exclusive("planted"), ledger.claims("planted") as claims:
        assert claims.others() == []
        assert claims.claim(SELECTION, 9).status is ClaimStatus.GRANTED
        assert claims.complete(EVALUATION)
    assert ledger.evaluated("planted") == 9
    migrated.dispose()


@pytest.mark.parametrize("table", ["diffsift_lock", "diffsift_selection"])
def test_a_database_of_schema_3_whose_process_lives_is_left_alone(tmp_path: Path, table: str) -> None:
    url = stored_study(tmp_path, 3)
    values = (socket.gethostname(), os.getpid(), psutil.Process().create_time())
    with sqlite3.connect(tmp_path / "old.db") as connection:
        connection.execute(f"UPDATE {table} SET host = ?, pid = ?, process_started = ?", values)
    connection.close()
    with pytest.raises(StudyError, match=f"process {os.getpid()} must have ended"):
        open_database(url)


@pytest.mark.parametrize("schema", [2, 3])
def test_a_study_of_an_older_schema_resumes(tmp_path: Path, schema: int) -> None:
    old_url = stored_study(tmp_path, schema)
    earlier = {entry.selection for entry in Ledger(open_database(old_url)).evaluations("planted")}
    store, probe = planted.store(old_url), planted.SyntheticProbe()
    assert len(store.records()) == 7
    planted.search(store, probe, 20)
    selections = [record.selection for record in store.records()]
    assert len(set(selections)) == len(selections) == 20
    assert set(selections) >= earlier
    assert len(probe.scored) == 12  # the score without a trial is used


def test_a_database_that_an_older_diffsift_still_writes_is_left_alone(old_url: str) -> None:
    process = Process.this()
    with sqlite3.connect(old_url.removeprefix("sqlite:///")) as connection:
        values = (process.host, process.pid, psutil.Process().create_time())
        connection.execute("UPDATE diffsift_claim SET host = ?, pid = ?, process_started = ?", values)
    with pytest.raises(StudyError, match=f"process {os.getpid()} must have ended"):
        open_database(old_url)
    with sqlite3.connect(old_url.removeprefix("sqlite:///")) as connection:
        assert connection.execute("SELECT count(*) FROM diffsift_claim").fetchall() == [(2,)]
        assert connection.execute('SELECT "schema" FROM diffsift_version').fetchall() == [(2,)]
    connection.close()


def test_a_file_that_is_not_a_database_is_named(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("not a database at all, but long enough to look at. " * 40)
    with pytest.raises(StudyError, match=r"notes\.txt is not an SQLite database"):
        open_database(f"sqlite:///{file}")
    with pytest.raises(StudyError, match=r"studies\.db cannot be made"):
        open_database(f"sqlite:///{file}/studies.db")


def test_a_read_only_database_is_named(tmp_path: Path, url: str, engine: Engine) -> None:
    engine.dispose()
    file = tmp_path / "folder" / "studies.db"
    with pytest.raises(StudyError, match=r"studies\.db.* is read-only"):
        open_database(f"sqlite:///file:{file}?mode=ro&uri=true")
    if os.geteuid() != 0:  # the superuser may write everything
        file.chmod(0o400)
        with pytest.raises(StudyError, match=r"studies\.db is read-only"):
            open_database(url)


def test_a_full_disk_is_named_and_leaves_what_was_written(engine: Engine, ledger: Ledger) -> None:
    ledger.record_evaluation("horses", EVALUATION)

    @event.listens_for(engine, "connect")
    def _no_more_pages(connection: object, _record: object) -> None:
        connection.execute("PRAGMA max_page_count = 1")  # type: ignore[attr-defined]

    engine.dispose()
    with pytest.raises(StudyError, match=r"studies\.db has no room: the disk is full"):
        ledger.create_study("big", {"text": "x" * 100_000}, {}, [])
    assert len(ledger.evaluations("horses")) == 1


def test_a_url_that_cannot_be_understood(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="must be an SQLAlchemy URL"):
        open_database(str(tmp_path / "studies.db"))
