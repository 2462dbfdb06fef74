"""Bringing the study database of an older version up to the present schema."""

from __future__ import annotations

import socket

import psutil
from sqlalchemy import (
    Column,
    ColumnElement,
    Float,
    Integer,
    MetaData,
    String,
    Table,
    delete,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.orm import Session

from diffsift.errors import StudyError

from ._tables import SCHEMA, Base, Checked, EvaluationTable, LockTable, VersionTable, table_of

_OLD = MetaData()
_SCORES = Table(
    "diffsift_evaluation",
    _OLD,
    *(
        Column(column.name, column.type)
        for column in table_of(EvaluationTable).columns
        if column.name not in ("token", "host", "pid", "checksum")
    ),
)


def _holders(table: str) -> Table:
    """A table that named processes by number and time of their start."""
    columns = (Column("token", String), Column("host", String), Column("pid", Integer))
    return Table(table, _OLD, *columns, Column("process_started", Float), Column("score", Float))


_CLAIMS, _SELECTIONS, _LOCKS = map(_holders, ("diffsift_claim", "diffsift_selection", "diffsift_lock"))


def migrate(session: Session) -> None:
    """Bring the tables up to `SCHEMA`; the tables that are new were created before.

    - Schema 1 had no tables of claims and eliminations.
    - Schema 2 held scores and claims in two tables. The scores are copied, the claims are dropped: they say what
      processes that have ended were about to evaluate.
    - Schema 3 named processes by the time of their start, which moves with the clock, and had no checksums. The
      locks and claims of processes that have ended are dropped; what was written before keeps no checksum.

    An older diffsift refuses the database afterwards.

    Args:
        session: in a transaction that has locked the version row already.

    Raises:
        StudyError: a process of the older version still evaluates selections on this host.
    """
    versions = session.scalars(select(VersionTable.schema)).all()
    if not versions:
        session.add(VersionTable(schema=SCHEMA))
    elif max(versions) < SCHEMA:
        if max(versions) < 3:
            _join_scores_and_claims(session)
        _drop_holders(session)
        _add_checksums(session)
        session.execute(delete(VersionTable).where(VersionTable.schema < max(versions)))
        session.execute(update(VersionTable).values(schema=SCHEMA))
    session.flush()


def _join_scores_and_claims(session: Session) -> None:
    connection = session.connection()
    tables = inspect(connection).get_table_names()
    if _CLAIMS.name in tables:
        _require_ended(session, _CLAIMS)
        _CLAIMS.drop(connection)
    if _SCORES.name in tables:
        present = table_of(EvaluationTable)
        session.execute(delete(present))  # where a database without transactions of tables was left half-way
        copied = [column for column in _SCORES.columns if column.name != "id"]  # numbers are given anew, in their order
        rows = select(*copied).order_by(_SCORES.c.id)
        session.execute(insert(present).from_select([column.name for column in copied], rows))
        _SCORES.drop(connection)


def _drop_holders(session: Session) -> None:
    connection = session.connection()
    columns = {column["name"] for column in inspect(connection).get_columns(_LOCKS.name)}
    if "process_started" in columns:
        _require_ended(session, _LOCKS)
        locks = table_of(LockTable)
        locks.drop(connection)
        locks.create(connection)
    columns = {column["name"] for column in inspect(connection).get_columns(_SELECTIONS.name)}
    if "process_started" in columns:  # which stays, and stays empty: not every database can drop a column
        _require_ended(session, _SELECTIONS, _SELECTIONS.c.token.is_not(None))
        session.execute(delete(_SELECTIONS).where(_SELECTIONS.c.score.is_(None)))
        session.execute(update(_SELECTIONS).values(token=None))


def _add_checksums(session: Session) -> None:
    connection = session.connection()
    for mapper in Base.registry.mappers:
        name = mapper.class_.__tablename__
        columns = {column["name"] for column in inspect(connection).get_columns(name)}
        if issubclass(mapper.class_, Checked) and "checksum" not in columns:
            session.execute(text(f"ALTER TABLE {name} ADD COLUMN checksum VARCHAR(16)"))


def _require_ended(session: Session, holders: Table, *conditions: ColumnElement[bool]) -> None:
    """Refuse while a process of the older version still works on the study on this host."""
    query = select(holders.c.host, holders.c.pid, holders.c.process_started).where(*conditions)
    for host, pid, started in session.execute(query):
        if host == socket.gethostname() and _lives(pid, started):
            raise StudyError(
                f"process {pid} must have ended before its study database is brought up to date, but it still "
                "evaluates selections: stop it, then run again."
            )


def _lives(pid: int, started: float) -> bool:
    """Whether the process of that number started then, give or take what the clock was corrected."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and abs(process.create_time() - started) < 2
    except psutil.NoSuchProcess:
        return False
