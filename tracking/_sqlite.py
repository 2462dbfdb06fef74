"""SQLite, tuned for many small transactions, and its errors in words that say what to do."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL

from diffsift.errors import StudyError, without_passwords

BUSY_TIMEOUT_MS = 30_000
"""How long a connection waits for another process's write before it gives up."""

# The part of SQLite's message, what it means, what to do.
_PROBLEMS = (
    ("readonly", "is read-only", "make the file and its folder writable, or name another database"),
    ("read-only", "is read-only", "make the file and its folder writable, or name another database"),
    ("disk is full", "has no room: the disk is full", "free some space, then run again; nothing finished is lost"),
    ("not a database", "is not an SQLite database", "name another file, or move this one away"),
    ("malformed", "is damaged", "restore it from a copy, or move it away to start anew"),
    ("unable to open", "cannot be opened", "the folder must exist and be writable"),
    ("disk i/o error", "cannot be read or written", "check the disk and the rights of the file and its folder"),
    ("locked", "is locked by another process", "wait for it or stop it, then run again"),
)


def tune_sqlite(engine: Engine) -> None:
    """Give every connection of `engine` write-ahead logging, normal sync and a busy timeout; a no-op off SQLite.

    With the write-ahead log, normal sync saves one fsync a commit; a power cut may then lose the last commits but
    never damages the file. Connections the pool already holds are closed, so that none stays untuned.

    Args:
        engine: of any database.
    """
    if engine.dialect.name != "sqlite" or event.contains(engine, "connect", _tune_connection):
        return
    event.listen(engine, "connect", _tune_connection)
    engine.dispose()


def _tune_connection(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    try:
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")  # first, so that the switch below can wait too
        if cursor.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
            cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = NORMAL")
    finally:
        cursor.close()


def sqlite_file(url: URL) -> Path | None:
    """The file an SQLite URL names; None for other databases and for one in memory."""
    if url.get_backend_name() != "sqlite" or not url.database or ":memory:" in url.database:
        return None
    is_uri = url.database.startswith("file:")
    return Path(unquote(url.database.removeprefix("file:")) if is_uri else url.database)


def writable(file: Path) -> bool:
    """Whether an SQLite file can be written by this process, which needs its folder too."""
    try:
        with closing(sqlite3.connect(file, timeout=BUSY_TIMEOUT_MS / 1000)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA user_version = {connection.execute('PRAGMA user_version').fetchone()[0]}")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:  # of another kind: whoever opens it will say
        return not any(sign in str(error) for sign in ("readonly", "read-only", "unable to open"))
    return True


def read_only_url(file: Path) -> URL:
    """The URL of an SQLite file that is only read.

    The log of a database beside which nothing can be written can be read only while a process that may write has it
    open. Otherwise the file is read as it is, and whoever closed it last has left nothing in its log.

    Raises:
        StudyError: the log still holds what the file lacks.
    """
    log, index = (file.with_name(f"{file.name}-{part}") for part in ("wal", "shm"))
    query = {"mode": "ro", "uri": "true"}
    if not index.exists():
        if log.exists() and log.stat().st_size:
            raise StudyError(
                f"study database {file} was not closed, and its log {log.name} can only be read where it can be "
                "written: copy the workspace to such a folder."
            )
        query["immutable"] = "1"
    return URL.create("sqlite", database=f"file:{quote(str(file))}", query=query)


def describe(url: URL) -> str:
    """The database as messages name it: the file's path, or the URL without its password."""
    path = sqlite_file(url)
    return str(path) if path else without_passwords(url.render_as_string(hide_password=False))


def problem(error: BaseException | str, url: URL) -> str:
    """What went wrong with the database and what to do, for the end of an error message."""
    text = str(getattr(error, "orig", None) or error).strip()
    for sign, meaning, remedy in _PROBLEMS:
        if url.get_backend_name() == "sqlite" and sign in text.lower():
            return f"{describe(url)} {meaning} ({text.splitlines()[-1][:200]}): {remedy}."
    said = text.splitlines()[0][:300] if text else type(error).__name__
    if any(sign in text.lower() for sign in ("password", "authentication", "access denied")):
        said += "; give the password in the environment (DIFFSIFT_STORAGE, PGPASSWORD) or in ~/.pgpass"
    return f"{describe(url)} failed: {said}"
