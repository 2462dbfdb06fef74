"""SQLite, tuned for many small transactions, and its errors in words that say what to do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event
from sqlalchemy.engine import URL

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
    return Path(url.database.removeprefix("file:"))


def describe(url: URL) -> str:
    """The database as messages name it: the file's path, or the URL without its password."""
    path = sqlite_file(url)
    return str(path) if path else url.render_as_string(hide_password=True)


def problem(error: BaseException | str, url: URL) -> str:
    """What went wrong with the database and what to do, for the end of an error message."""
    text = str(getattr(error, "orig", None) or error).strip()
    for sign, meaning, remedy in _PROBLEMS:
        if url.get_backend_name() == "sqlite" and sign in text.lower():
            return f"{describe(url)} {meaning} ({text.splitlines()[-1][:200]}): {remedy}."
    return f"{describe(url)} failed: {text.splitlines()[0][:300] if text else type(error).__name__}"
