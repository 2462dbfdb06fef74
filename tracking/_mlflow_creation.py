"""MLflow's tables: made by one process at a time, and whole or not at all, which MLflow itself does not see to."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import Any

from sqlalchemy.engine import URL

from diffsift.errors import StudyError

from ._creation import create_whole, creating
from ._sqlite import describe, problem, sqlite_file


def make_tables(url: URL, artifacts: Path) -> None:
    """Have MLflow make its tables where they are missing.

    An SQLite file that a stopped process left half-made, by an older diffsift or by MLflow, is put aside and made anew
    where it holds no run.

    Args:
        url: of the store's database.
        artifacts: where new artifacts go.

    Raises:
        StudyError: the store cannot be made, or holds the runs of another MLflow.
        SQLAlchemyError: the server does not answer.
    """
    path = sqlite_file(url)
    if path is None:
        with creating(url):
            _make(url, artifacts)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with creating(url):
            if path.exists() and path.stat().st_size and not _is_whole(path, url):
                path.replace(path.with_name(f"{path.name}.half-made"))
            if not path.exists() or not path.stat().st_size:
                create_whole(path, lambda partial: _make(url.set(database=str(partial)), artifacts))
    except OSError as error:
        raise StudyError(
            f"MLflow store {describe(url)} cannot be made: {error.strerror or error}; make its folder writable, or "
            "name another store."
        ) from error


def _make(url: URL, artifacts: Path) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with without_stray_folder(url):
        store = SqlAlchemyStore(url.render_as_string(hide_password=False), artifacts.resolve().as_uri())  # type: ignore[no-untyped-call,unused-ignore]
    store.engine.dispose()


def _is_whole(path: Path, url: URL) -> bool:
    """Whether a database has the tables of this MLflow; False: only some of them, and no run.

    Raises:
        StudyError: it has other tables, and runs; or it cannot be read.
    """
    from alembic.script import ScriptDirectory

    try:
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            revision = _first(connection, "alembic_version", tables)
            run = _first(connection, "runs", tables)
    except sqlite3.Error as error:
        raise StudyError(f"MLflow store {problem(str(error), url)}") from error
    newest = ScriptDirectory(str(files("mlflow.store") / "db_migrations")).get_current_head()
    if revision == newest or "experiments" not in tables:  # a database of something else is MLflow's to refuse or use
        return True
    if run is None:
        return False
    raise StudyError(
        f"MLflow store {describe(url)} must have the tables of this MLflow ({newest}), but has those of another "
        f"({revision}): 'mlflow db upgrade' brings an older one up to date; or remove it, and 'diffsift resume' writes "
        "its trials again."
    )


def _first(connection: sqlite3.Connection, table: str, tables: set[str]) -> Any:
    """The first value of the first row of a table; None where there is no row or no table."""
    row = connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone() if table in tables else None
    return None if row is None else row[0]


@contextmanager
def without_stray_folder(url: URL) -> Iterator[None]:
    """Remove the folder that MLflow makes where it takes an escaped path (``a%2520b``) for the path of the file."""
    stray = Path(url.render_as_string().partition(":///")[2]).parent
    made = [folder for folder in (stray, *stray.parents) if not folder.exists()]
    try:
        yield
    finally:
        for folder in made if str(stray) != str(Path(url.database or "").parent) else ():
            with suppress(OSError):
                folder.rmdir()
