"""Bringing the study database of an older version up to the present schema."""

from __future__ import annotations

from sqlalchemy import Column, Float, Integer, MetaData, String, Table, delete, insert, inspect, select, update
from sqlalchemy.orm import Session

from diffsift.common.process import Process
from diffsift.errors import StudyError

from ._tables import SCHEMA, EvaluationTable, VersionTable, table_of

_OLD = MetaData()
_SCORES = Table(
    "diffsift_evaluation",
    _OLD,
    *(
        Column(column.name, column.type)
        for column in table_of(EvaluationTable).columns
        if column.name not in ("token", "host", "pid", "process_started")
    ),
)
_CLAIMS = Table(
    "diffsift_claim", _OLD, Column("host", String), Column("pid", Integer), Column("process_started", Float)
)


def migrate(session: Session) -> None:
    """Bring the tables up to `SCHEMA`; the tables that are new were created before.

    - Schema 1 had no tables of claims and eliminations.
    - Schema 2 held scores and claims in two tables. The scores are copied, the claims are dropped: they say what
      processes that have ended were about to evaluate.

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
        _join_scores_and_claims(session)
        session.execute(delete(VersionTable).where(VersionTable.schema < max(versions)))
        session.execute(update(VersionTable).values(schema=SCHEMA))
    session.flush()


def _join_scores_and_claims(session: Session) -> None:
    connection = session.connection()
    tables = inspect(connection).get_table_names()
    if _CLAIMS.name in tables:
        for host, pid, started in session.execute(select(_CLAIMS)):
            process = Process(host, pid, started)
            if process.is_here and process.lives():
                raise StudyError(
                    f"process {process.pid} must have ended before its study database is brought up to date, but it "
                    "still evaluates selections: stop it, then run again."
                )
        _CLAIMS.drop(connection)
    if _SCORES.name in tables:
        present = table_of(EvaluationTable)
        session.execute(delete(present))  # where a database without transactions of tables was left half-way
        copied = [column for column in _SCORES.columns if column.name != "id"]  # numbers are given anew, in their order
        rows = select(*copied).order_by(_SCORES.c.id)
        session.execute(insert(present).from_select([column.name for column in copied], rows))
        _SCORES.drop(connection)
