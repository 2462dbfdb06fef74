"""Final scores of several studies in one table, where they were measured by the same protocol."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffsift.errors import StudyError
from diffsift.study_store import StudyStore


@dataclass(frozen=True)
class Comparison:
    """Rows of the final tables of studies with one protocol.

    Attributes:
        metric: name of the metric of all studies.
        protocol: how the scores of all studies were measured, by field.
        rows: by name of the study, its model and the rows of its final table (name, score, low, high, channels).
    """

    metric: str
    protocol: dict[str, Any]
    rows: dict[str, tuple[str, list[dict[str, Any]]]]


def compare(studies: Sequence[str], *, workspace: str | Path | None = None, storage: str | None = None) -> Comparison:
    """Put the final scores of studies into one column.

    Args:
        studies: names, at least two, each once.
        workspace: folder that holds the studies; default: ``$DIFFSIFT_WORKSPACE`` or ``./.diffsift``.
        storage: SQLAlchemy URL of the study database; default: SQLite in the workspace.

    Returns:
        The rows of all final tables, with what the studies have in common.

    Raises:
        StudyError: there is no such study, one has not ended, or the protocols differ; the message names the fields
            with their values.
    """
    twice = next((study for study in studies if studies.count(study) > 1), None)
    if twice is not None:
        raise StudyError(f"studies to compare must differ, but {twice!r} is named {studies.count(twice)} times.")
    if len(studies) < 2:
        raise StudyError(f"there must be at least two studies to compare, but got {', '.join(studies) or 'none'}.")
    outcomes: dict[str, dict[str, Any]] = {}
    for study in studies:
        with StudyStore.existing(workspace, storage, study=study, reads_only=True) as store:
            store.row(study)  # which offers the closest names
            outcome = store.ledger.outcome(study)
            if outcome is None or "protocol" not in outcome:
                raise StudyError(
                    f"study {study!r} must have a final table, but has none yet: run 'diffsift resume {study}'."
                )
            outcomes[study] = outcome
    first = outcomes[studies[0]]
    for study, outcome in outcomes.items():
        _refuse_other_protocol(studies[0], first["protocol"], study, outcome["protocol"])
    rows = {study: (str(outcome["model"]), list(outcome["table"])) for study, outcome in outcomes.items()}
    return Comparison(str(first["metric"]), dict(first["protocol"]), rows)


def _refuse_other_protocol(first: str, expected: dict[str, Any], study: str, got: dict[str, Any]) -> None:
    differing = [name for name in {**expected, **got} if expected.get(name) != got.get(name)]
    if differing:
        parts = "; ".join(f"{name}: {expected.get(name)!r} against {got.get(name)!r}" for name in differing)
        raise StudyError(f"scores of one column must have one protocol, but {first} and {study} differ in {parts}.")
