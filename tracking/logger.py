"""Loggers: where trials are shown beside the ledger. MLflow is one kind; entry points add others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffsift.common.registry import Registry
from diffsift.common.reporting import Reporter
from diffsift.common.workspace import Workspace

from .records import Outcome, TrialRecord
from .specification import TrackingSpecification


class Logger(ABC):
    """A projection of a study: derived from the ledger and Optuna, and complete again after `repair`.

    The life of a logger in a run: `start` once, then `repair` with the trials that there are, `add` for each further
    trial (also those that other processes finish), and in the end either `flush` and `finish`, or `interrupt`. A run
    that resumes a study begins with `start` and `repair` again, so every step must be idempotent by trial uid.

    `start` and `repair` may refuse with a `StudyError`, before long work; the other steps must not stop a search: they
    report a failure and go on.
    """

    @abstractmethod
    def start(self, parameters: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> None:
        """Open the store, and the study in it.

        Args:
            parameters: the specification, as nested JSON.
            dataset: name, digest, source, context and number of images of the development set.

        Raises:
            StudyError: the store cannot be opened or written.
        """

    @abstractmethod
    def repair(self, records: Sequence[TrialRecord]) -> None:
        """Make the store hold exactly these trials.

        Raises:
            StudyError: the store cannot be read or written.
        """

    @abstractmethod
    def add(self, record: TrialRecord) -> None:
        """Take a finished trial; it may be written later."""

    @abstractmethod
    def flush(self) -> None:
        """Write what was added."""

    @abstractmethod
    def finish(self, outcome: Outcome, files: Sequence[Path]) -> None:
        """Write the outcome of the search and the files it wrote, and end."""

    @abstractmethod
    def interrupt(self) -> None:
        """Write what was added, and mark the study as stopped."""


class Loggers(Logger):
    """Several loggers as one.

    Args:
        loggers: told of everything, in order.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._loggers = list(loggers)

    def start(self, parameters: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> None:
        for logger in self._loggers:
            logger.start(parameters, dataset)

    def repair(self, records: Sequence[TrialRecord]) -> None:
        for logger in self._loggers:
            logger.repair(records)

    def add(self, record: TrialRecord) -> None:
        for logger in self._loggers:
            logger.add(record)

    def flush(self) -> None:
        for logger in self._loggers:
            logger.flush()

    def finish(self, outcome: Outcome, files: Sequence[Path]) -> None:
        for logger in self._loggers:
            logger.finish(outcome, files)

    def interrupt(self) -> None:
        for logger in self._loggers:
            logger.interrupt()


LOGGERS: Registry[Any] = Registry("logger", "diffsift.loggers", {})
"""Loggers beside MLflow, by their name in ``tracking.loggers``; each is called as ``logger(study, workspace)``."""


def register_logger(name: str, logger: Any) -> None:
    """Make a `Logger` known as an entry of ``tracking.loggers``.

    A package does the same with an entry point of the group ``diffsift.loggers``.

    Args:
        name: its name.
        logger: the class, called as ``logger(study, workspace)`` with the study's name and the `Workspace`.

    Raises:
        SpecificationError: the name is taken.
    """
    LOGGERS.register(name, logger)


def make_loggers(tracking: TrackingSpecification, study: str, workspace: Workspace, reporter: Reporter) -> list[Logger]:
    """The loggers that a specification asks for.

    Args:
        tracking: part of the specification.
        study: name.
        workspace: holds the default MLflow store.
        reporter: told of failures of the MLflow store.

    Raises:
        SpecificationError: there is no logger of a name.
    """
    loggers: list[Logger] = []
    if tracking.mlflow:
        from .mlflow_log import MlflowLogger

        uri = tracking.uri or workspace.mlflow_url
        loggers.append(MlflowLogger(uri, workspace.artifacts, study, child_runs=tracking.child_runs, reporter=reporter))
    return [*loggers, *(LOGGERS[name](study, workspace) for name in tracking.loggers)]
