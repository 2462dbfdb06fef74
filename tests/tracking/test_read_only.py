"""Databases that can only be read: `status`, `report`, `pick` and `compare` need no more."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from diffsift.common.workspace import sqlite_url
from diffsift.errors import StudyError
from diffsift.tracking import Ledger, open_database

NOBODY = 65534


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that other users can reach, unlike pytest's own."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def frozen(folder: Path) -> Iterator[None]:
    """A folder in which this process may write nothing: root may always, so it becomes another user for a while."""
    files = [folder, *folder.iterdir()]
    modes = {file: file.stat().st_mode for file in files}
    for file in files:
        file.chmod(0o555 if file.is_dir() else 0o444)
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(NOBODY)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for file, mode in modes.items():
            if file.exists():
                file.chmod(mode)


def studies(url: str) -> list[str]:
    with Ledger(open_database(url, reads_only=True)) as ledger:
        return [row.name for row in ledger.studies()]


def test_a_closed_database_is_read_where_nothing_can_be_written(folder: Path) -> None:
    url = sqlite_url(folder / "studies.db")
    with Ledger(open_database(url)) as ledger:
        ledger.create_study("horses", {}, {}, [])
    before = sorted(folder.iterdir())
    with frozen(folder):
        assert studies(url) == ["horses"]
        with pytest.raises(StudyError, match="is read-only"):
            open_database(url)
        assert sorted(folder.iterdir()) == before


def test_a_database_that_another_process_writes_is_read_up_to_its_last_commit(folder: Path) -> None:
    url = sqlite_url(folder / "studies.db")
    with Ledger(open_database(url)) as ledger:
        ledger.create_study("horses", {}, {}, [])
        with frozen(folder):
            assert studies(url) == ["horses"]


def test_a_log_that_cannot_be_read_is_not_left_out_in_silence(folder: Path) -> None:
    url = sqlite_url(folder / "studies.db")
    with Ledger(open_database(url)) as ledger:
        ledger.create_study("horses", {}, {}, [])
        kept = {name: (folder / name).read_bytes() for name in ("studies.db", "studies.db-wal")}
    for name, content in kept.items():  # as a copy of a workspace whose process was killed
        (folder / name).write_bytes(content)
    with frozen(folder), pytest.raises(StudyError, match="was not closed"):
        studies(url)
    assert studies(url) == ["horses"]


def test_an_older_database_must_be_written_once(folder: Path) -> None:
    url = sqlite_url(folder / "studies.db")
    engine = open_database(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE diffsift_version SET schema = 2")
    engine.dispose()
    with frozen(folder), pytest.raises(StudyError, match=r"must have schema \d .*but has \[2\]"):
        studies(url)
