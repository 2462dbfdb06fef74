"""The contract of loggers: MLflow, several as one, and the example's."""

from __future__ import annotations

import csv
import runpy
from pathlib import Path
from typing import Any

import pytest
from support import ROOT
from support.mlflow_store import stored_scores

from diffsift.common.reporting import NullReporter
from diffsift.common.workspace import Workspace
from diffsift.errors import SpecificationError
from diffsift.testing.logger import LoggerContract
from diffsift.tracking import Logger, Loggers, MlflowLogger, make_loggers, register_logger
from diffsift.tracking.specification import TrackingSpecification

EXAMPLE = ROOT / "examples" / "custom_logger.py"
CsvLogger: Any = runpy.run_path(str(EXAMPLE))["CsvLogger"]


class TestMlflow(LoggerContract):
    child_runs = 100

    @pytest.fixture(autouse=True)
    def _store(self, empty_store: Path, tmp_path: Path) -> None:
        (tmp_path / "mlflow.db").write_bytes(empty_store.read_bytes())

    def make(self, folder: Path, study: str) -> Logger:
        return MlflowLogger(self._uri(folder), folder / "artifacts", study, child_runs=self.child_runs)

    def scores(self, folder: Path, study: str) -> dict[str, float]:
        return stored_scores(self._uri(folder), study)

    @staticmethod
    def _uri(folder: Path) -> str:
        return f"sqlite:///{folder / 'mlflow.db'}"


class TestMlflowWithFewChildRuns(TestMlflow):
    child_runs = 1


class TestExample(LoggerContract):
    def make(self, folder: Path, study: str) -> Logger:
        return CsvLogger(study, Workspace(folder))  # type: ignore[no-any-return]

    def scores(self, folder: Path, study: str) -> dict[str, float]:
        with (folder / f"{study}.csv").open(newline="") as file:
            return {row["uid"]: float(row["score"]) for row in csv.DictReader(file)}


class TestSeveral(TestExample):
    def make(self, folder: Path, study: str) -> Logger:
        second = folder / "second"
        return Loggers([CsvLogger(study, Workspace(folder)), CsvLogger(study, Workspace(second))])

    def scores(self, folder: Path, study: str) -> dict[str, float]:
        first, second = (super(TestSeveral, self).scores(place, study) for place in (folder, folder / "second"))
        assert first == second
        return first


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    rows = list(csv.DictReader(capsys.readouterr().out.strip().splitlines()))
    assert len(rows) == 20
    assert len({row["uid"] for row in rows}) == 20


def test_a_registered_logger_is_made_by_name(tmp_path: Path) -> None:
    tracking = TrackingSpecification(mlflow=False, loggers=("rows",))
    with pytest.raises(SpecificationError, match="there is no logger 'rows'"):
        make_loggers(tracking, "horses", Workspace(tmp_path), NullReporter())
    register_logger("rows", CsvLogger)
    (logger,) = make_loggers(tracking, "horses", Workspace(tmp_path), NullReporter())
    assert isinstance(logger, CsvLogger)
