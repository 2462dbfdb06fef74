"""Opening an MLflow store: checked first, tuned where it is SQLite, quiet throughout.

MLflow is imported inside functions: it takes seconds. Its anonymous usage reports are off unless the user set
``MLFLOW_DISABLE_TELEMETRY`` otherwise: choosing features is no reason to connect to anywhere.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from diffsift.errors import StudyError

from ._creation import create_whole, creating
from ._sqlite import describe, problem, sqlite_file, tune_sqlite

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "diffsift"
_PROGRESS_BARS = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
_NOISY_LOGGERS = ("alembic", "alembic.runtime.migration", "mlflow.store.db.utils")


def open_client(store_uri: str, artifacts: Path) -> MlflowClient:
    """A client of the store, which is created where it is missing; new artifacts go to the folder `artifacts`.

    Raises:
        StudyError: the store cannot be opened or written.
    """
    url = database_url(store_uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        with quiet():
            if url is not None:
                _open_database(url, artifacts)
            return MlflowClient(tracking_uri=store_uri)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise store_error(store_uri, error) from error


def open_experiment(client: MlflowClient, artifacts: Path | None) -> str:
    """The identifier of the experiment of all studies, made where it is missing.

    Args:
        client: of the store.
        artifacts: where a new experiment keeps its artifacts; None leaves it to the tracking server.

    Raises:
        StudyError: someone put the experiment into MLflow's trash.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        from mlflow.exceptions import MlflowException

        try:
            return str(client.create_experiment(EXPERIMENT, artifacts.resolve().as_uri() if artifacts else None))
        except MlflowException:
            experiment = client.get_experiment_by_name(EXPERIMENT)  # another process made it in this moment
            if experiment is None:
                raise
    if experiment.lifecycle_stage != "active":
        raise StudyError(
            f"the MLflow experiment {EXPERIMENT!r} must be active, but it is {experiment.lifecycle_stage}: restore it "
            f"with 'mlflow experiments restore --experiment-id {experiment.experiment_id}'."
        )
    return str(experiment.experiment_id)


def store_error(store_uri: str, error: BaseException) -> StudyError:
    """What a failure of the store looks like to the user."""
    url = database_url(store_uri)
    text = problem(error, url) if url is not None else f"{store_uri} failed: {error}"
    return StudyError(f"MLflow store {text}")


def database_url(store_uri: str) -> URL | None:
    """The database behind a store; None for a tracking server."""
    if store_uri.startswith(("http://", "https://")):
        return None
    try:
        return make_url(store_uri)
    except ArgumentError as error:
        raise StudyError(
            f"the MLflow store must be a database or server, such as sqlite:///mlflow.db or http://host:5000, "
            f"but got {store_uri!r}."
        ) from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back MLflow's progress bars, notes on migrations and tracebacks: callers report failures in our words."""
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    bars = os.environ.get(_PROGRESS_BARS)
    os.environ[_PROGRESS_BARS] = "false"
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        if bars is None:
            os.environ.pop(_PROGRESS_BARS, None)
        else:
            os.environ[_PROGRESS_BARS] = bars


def _require_writable(url: URL, path: Path) -> None:
    """Try a write before MLflow does: it would retry a hopeless file for more than a minute."""
    try:
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            # Puts back the number that stands there: a write that changes nothing, so that read-only files are found.
            connection.execute(f"PRAGMA user_version = {connection.execute('PRAGMA user_version').fetchone()[0]}")
            connection.execute("COMMIT")
    except sqlite3.Error as error:
        raise StudyError(f"MLflow store {problem(str(error), url)}") from error


def _open_database(url: URL, artifacts: Path) -> None:
    """Have MLflow make its tables where they are missing, one process at a time, and tune SQLite.

    MLflow keeps one engine per URI for all its stores in a process, so the engine of a store made here is the one that
    the client uses. Tuned, a child run takes 17 ms instead of 29, measured on 2 busy cores.

    Raises:
        StudyError: the store cannot be opened or written, or was left half-made and holds runs.
    """
    path = sqlite_file(url)
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
        with creating(url):
            if path is not None:
                if _is_half_made(path):
                    path.replace(path.with_name(f"{path.name}.half-made"))
                if not path.exists() or not path.stat().st_size:
                    create_whole(path, lambda partial: _tables(url.set(database=str(partial)), artifacts).dispose())
                _require_writable(url, path)
            tune_sqlite(_tables(url, artifacts))
    except OSError as error:
        raise _cannot_be_made(url, error) from error


def _tables(url: URL, artifacts: Path) -> Engine:
    """The engine of MLflow's store at a URL, with its tables."""
    from alembic.util import CommandError
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    try:
        store = SqlAlchemyStore(url.render_as_string(hide_password=False), artifacts.resolve().as_uri())  # type: ignore[no-untyped-call,unused-ignore]
    except CommandError as error:
        raise StudyError(
            f"MLflow store {describe(url)} must hold MLflow's tables, but they are half-made or of another MLflow "
            f"({str(error)[:100]}): name another store, or remove this one; 'diffsift resume' writes its trials again."
        ) from error
    engine: Engine = store.engine
    return engine


def _is_half_made(path: Path) -> bool:
    """Whether a database holds no run, and not all that this MLflow makes: a process that made it was stopped."""
    if not path.exists() or not path.stat().st_size:
        return False
    from alembic.script import ScriptDirectory

    with closing(sqlite3.connect(path, timeout=30)) as connection, suppress(sqlite3.Error):
        tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if "experiments" not in tables or _first(connection, "runs", tables) is not None:
            return False
        newest = ScriptDirectory(str(files("mlflow.store") / "db_migrations")).get_current_head()
        return bool(_first(connection, "alembic_version", tables) != newest)
    return False  # it cannot be read, which is told when it is opened


def _first(connection: sqlite3.Connection, table: str, tables: set[str]) -> Any:
    """The first value of the first row of a table; None where there is no row or no table."""
    row = connection.execute(f"SELECT * FROM {table} LIMIT 1").fetchone() if table in tables else None
    return None if row is None else row[0]


def _cannot_be_made(url: URL, error: OSError) -> StudyError:
    return StudyError(
        f"MLflow store {describe(url)} cannot be made: {error.strerror or error}; make its folder writable, or "
        "name another store."
    )
