"""How far the studies of a workspace are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffsift.errors import StudyError
from diffsift.study_store import StudyStore
from diffsift.tracking import Verdict


@dataclass(frozen=True)
class StudyStatus:
    """How far a study is.

    Attributes:
        name: of the study.
        evaluated: distinct selections with a score.
        trials: distinct selections to evaluate in all.
        best: best score on validation, higher is better; None before the first.
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
        storage: SQLAlchemy URL of the study database; default: SQLite in the workspace.

    Returns:
        One entry for each study.

    Raises:
        StudyError: there is no study database, or no study in it.
    """
    found = []
    with StudyStore.existing(workspace, storage) as store:
        for row in store.ledger.studies():
            scores = [entry.score for entry in store.ledger.evaluations(row.name)]
            outcome = store.ledger.outcome(row.name)
            found.append(
                StudyStatus(
                    name=row.name,
                    evaluated=len(scores),
                    trials=int(row.runtime["study"]["trials"]),
                    best=max(scores, default=None),
                    verdict=None if outcome is None else Verdict.from_json(outcome["verdict"]).recommendation,
                )
            )
    if not found:
        raise StudyError(
            f"{store.workspace.folder} holds no study yet: a study is recorded when its bank is filled. Repeat the "
            "search that was stopped: what it extracted is not extracted again."
        )
    return found
