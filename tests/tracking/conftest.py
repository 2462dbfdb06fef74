"""An MLflow store that tests copy: making one takes seconds."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from diffsift.tracking import MlflowLogger


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it: its migrations take seconds, so they run once. Not to be changed."""
    folder = tmp_path_factory.mktemp("mlflow")
    MlflowLogger(f"sqlite:///{folder / 'mlflow.db'}", folder / "artifacts", "first").start({}, None)
    with sqlite3.connect(folder / "mlflow.db") as connection:
        for table in ("tags", "params", "metrics", "latest_metrics", "runs"):
            connection.execute(f"DELETE FROM {table}")
        connection.execute("DELETE FROM experiments WHERE name = 'diffsift'")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    return folder / "mlflow.db"
