"""Facts of a study in the ledger: how it was made, what elimination left, when the test split was opened."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from diffsift.errors import StudyError
from diffsift.spaces import Candidate, Selection


@dataclass(frozen=True)
class StudyRow:
    """A study as it was made.

    Attributes:
        name: unique in the database.
        identity: the fields of the specification that never change, as JSON.
        runtime: the specification of the last run, as JSON.
        pool: the frozen, ordered candidates, each as ``[backbone, activation, timestep, operations]`` with the
            operations as a share of a whole pass's, or None.
        created: when (UTC).
    """

    name: str
    identity: dict[str, Any]
    runtime: dict[str, Any]
    pool: list[Any]
    created: datetime

    @property
    def candidates(self) -> list[Candidate]:
        """The pool."""
        return [Candidate(*entry[:3]) for entry in self.pool]

    @property
    def operations(self) -> dict[Candidate, float]:
        """Shares of a whole pass, where they are known; studies of older versions hold none."""
        return {Candidate(*entry[:3]): entry[3] for entry in self.pool if len(entry) > 3 and entry[3] is not None}


@dataclass(frozen=True)
class Eliminated:
    """What backward elimination left of a study's pool.

    Attributes:
        selection: what is left, at equal weights.
        solves: candidate sets that were solved on labels for it.
    """

    selection: Selection
    solves: int


@dataclass(frozen=True)
class Opening:
    """One opening of the sealed test split.

    Attributes:
        opened: when (UTC).
        rows: names of the rows of the final table that it was opened for.
    """

    opened: datetime
    rows: tuple[str, ...]


_CONTENT = {"content.model": "the model's files have", "content.data": "the images or labels have"}


def require_same_identity(study: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Refuse fields that are not what a study was made with.

    Raises:
        StudyError: fields differ; all are named by their dotted path, with both values.
    """
    before, now = _flatten(old), _flatten(new)
    differing = sorted(path for path in {*before, *now} if _value(before, path) != _value(now, path))
    if differing:
        changed = [what for path, what in _CONTENT.items() if any(entry.startswith(path) for entry in differing)]
        told = f" ({' and '.join(changed)} changed since)" if changed else ""
        was = ", ".join(f"{path}={_value(before, path)}" for path in differing)
        got = ", ".join(f"{path}={_value(now, path)}" for path in differing)
        raise StudyError(
            f"study {study!r} was made with {was}, but got {got}{told}: identity fields cannot change; "
            "give the study another name (study.name) to start a new one."
        )


def plain(value: Any) -> Any:
    """What `value` is after a trip through JSON (tuples become lists), so that old and new compare alike."""
    return json.loads(json.dumps(dict(value) if isinstance(value, Mapping) else value))


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(_flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _value(flat: Mapping[str, Any], path: str) -> str:
    return repr(flat[path]) if path in flat else "(not set)"
