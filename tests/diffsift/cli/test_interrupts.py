"""Signals: a search that is told to stop does so in seconds, in good order, and says how it is continued."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import text
from support import tiny
from support.commands import write

from diffsift.tracking import Ledger, open_database

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")

PROGRAM = """
import hashlib, sys, time
import typer
from diffsift.cli.interrupts import interruptible

def main():
    with interruptible("horses"):
        try:
            print("ready", flush=True)
            if sys.argv[1] == "computes":  # away from Python for much longer than the test
                hashlib.pbkdf2_hmac("sha256", b"", b"", 2**31 - 1)
            else:
                time.sleep(60)
        finally:
            print("ended in good order", flush=True)
            if sys.argv[1] == "lingers":
                time.sleep(60)

app = typer.Typer()
app.command()(main)
app([])
"""
CONTINUE = (
    "Stopped; what is finished is stored. Continue with the same command, or once there are trials with: "
    "diffsift resume horses"
)


def started(mode: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, mode], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_in_good_order_and_says_how_to_go_on(number: signal.Signals) -> None:
    process = started("waits")
    process.send_signal(number)
    out, said = process.communicate(timeout=10)
    assert out == "ended in good order\n"
    assert said.strip() == CONTINUE
    assert process.returncode == 128 + number


@pytest.mark.parametrize("mode", ["computes", "lingers"])
def test_the_prompt_is_back_within_three_seconds_whatever_is_being_done(mode: str) -> None:
    process = started(mode)
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=20)
    assert time.monotonic() - sent < 3.5  # some of it is the test's own machine
    assert said.strip() == CONTINUE
    assert process.returncode == 130


def test_a_second_signal_ends_at_once() -> None:
    process = started("lingers")
    process.send_signal(signal.SIGTERM)
    assert process.stdout is not None
    assert process.stdout.readline() == "ended in good order\n"
    sent = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert CONTINUE in process.communicate(timeout=10)[1]
    assert time.monotonic() - sent < 2
    assert process.returncode == 130


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup leaves it to its command
    try:
        process = started("waits")
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 143


def test_a_search_with_workers_that_is_terminated_leaves_no_lock_no_claim_and_no_process(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    study = {"name": "horses", "trials": 100_000, "workers": 2}
    values = tiny.specification(tiny_pipeline, tiny_data, study=study)
    command = ["search", write(tmp_path / "horses.yaml", values), "--workspace", tmp_path / "workspace"]
    log = tmp_path / "log"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "diffsift", *map(str, command)], stdout=output, stderr=output, cwd=tmp_path
        )
    try:
        url = f"sqlite:///{tmp_path / 'workspace' / 'studies.db'}"
        ends = time.monotonic() + 150
        while "2 processes" not in log.read_text() or not trials(url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < ends
            time.sleep(0.2)
        worker = int(log.read_text().partition("2 processes: this one and ")[2].split()[0])
        sent = time.monotonic()
        process.terminate()
        assert process.wait(20) == 143
        assert time.monotonic() - sent < 6
    finally:
        process.kill()
    assert "diffsift resume horses" in log.read_text()
    with pytest.raises(ProcessLookupError):
        os.kill(worker, 0)
    engine = open_database(url)
    with engine.connect() as connection:
        for query in ("diffsift_lock", "diffsift_holder", "diffsift_selection WHERE score IS NULL"):
            assert connection.execute(text(f"SELECT count(*) FROM {query}")).scalar() == 0, query
    engine.dispose()


def trials(url: str) -> int:
    with Ledger(open_database(url)) as ledger:
        return ledger.evaluated("horses") if ledger.study("horses") else 0
