"""One process of `chaos.py`: the real ``diffsift`` command line, with marks on its way that its parent reads.

The parent forks it from a server that has imported this module and done nothing else (`multiprocessing`'s forkserver),
so that each process is as good as fresh and need not import everything again: that takes longer than its search.
"""

from __future__ import annotations

import functools
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # as diffsift sets it, but before our own import

# What a search imports when it gets there, imported once for all processes.
import mlflow.store.tracking.sqlalchemy_store  # noqa: F401
import sklearn.datasets  # noqa: F401
from diffusers import AutoencoderKL, DiffusionPipeline, UNet2DConditionModel  # noqa: F401
from mlflow import MlflowClient
from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

import diffsift.runs.select  # noqa: F401
from diffsift.cli.app import app
from diffsift.search import SearchLoop
from diffsift.tracking import mlflow_log

POINTS = ("mlflow", "scored", "recorded", "logged")
MOMENT = "moment"
_MLFLOW_WRITES = ("create_run", "log_batch", "set_terminated", "log_text")


@dataclass(frozen=True)
class Plan:
    """Where to be killed.

    Attributes:
        point: `MOMENT`, or one of `POINTS`: a score is in the ledger but not in the study; it is in the study but was
            not handed to MLflow's log; it was handed there; a call that writes to MLflow has returned.
        trials: of this process that are recorded before the point counts.
        writes: of MLflow that return before the point "mlflow" counts, from the process's start.
    """

    point: str
    trials: int
    writes: int


class Marks:
    """Counts on the way and tells the parent, by pairs of a word and a value.

    ``("recorded", n)`` after n trials of this process were committed to the study; ``("at", MOMENT)`` when the planned
    point of a kill at a random moment is reached, and the process goes on; ``("at", point)`` when a planned point is
    reached, and the process waits there for the kill.
    """

    def __init__(self, plan: Plan, pipe: Connection) -> None:
        self._plan, self._pipe = plan, pipe
        self._recorded = self._writes = 0
        self._moment_sent = False

    def run_begins(self) -> None:
        self._moment()

    def step(self, step: str) -> None:
        """What `SearchLoop.after_step` calls as a trial passes its points."""
        if step == "recorded":
            self._recorded += 1
            self._pipe.send(("recorded", self._recorded))
            self._moment()
        if step == self._plan.point and self._recorded >= self._plan.trials:
            self._stop_at(step)

    def mlflow_wrote(self) -> None:
        self._writes += 1
        if self._plan.point == "mlflow" and self._writes >= self._plan.writes:
            self._stop_at("mlflow")

    def _moment(self) -> None:
        if self._plan.point == MOMENT and not self._moment_sent and self._recorded >= self._plan.trials:
            self._moment_sent = True
            self._pipe.send(("at", MOMENT))

    def _stop_at(self, point: str) -> None:
        self._pipe.send(("at", point))
        while True:
            signal.pause()


def install(marks: Marks) -> None:
    """Put the marks into this process."""
    run = SearchLoop.run

    def marked_run(loop: SearchLoop, trials: int, **options: Any) -> None:
        marks.run_begins()
        run(loop, trials, **options)

    SearchLoop.run = marked_run
    SearchLoop.after_step = lambda loop, step: marks.step(step)
    mlflow_log.FLUSH_TRIALS = 25  # smaller batches than a search writes, so that more kills fall between their writes
    for name in _MLFLOW_WRITES:
        setattr(MlflowClient, name, _marked(getattr(MlflowClient, name), marks))


def _marked(write: Callable[..., Any], marks: Marks) -> Callable[..., Any]:
    @functools.wraps(write)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        result = write(*args, **kwargs)
        marks.mlflow_wrote()
        return result

    return wrapper


def drive(plan: Plan, pipe: Connection, command: list[str], output: Path) -> None:
    """Run ``diffsift`` with the arguments `command`; what it prints is appended to the file `output`."""
    with output.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    install(Marks(plan, pipe))
    app(command)
