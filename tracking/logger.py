"""Loggers: where trials are shown beside the ledger. MLflow is one kind; entry points add others."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffsift.common.registry import Registry
from diffsift.common.reporting import Reporter
from diffsift.common.workspace import Workspace
from diffsift.errors import SpecificationError

from .records import Outcome, TrialRecord
from .specification import TrackingSpecification


class Logger(ABC):
    """A projection of a study: derived from the ledger and Optuna, and complete again after `repair`.

    The life of a logger in a run: `start` once, then `repair` with the trials that there are, `add` for each further
    trial (also those that other processes finish), and in the end either `flush` and `finish`, or `interrupt`. A run
    that resumes a study begins with `start` and `repair` again, so every step must be idempotent by trial uid. All are
    called from the leading process alone. `diffsift.testing.logger.LoggerContract` tests what a logger must do.

    `start` and `repair` may refuse with a `StudyError`, before long work; the other steps must not stop a search: they
    report a failure and go on.
    """

    @abstractmethod
    def start(self, parameters: Mapping[str, Any], dataset: Mapping[str, Any] | None) -> None:
        """Open the store, and the study in it.

        Args:
            parameters: the specification, as nested JSON.
            dataset: of the development set: "name", "digest", "source", "context", the number of "images", and what
                each data set "holds", test split included, as `DataSummary.to_json` gives it; None: unknown.

        Raises:
            StudyError: the store cannot be opened or written.
        """

    @abstractmethod
    def repair(self, records: Sequence[TrialRecord]) -> None:
        """Make the store hold exactly these trials, whatever an earlier process left in it.

        Args:
            records: all finished trials of the study, by number.

        Raises:
            StudyError: the store cannot be read or written.
        """

    @abstractmethod
    def add(self, record: TrialRecord) -> None:
        """Take a finished trial; it may be written later.

        Args:
            record: of the trial; trials come in the order in which this process sees them finish.
        """

    @abstractmethod
    def flush(self) -> None:
        """Write what was added."""

    @abstractmethod
    def finish(self, outcome: Outcome, files: Sequence[Path]) -> None:
        """Write the outcome of the search, and end.

        Args:
            outcome: everything that the search found, with all trials.
            files: what it wrote: the selection with its tensors, the report.
        """

    @abstractmethod
    def interrupt(self) -> None:
        """Write what was added, and mark the study as stopped."""


class Loggers(Logger):
    """Several loggers as one.

    Args:
        loggers: each gets every call, in this order.
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


MakeLogger = Callable[[str, Workspace], Logger]
"""A logger's class or a function: makes the logger of a study, given its name and the workspace."""

LOGGERS: Registry[MakeLogger] = Registry("logger", "diffsift.loggers", {})
"""Loggers beside MLflow, by their name in ``tracking.loggers``."""


def register_logger(name: str, logger: MakeLogger) -> None:
    """Add a logger for this process, as an entry of ``tracking.loggers``.

    A package adds one for all with an entry point of the group ``diffsift.loggers``, which names the class or function.

    Args:
        name: none that there is already.
        logger: makes the logger of a study, given its name and the workspace.

    Raises:
        SpecificationError: the name is taken.
    """
    LOGGERS.register(name, logger)


def require_loggers(tracking: TrackingSpecification, study_url: str, workspace: Workspace) -> None:
    """Refuse names of loggers that do not exist, and one database for study and MLflow, before anything is done.

    Args:
        tracking: part of the specification.
        study_url: SQLAlchemy URL of the study database.
        workspace: holds the default MLflow store.

    Raises:
        SpecificationError: there is no logger of a name, or both would be in one database.
        StudyError: `tracking.uri` names neither a database nor a server.
    """
    for name in tracking.loggers:
        _ = LOGGERS[name]
    if not tracking.mlflow:
        return
    from ._mlflow_store import database_url, is_same_database

    uri = tracking.uri or workspace.mlflow_url
    database_url(uri)
    if is_same_database(uri, study_url):
        raise SpecificationError(
            f"study.storage and tracking.uri must be two databases, as Optuna and MLflow both keep a table "
            f"alembic_version, but both are {study_url}: give MLflow another database, or leave tracking.uri out."
        )


def require_stores(tracking: TrackingSpecification, study: str, uid: str, workspace: Workspace) -> None:
    """Refuse an MLflow store that cannot be used for a study, before anything long is done.

    Args:
        tracking: part of the specification.
        study: name of the study.
        uid: of the study; empty: it is new.
        workspace: holds the default MLflow store.

    Raises:
        StudyError: the store cannot be reached or written, its experiment is in the trash, or it holds a study of this
            name that was made elsewhere.
    """
    if tracking.mlflow:
        from ._mlflow_runs import require_store

        require_store(tracking.uri or workspace.mlflow_url, workspace.artifacts, study, uid)


def make_loggers(
    tracking: TrackingSpecification, study: str, workspace: Workspace, reporter: Reporter, *, uid: str = ""
) -> list[Logger]:
    """The loggers that a specification asks for.

    Args:
        tracking: part of the specification.
        study: name.
        workspace: holds the default MLflow store.
        reporter: gets a warning when the MLflow store fails.
        uid: of the study; see `MlflowLogger`.

    Returns:
        MLflow first, where it is wanted, then the others in the specification's order.

    Raises:
        SpecificationError: there is no logger of a name.
    """
    loggers: list[Logger] = []
    if tracking.mlflow:
        from .mlflow_log import MlflowLogger

        uri, most = tracking.uri or workspace.mlflow_url, tracking.child_runs
        loggers.append(MlflowLogger(uri, workspace.artifacts, study, uid=uid, child_runs=most, reporter=reporter))
    return [*loggers, *(LOGGERS[name](study, workspace) for name in tracking.loggers)]
