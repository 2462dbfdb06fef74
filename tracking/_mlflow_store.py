"""Opening an MLflow store: checked first, tuned where it is SQLite, quiet throughout.

MLflow is imported inside functions: it takes seconds. Its anonymous usage reports are off unless the user set
``MLFLOW_DISABLE_TELEMETRY`` otherwise: choosing features is no reason to connect to anywhere.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import create_engine
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError

from diffsift.errors import StudyError

from ._mlflow_creation import make_tables, without_stray_folder
from ._sqlite import describe, problem, sqlite_file, tune_sqlite

if TYPE_CHECKING:
    from mlflow import MlflowClient

EXPERIMENT = "diffsift"
_QUIET = {
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # two lines for each run
}
_BOUNDED = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
}
"""MLflow's own values wait some minutes for a dead server; what the user sets holds instead of these."""
_NOISY_LOGGERS = ("alembic", "alembic.runtime.migration", "mlflow.store.db.utils", "urllib3.connectionpool")
_CONNECT_SECONDS = 10
_DIALECTS = ("sqlite", "postgresql", "mysql", "mssql")
_HAVE_CONNECT_TIMEOUT = ("psycopg", "psycopg2", "pymysql", "mysqldb")


def open_client(store_uri: str, artifacts: Path) -> MlflowClient:
    """A client of the store, which is created where it is missing; new artifacts go to the folder `artifacts`.

    Raises:
        StudyError: the store cannot be opened or written.
    """
    url = database_url(store_uri)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.tracking._tracking_service import utils

    # MLflow remembers by the run's identifier where artifacts go: that of a copied workspace is the original's.
    getattr(utils, "_artifact_repos_cache", {}).clear()
    try:
        with quiet():
            if url is not None:
                if sqlite_file(url) is None:
                    _require_connection(url)  # bounded, unlike the wait for the lock on tables
                make_tables(url, artifacts)
                _require_writable(url)
                relocate(url, artifacts)
            if url is not None and url.get_backend_name() == "sqlite":
                _tune(store_uri, artifacts)
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
    from mlflow.exceptions import MlflowException

    found = existing_experiment(client)
    if found is not None:
        return found
    try:
        return str(client.create_experiment(EXPERIMENT, artifacts.resolve().as_uri() if artifacts else None))
    except MlflowException:
        found = existing_experiment(client)  # another process made it in this moment
        if found is None:
            raise
        return found


def existing_experiment(client: MlflowClient) -> str | None:
    """The identifier of the experiment of all studies; None where it is missing.

    Raises:
        StudyError: someone put the experiment into MLflow's trash.
    """
    experiment = client.get_experiment_by_name(EXPERIMENT)
    if experiment is None:
        return None
    if experiment.lifecycle_stage != "active":
        raise StudyError(
            f"the MLflow experiment {EXPERIMENT!r} must be active, but it is {experiment.lifecycle_stage}: restore it "
            f"with 'mlflow experiments restore --experiment-id {experiment.experiment_id}'."
        )
    return str(experiment.experiment_id)


def store_error(store_uri: str, error: BaseException) -> StudyError:
    """What a failure of the store looks like to the user."""
    url = database_url(store_uri)
    if url is not None:
        return StudyError(f"MLflow store {problem(error, url)}")
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return StudyError(
        f"MLflow store {store_uri} must be reached, but it failed ({lines[0][:400]}): start or mend the server, or "
        "change tracking.uri (tracking.mlflow: false does without)."
    )


def database_url(store_uri: str) -> URL | None:
    """The database behind a store; None for a tracking server.

    Raises:
        StudyError: it is neither, such as MLflow's former folder of files.
    """
    if store_uri.startswith(("http://", "https://")):
        return None
    try:
        url = make_url(store_uri)
    except ArgumentError:
        url = None
    if url is None or url.get_backend_name() not in _DIALECTS:
        raise StudyError(
            f"the MLflow store (tracking.uri) must be a database or server, such as sqlite:///mlflow.db or "
            f"http://host:5000, but got {store_uri[:100]!r}."
        )
    return url


def is_same_database(first: str, second: str) -> bool:
    """Whether two SQLAlchemy URLs name one database; addresses of servers name none."""
    try:
        urls = [make_url(first), make_url(second)]
    except ArgumentError:
        return False
    files = [sqlite_file(url) for url in urls]
    if files[0] and files[1]:
        return files[0].resolve() == files[1].resolve()
    ports = {"postgresql": 5432, "mysql": 3306, "mssql": 1433}
    names = [(url.get_backend_name(), url.host, url.port or ports.get(url.get_backend_name())) for url in urls]
    return names[0] == names[1] and urls[0].database == urls[1].database and not any(files)


def relocate(url: URL, artifacts: Path) -> None:
    """Make a store that was moved or copied together with its artifacts keep to the ones beside it.

    MLflow stores absolute addresses: a copied workspace would write into the original, and a moved one would make its
    old folder again.

    Args:
        url: of the store.
        artifacts: folder of the artifacts; stores that do not lie beside it are left alone.

    Raises:
        StudyError: the store cannot be read or written.
    """
    file = sqlite_file(url)
    if file is None or not file.is_file() or file.resolve().parent != artifacts.resolve().parent:
        return
    here = artifacts.resolve().as_uri()
    try:
        with closing(sqlite3.connect(file, timeout=30)) as connection, connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'experiments'").fetchone():
                return
            ours = connection.execute(
                "SELECT experiment_id, artifact_location FROM experiments WHERE name = ? AND artifact_location <> ?",
                (EXPERIMENT, here),
            ).fetchone()
            if ours is None or not ours[1].startswith("file:") or not ours[1].endswith(f"/{artifacts.name}"):
                return
            connection.execute("UPDATE experiments SET artifact_location = ? WHERE experiment_id = ?", (here, ours[0]))
            connection.execute(
                "UPDATE runs SET artifact_uri = ? || substr(artifact_uri, ?) "
                "WHERE experiment_id = ? AND substr(artifact_uri, 1, ?) = ?",
                (here, len(ours[1]) + 1, ours[0], len(ours[1]) + 1, f"{ours[1]}/"),
            )
    except sqlite3.Error as error:
        raise StudyError(f"MLflow store {problem(str(error), url)}") from error


@contextmanager
def quiet() -> Iterator[None]:
    """Hold back MLflow's progress bars, links, notes on migrations and retries, and bound how long it waits.

    Callers report failures in our words.
    """
    loggers = [logging.getLogger(name) for name in _NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    changed = _QUIET | {name: value for name, value in _BOUNDED.items() if name not in os.environ}
    before = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        for logger in loggers:
            logger.setLevel(logging.CRITICAL + 1)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def require_can_be_made(file: Path) -> None:
    """Refuse a file in a folder that cannot be written, or made; nothing is made.

    Raises:
        StudyError: the nearest folder that exists cannot be written.
    """
    nearest = next(folder for folder in file.absolute().parents if folder.exists())
    if not nearest.is_dir() or not os.access(nearest, os.W_OK | os.X_OK):
        raise StudyError(
            f"MLflow store {file} cannot be made: {nearest} is no folder that can be written; make it writable, or "
            "name another store (tracking.uri)."
        )


def _require_writable(url: URL) -> None:
    """Try a write, or a connection, before MLflow does: it would retry a hopeless one for more than a minute."""
    path = sqlite_file(url)
    if path is None:
        _require_connection(url)
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(sqlite3.connect(path, timeout=30)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            # Puts back the number that stands there: a write that changes nothing, so that read-only files are found.
            connection.execute(f"PRAGMA user_version = {connection.execute('PRAGMA user_version').fetchone()[0]}")
            connection.execute("COMMIT")
    except OSError as error:
        raise StudyError(
            f"MLflow store {describe(url)} cannot be made: {error.strerror or error}; make its folder writable, or "
            "name another store."
        ) from error
    except sqlite3.Error as error:
        raise StudyError(f"MLflow store {problem(str(error), url)}") from error


def _require_connection(url: URL) -> None:
    bounded = {"connect_timeout": _CONNECT_SECONDS} if url.get_driver_name() in _HAVE_CONNECT_TIMEOUT else {}
    try:
        engine = create_engine(url, connect_args=bounded)
        try:
            engine.connect().close()
        finally:
            engine.dispose()
    except (NoSuchModuleError, ImportError) as error:
        raise StudyError(
            f"the MLflow store (tracking.uri) must be a URL of an installed driver, but got {describe(url)} ({error}): "
            "install the driver with pip."
        ) from error
    except SQLAlchemyError as error:
        raise StudyError(f"MLflow store {problem(error, url)}") from error


def _tune(store_uri: str, artifacts: Path) -> None:
    """Tune the connections that MLflow keeps for this store.

    MLflow keeps one engine per URI for all its stores in a process, so the engine of a store made here is the one that
    the client uses. Measured on 2 busy cores: 17 ms a child run instead of 29.
    """
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

    with without_stray_folder(make_url(store_uri)):
        store = SqlAlchemyStore(store_uri, artifacts.resolve().as_uri())  # type: ignore[no-untyped-call,unused-ignore]
    tune_sqlite(store.engine)
