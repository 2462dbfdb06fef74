"""Facts of a study in the ledger: how it was made, what elimination left, when the test split was opened."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

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
