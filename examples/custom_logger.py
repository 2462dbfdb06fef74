"""A logger of one's own: the trials of a study as a CSV file, in the place of MLflow.

    python examples/custom_logger.py

A package offers its logger to every specification by an entry point:

    [project.entry-points."diffsift.loggers"]
    csv = "my_package:CsvLogger"
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import diffsift
from diffsift.common.files import write_atomically
from diffsift.common.workspace import Workspace
from diffsift.demo import PIPELINE
from diffsift.tracking import Logger, Outcome, TrialRecord, register_logger


class CsvLogger(Logger):
    """Writes the whole file at each flush, so nothing in it can be half-written or there twice."""

    def __init__(self, study: str, workspace: Workspace) -> None:
        self.file = workspace.folder / f"{study}.csv"
        self._records: dict[str, TrialRecord] = {}

    def start(self, parameters: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)

    def repair(self, records: Sequence[TrialRecord]) -> None:
        self._records = {record.uid: record for record in records}
        self.flush()

    def add(self, record: TrialRecord) -> None:
        self._records[record.uid] = record

    def flush(self) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["uid", "score", "channels", "selection"])
        writer.writerows([r.uid, repr(r.score), r.channels, str(r.selection)] for r in self._records.values())
        write_atomically(self.file, text.getvalue())

    def finish(self, outcome: Outcome, files: Sequence[Path]) -> None:
        self.repair(outcome.trials)

    def interrupt(self) -> None:
        self.flush()


if __name__ == "__main__":
    register_logger("csv", CsvLogger)
    diffsift.select(
        {
            "model": {"id": str(PIPELINE)},
            "data": {"kind": "rendered-scenes", "train": 20, "validation": 20, "test": 10},
            "timesteps": [50],
            "study": {"name": "logged", "trials": 20},
            "tracking": {"mlflow": False, "loggers": ["csv"]},
        }
    )
    print(CsvLogger("logged", Workspace.at()).file.read_text())
