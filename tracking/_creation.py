"""First creation of databases: by one process at a time, and whole or not at all."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout
from sqlalchemy import URL, NullPool, create_engine, text

from diffsift.errors import StudyError

from ._sqlite import describe, sqlite_file

_PATIENCE = 600.0
"""Seconds to wait for another process that creates the same database."""

_HEADER = 100
"""Bytes at the start of every SQLite database."""

# How servers lock a name until the connection ends.
_SERVER_LOCKS = {
    "postgresql": "SELECT pg_advisory_lock(:key)",
    "mysql": f"SELECT GET_LOCK(:key, {_PATIENCE:.0f})",
    "mariadb": f"SELECT GET_LOCK(:key, {_PATIENCE:.0f})",
}


@contextmanager
def creating(url: URL) -> Iterator[None]:
    """Be the only process that creates tables in a database, inside the ``with`` block.

    The lock is a file beside an SQLite database and an advisory lock on a server; it ends with its process.

    Args:
        url: of the database. Nothing is locked for one in memory or on an unknown kind of server.

    Yields:
        Nothing; the lock is given back at the end of the block.

    Raises:
        StudyError: another process holds the lock for minutes, or the lock file cannot be made.
        SQLAlchemyError: the server does not answer.
    """
    path = sqlite_file(url)
    if path is not None:
        lock = FileLock(f"{path}.lock", timeout=_PATIENCE)
        try:
            lock.acquire()
        except Timeout as error:
            raise StudyError(
                f"database {path} must be free to be created, but another process has held {path}.lock for "
                f"{_PATIENCE:.0f} s: stop that process, then run again."
            ) from error
        except OSError as error:
            raise StudyError(
                f"database {path} cannot be opened: its lock file {path}.lock cannot be made "
                f"({error.strerror or error}); make the folder writable, or name another database."
            ) from error
        try:
            yield
        finally:
            lock.release()
        return
    statement = _SERVER_LOCKS.get(url.get_backend_name())
    if statement is None:
        yield
        return
    engine = create_engine(url, poolclass=NullPool)
    with engine.connect() as connection:  # the server frees the lock when this connection closes
        connection.execute(text(statement), {"key": zlib.crc32(b"diffsift creates tables")})
        yield


def create_whole(path: Path, create: Callable[[Path], None]) -> None:
    """Make a new SQLite database under another name first, so that a process that is killed leaves none half-made.

    Call it inside `creating`.

    Args:
        path: of the database, which does not exist yet.
        create: makes a database at the path that it is given, and closes its connections.

    Raises:
        OSError: the folder cannot be written.
    """
    partial = path.with_name(f"{path.name}.partial")
    _remove(partial)  # of a process that was killed
    create(partial)
    partial.replace(path)
    _remove(partial)


def require_whole(url: URL) -> None:
    """Refuse an SQLite file that was cut short: SQLite takes one of a few bytes for a new, empty database.

    Raises:
        StudyError: the file is there, but holds less than a header.
    """
    path = sqlite_file(url)
    if path is None or not path.is_file() or path.stat().st_size >= _HEADER:
        return
    log = path.with_name(f"{path.name}-wal")
    if log.is_file() and log.stat().st_size:
        return  # all that was written is in the log still, and SQLite will find it there
    raise StudyError(
        f"study database {describe(url)} must be an SQLite database, but has {path.stat().st_size} bytes: it was cut "
        "short. Restore it from a copy, or remove it to start anew without its studies."
    )


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
