"""Claims: which selections of a study are being evaluated, and by which process, so that no two do the same work."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Any, Self

from sqlalchemy import CursorResult, Engine, bindparam, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from diffsift.common.process import Process
from diffsift.errors import StudyError
from diffsift.spaces import Selection

from ._database import transaction
from ._lease import Lease, Watch
from ._retry import Notify, retried, retrying
from ._tables import EvaluationTable, HolderTable, StudyTable, checksum_of, table_of, utc
from .records import Evaluation

_ROWS, _HOLDERS = table_of(EvaluationTable), table_of(HolderTable)
_IN_STUDY = _ROWS.c.study_id == bindparam("study")
_OURS = _ROWS.c.token == bindparam("holder")
_UNSCORED = _ROWS.c.score.is_(None)

# What every trial asks for, built once: to build a statement takes longer than the database does to answer it.
_CLAIM = insert(_ROWS)
_COMPLETE = update(_ROWS).where(_IN_STUDY, _ROWS.c.selection_key == bindparam("key"), _OURS, _UNSCORED)
_COUNT = select(func.count()).where(_IN_STUDY)
_PENDING = select(_ROWS.c.token).where(_IN_STUDY, _UNSCORED)
_HELD = select(
    *(_ROWS.c[name] for name in ("id", "selection_key", "selection", "score", "created", "token")),
    *(_HOLDERS.c[name] for name in ("host", "pid", "started", "beat")),
).select_from(_ROWS.outerjoin(_HOLDERS, _ROWS.c.token == _HOLDERS.c.token))

_TRIES = 5


class ClaimStatus(Enum):
    """What became of an attempt to claim a selection."""

    GRANTED = "granted"
    """This process may evaluate the selection or, where it is scored, write its trial."""
    TAKEN = "taken"
    """Another process evaluates the selection or is about to write its trial."""
    FULL = "full"
    """As many selections as the study asks for are evaluated or being evaluated."""


@dataclass(frozen=True)
class Claim:
    """A selection that another process holds, and since when (UTC).

    Attributes:
        selection: the claimed selection.
        process: the process that evaluates it.
        since: when it was claimed, in UTC.
    """

    selection: Selection
    process: Process
    since: datetime


@dataclass(frozen=True)
class ClaimResult:
    """What became of an attempt to claim a selection, and what was seen meanwhile.

    Attributes:
        status: whether the selection may be evaluated.
        is_scored: whether the ledger holds its score already.
        scored: number of scores in the study.
        has_peers: whether other processes evaluate selections of the study.
        holder: who holds the selection, where it is taken and the holder is known.
    """

    status: ClaimStatus
    is_scored: bool = False
    scored: int = 0
    has_peers: bool = True
    holder: Claim | None = None


class _FullError(Exception):
    """Rolls a claim back that would lead beyond the number of selections asked for."""


@retrying
class Claims:
    """The selections of a study that this process evaluates; all others belong to the other processes.

    A selection goes through three states, all of them in one row of the ledger, which is unique by selection:

    1. `claim` inserts the row without a score. While the process lives, nobody else gets the selection; once it has
       ended, whoever comes across the row removes it. A process elsewhere has ended when it gave no sign of life for a
       minute.
    2. `complete` puts the score into the row.
    3. The process writes the trial. A score whose holder has ended and that has no trial was left by a process that was
       killed between 2 and 3: whoever finds it may `claim` it and writes the trial.

    All rows count towards the limit, so never more selections are evaluated than asked for.

    Use it as a context manager: claims are only valid inside, and those that are left are given back at the end.

    Args:
        engine: of the study database.
        study_id: the ledger's number of the study.
        notify: told that the database does not answer, and that it does again.
    """

    def __init__(self, engine: Engine, study_id: int, notify: Notify) -> None:
        self._engine, self._study_id, self._notify = engine, study_id, notify
        self._lease, self._watch = Lease(engine), Watch()
        self._token, self._process = self._lease.token, self._lease.process
        self._row = {"study_id": study_id, "token": self._token, "host": self._process.host, "pid": self._process.pid}
        self._us = {"study": study_id, "holder": self._token}

    def __enter__(self) -> Self:
        retried(self._open, self._notify)
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(StudyError), transaction(self._engine) as session:  # what stays has no holder from now
            self._lease.close(session)
            session.execute(delete(_ROWS).where(_IN_STUDY, _OURS, _UNSCORED), self._us)
            session.execute(update(_ROWS).where(_IN_STUDY, _OURS).values(token=None), self._us)

    def claim(self, selection: Selection, limit: int) -> ClaimResult:
        """Claim a selection, if nobody holds it and at most `limit` selections of the study are held or scored then.

        Args:
            selection: what is to be evaluated.
            limit: how many selections the study is to have; one that is scored already needs no room.

        Returns:
            Whether the claim was granted. Where `is_scored` is set, its trial may be missing, or was written a moment
            ago.

        Raises:
            StudyError: the database cannot be written.
        """
        for _ in range(_TRIES):  # the holder may leave between two of our steps
            try:
                with transaction(self._engine) as session:
                    return self._insert(session, selection, limit)
            except _FullError:
                return ClaimResult(ClaimStatus.FULL)
            except IntegrityError:
                result = self._take_over(selection)
            if result is not None:
                return result
        return ClaimResult(ClaimStatus.TAKEN)

    def complete(self, evaluation: Evaluation) -> bool:
        """Put the score of a claimed selection into the ledger.

        Args:
            evaluation: of a selection that this process claimed.

        Returns:
            False where the claim was broken meanwhile (by ``diffsift unlock``, or because this process gave no sign of
            life for too long): the score is not recorded then, and the selection belongs to whoever claims it next.

        Raises:
            StudyError: a score is not finite, or the database cannot be written.
        """
        key = {"selection_key": evaluation.selection.key, "selection": evaluation.selection.to_json()}
        columns = evaluation.columns()
        checksum = checksum_of(EvaluationTable, {"study_id": self._study_id, **key, **columns})
        values = {**self._us, "key": evaluation.selection.key, **columns, "checksum": checksum}
        with transaction(self._engine) as session:
            if _changed(session.execute(_COMPLETE, values)):
                return True
            # Where the connection was cut, an earlier try may have got through.
            ours = (_IN_STUDY, _ROWS.c.selection_key == evaluation.selection.key, _OURS)
            return session.scalar(select(_ROWS.c.score).where(*ours), self._us) == evaluation.score

    def others(self) -> list[Claim]:
        """What other living processes evaluate, the longest first; rows of processes that ended are removed.

        Raises:
            StudyError: the database cannot be read or written.
        """
        query = _HELD.where(_IN_STUDY, _UNSCORED, _ROWS.c.token != bindparam("holder"))
        with transaction(self._engine) as session:
            rows = session.execute(query.order_by(_ROWS.c.created), self._us).mappings().all()
            # By token: a row of the same selection may be another process's by now.
            dead = [row["token"] for row in rows if not self._lives(row)]
            if dead:
                session.execute(delete(_ROWS).where(_IN_STUDY, _UNSCORED, _ROWS.c.token.in_(dead)), self._us)
                session.execute(delete(_HOLDERS).where(_HOLDERS.c.token.in_(dead)))
        return [_claim_of(row) for row in rows if row["token"] not in dead]

    def _open(self) -> None:
        with transaction(self._engine) as session:
            self._lease.open(session)

    def _lives(self, row: Mapping[Any, Any]) -> bool:
        process = None if row["host"] is None else _process(row)
        return self._watch.lives(row["token"], process, row["beat"] or 0)

    def _insert(self, session: Session, selection: Selection, limit: int) -> ClaimResult:
        """Insert first and count afterwards: from then on no other process can change what is counted.

        The insert holds SQLite's write lock; where several processes can write at once, the study's row is locked.
        """
        if session.get_bind().dialect.name != "sqlite":
            session.execute(select(StudyTable.id).where(StudyTable.id == self._study_id).with_for_update())
        session.execute(_CLAIM, {**self._row, "selection_key": selection.key, "selection": selection.to_json()})
        rows = session.scalar(_COUNT, self._us) or 0
        if rows > limit:
            raise _FullError
        return self._granted(session, rows)

    def _granted(self, session: Session, rows: int, *, is_scored: bool = False) -> ClaimResult:
        pending = session.scalars(_PENDING, self._us).all()
        has_peers = any(token != self._token for token in pending)
        return ClaimResult(ClaimStatus.GRANTED, is_scored, rows - len(pending), has_peers)

    def _take_over(self, selection: Selection) -> ClaimResult | None:
        """What becomes of a claim on a selection that has a row; None: the row is gone, so try again."""
        with transaction(self._engine) as session:
            query = _HELD.where(_IN_STUDY, _ROWS.c.selection_key == selection.key)
            row = session.execute(query, self._us).mappings().one_or_none()
            if row is None:
                return None
            is_scored = row["score"] is not None
            if row["token"] == self._token:  # an earlier try whose answer was lost with the connection
                return self._granted(session, session.scalar(_COUNT, self._us) or 0, is_scored=is_scored)
            if self._lives(row):
                return ClaimResult(ClaimStatus.TAKEN, is_scored, holder=_claim_of(row))
            # Compare and swap: of several processes that saw the same row, one finds its holder unchanged.
            seen = (_ROWS.c.id == row["id"], _ROWS.c.token.is_not_distinct_from(row["token"]))
            if row["score"] is None:
                session.execute(delete(_ROWS).where(*seen, _UNSCORED))
                return None
            if not _changed(session.execute(update(_ROWS).where(*seen).values(self._row))):
                return None
            return self._granted(session, session.scalar(_COUNT, self._us) or 0, is_scored=True)


def _changed(result: Any) -> bool:
    return isinstance(result, CursorResult) and result.rowcount == 1


def _claim_of(row: Mapping[Any, Any]) -> Claim:
    return Claim(Selection.from_json(row["selection"]), _process(row), utc(row["created"]))


def _process(row: Mapping[Any, Any]) -> Process:
    return Process(row["host"], row["pid"], row["started"])
