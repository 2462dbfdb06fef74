"""Claims: which selections of a study are being evaluated, and by which process, so that no two do the same work."""

from __future__ import annotations

import contextlib
import os
import uuid
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Self

from sqlalchemy import ColumnElement, Engine, and_, bindparam, delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from diffsift.common.process import Process
from diffsift.errors import StudyError
from diffsift.spaces import Selection

from ._database import transaction
from ._tables import ClaimTable, EvaluationTable, StudyTable, table_of

_CLAIMS, _EVALUATIONS = table_of(ClaimTable), table_of(EvaluationTable)

# What every trial asks for, written once: making a statement anew takes longer than the database does to answer it.
_CLAIM = insert(_CLAIMS)
_WITHDRAW = delete(_CLAIMS).where(
    _CLAIMS.c.study_id == bindparam("study"),
    _CLAIMS.c.token == bindparam("holder"),
    _CLAIMS.c.selection_key == bindparam("key"),
)
_HELD = (
    select(
        _CLAIMS.c.selection_key,
        _CLAIMS.c.token,
        _EVALUATIONS.c.selection_key.is_not(None),
        select(func.count()).where(_EVALUATIONS.c.study_id == bindparam("study")).scalar_subquery(),
    )
    .outerjoin(
        _EVALUATIONS,
        and_(_EVALUATIONS.c.study_id == _CLAIMS.c.study_id, _EVALUATIONS.c.selection_key == _CLAIMS.c.selection_key),
    )
    .where(_CLAIMS.c.study_id == bindparam("study"))
)
"""Of every claim in a study: selection, holder, whether it is scored, and how many scores the study has."""

_TRIES = 5
_open_here: set[str] = set()
"""Tokens of this process's claims: what an earlier search in this process left behind is nobody's."""


class Answer(Enum):
    """What came of asking for a selection."""

    OURS = "ours"
    """This process may evaluate it, or finish it where its score is known."""
    TAKEN = "taken"
    """Another process evaluates it now."""
    FULL = "full"
    """As many as asked are evaluated or being evaluated."""


@dataclass(frozen=True)
class Asked:
    """What came of asking for a selection, and what was seen meanwhile.

    Attributes:
        answer: whether it may be evaluated.
        scored: whether the ledger holds its score.
        evaluations: of the study so far.
        company: whether others hold claims in the study.
    """

    answer: Answer
    scored: bool = False
    evaluations: int = 0
    company: bool = True


@dataclass(frozen=True)
class Claim:
    """What another process evaluates, and since when (UTC)."""

    selection: Selection
    process: Process
    since: datetime


class Claims:
    """What this process evaluates in a study; all else is the other processes'.

    A claim is a row with host, process number and start time. While that process lives, nobody else gets its
    selection; after it has ended, whoever comes across the row removes it. A score is written while its claim is held,
    and `told` gives the claim back once the trial is in the study, so a score without a trial or a claim is one that
    its process did not live to tell: whoever finds it finishes it.

    Use as a context manager: claims are only valid inside, and on leaving those that are left are given back.

    Args:
        engine: of the study database.
        study_id: the ledger's number of the study.
    """

    def __init__(self, engine: Engine, study_id: int) -> None:
        self._engine, self._study_id = engine, study_id
        self._token, self._process = uuid.uuid4().hex, Process.this()
        self._told: list[str] = []

    def __enter__(self) -> Self:
        _open_here.add(self._token)
        return self

    def __exit__(self, *exception: object) -> None:
        _open_here.discard(self._token)
        with contextlib.suppress(StudyError), transaction(self._engine) as session:  # what stays is nobody's from now
            session.execute(delete(ClaimTable).where(self._in_study, ClaimTable.token == self._token))

    def ask(self, selection: Selection, limit: int) -> Asked:
        """Claim a selection, if it is free and evaluating it does not lead beyond `limit` evaluations in all.

        One that has been scored needs no room below the limit.
        """
        for _ in range(_TRIES):  # its holder may give it back between two of our steps
            try:
                with transaction(self._engine) as session:
                    found = self._insert(session, selection, limit)
            except IntegrityError:
                if not self._dropped_dead(selection):
                    return Asked(Answer.TAKEN)
                continue
            self._told.clear()
            return found
        return Asked(Answer.TAKEN)

    def told(self, selection: Selection) -> None:
        """Give a claim back: its trial is in the study. Written with the next `ask` or `settle`, to save a commit."""
        self._told.append(selection.key)

    def settle(self) -> None:
        """Write down at once what was given back."""
        if self._told:
            with transaction(self._engine) as session:
                self._delete_told(session)
            self._told.clear()

    def others(self) -> list[Claim]:
        """What other living processes evaluate, the longest first; the claims of those that ended are removed."""
        with transaction(self._engine) as session:
            query = select(ClaimTable).where(self._in_study, ClaimTable.token != self._token)
            rows = list(session.scalars(query.order_by(ClaimTable.since)))
            # Told from the table by their token: a row of the same selection may be another's by now.
            dead = [row.token for row in rows if not _lives(row)]
            if dead:
                session.execute(delete(ClaimTable).where(self._in_study, ClaimTable.token.in_(dead)))
        return [
            Claim(Selection.from_json(row.selection), _process(row), row.since) for row in rows if row.token not in dead
        ]

    def _insert(self, session: Session, selection: Selection, limit: int) -> Asked:
        """Row first, questions afterwards: from then on no other process's answer can change.

        The insert holds SQLite's write lock; databases that let several write at once are held up by the study's row.
        """
        if session.get_bind().dialect.name != "sqlite":
            session.execute(select(StudyTable.id).where(StudyTable.id == self._study_id).with_for_update())
        self._delete_told(session)
        row = {"selection_key": selection.key, "selection": selection.to_json(), "token": self._token}
        session.execute(_CLAIM, {"study_id": self._study_id, **row, **vars(self._process)})
        claimed = session.execute(_HELD, {"study": self._study_id}).all()  # this one at least
        evaluations = claimed[0][-1]
        done = {key for key, _, is_scored, _ in claimed if is_scored}
        company = any(token != self._token for _, token, _, _ in claimed)
        if selection.key not in done and evaluations + len(claimed) - len(done) > limit:
            self._withdraw(session, selection.key)
            return Asked(Answer.FULL, False, evaluations, company)
        return Asked(Answer.OURS, selection.key in done, evaluations, company)

    def _dropped_dead(self, selection: Selection) -> bool:
        """Whether the way is free: nobody holds the selection, or who held it has ended and the row was removed."""
        with transaction(self._engine) as session:
            row = session.get(ClaimTable, (self._study_id, selection.key))
            if row is None:
                return True
            if _lives(row):
                return False
            session.execute(delete(ClaimTable).where(self._in_study, ClaimTable.token == row.token))
            return True

    def _delete_told(self, session: Session) -> None:
        for key in self._told:
            self._withdraw(session, key)

    def _withdraw(self, session: Session, key: str) -> None:
        session.execute(_WITHDRAW, {"study": self._study_id, "holder": self._token, "key": key})

    @property
    def _in_study(self) -> ColumnElement[bool]:
        return ClaimTable.study_id == self._study_id


def _process(row: ClaimTable) -> Process:
    return Process(row.host, row.pid, row.process_started)


def _lives(row: ClaimTable) -> bool:
    process = _process(row)
    if process.is_here and process.pid == os.getpid():
        return row.token in _open_here
    return process.lives()
