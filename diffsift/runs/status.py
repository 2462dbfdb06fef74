"""How far the studies of a workspace are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffsift.common.workspace import Workspace
from diffsift.errors import StudyError
from diffsift.study_store import StudyStore
from diffsift.tracking import StudyRow, Verdict


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is.

    Attributes:
        name: of the study.
        evaluated: distinct selections with a score.
        trials: distinct selections to evaluate in all.
        best: best score on held-out images, higher is better; None before the first.
        verdict: recommendation of the verdict; None before the study has ended.
    """

    name: str
    evaluated: int
    trials: int
    best: float | None
    verdict: str | None


def study_statuses(*, workspace: str | Path | None = None, storage: str | None = None) -> list[StudyStatus]:
    """The studies of a database, oldest first.

    Args:
        workspace: folder that holds the studies; default: ``$DIFFSIFT_WORKSPACE`` or ``./.diffsift``.
        storage: SQLAlchemy URL of the study database; default: those that hold studies of the workspace.

    Returns:
        One entry for each study.

    Raises:
        StudyError: there is no study database, or no study in it.
    """
    found: list[StudyStatus] = []
    for store in _stores(workspace, storage):
        with store:
            found += [_status(store, row) for row in store.ledger.studies()]
    if not found:
        raise StudyError(
            f"{Workspace.at(workspace).folder} holds no study yet: a study is recorded when its bank is filled. Repeat "
            "the search that was stopped: what it extracted is not extracted again."
        )
    return found


def _stores(workspace: str | Path | None, storage: str | None) -> list[StudyStore]:
    """The database that is named, or else all that hold studies of the workspace."""
    store = StudyStore.existing(workspace, storage, reads_only=True)
    if store.storage is not None:
        return [store]
    return [store, *(StudyStore(store.workspace, url, reads_only=True) for url in store.workspace.storages())]


def _status(store: StudyStore, row: StudyRow) -> StudyStatus:
    scores = [entry.score for entry in store.ledger.evaluations(row.name)]
    outcome = store.ledger.outcome(row.name)
    return StudyStatus(
        name=row.name,
        evaluated=len(scores),
        trials=int(row.runtime["study"]["trials"]),
        best=max(scores, default=None),
        verdict=None if outcome is None else Verdict.from_json(outcome["verdict"]).recommendation,
    )
