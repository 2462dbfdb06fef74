"""Final scores of several studies side by side, where they may stand in one column."""

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
        metric: what all are scored by.
        protocol: what all have in common, by field.
        rows: per study, its model and the rows of its final table (name, score, low, high, channels).
    """

    metric: str
    protocol: dict[str, Any]
    rows: dict[str, tuple[str, list[dict[str, Any]]]]


def compare(studies: Sequence[str], *, workspace: str | Path | None = None, storage: str | None = None) -> Comparison:
    """Put the final scores of studies into one column.

    Raises:
        StudyError: a study has not ended, or the protocols differ; the message names the fields with their values.
    """
    if len(set(studies)) < 2:
        raise StudyError(f"there must be at least two studies to compare, but got {', '.join(studies) or 'none'}.")
    outcomes: dict[str, dict[str, Any]] = {}
    with StudyStore.existing(workspace, storage) as store:
        for study in studies:
            outcome = store.ledger.outcome(study)
            if outcome is None or "protocol" not in outcome:
                raise StudyError(f"study {study!r} must have ended with a final table, but has not: resume it.")
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
