"""The ledger's tables. They share a database with Optuna's, so all names start with ``diffsift_``.

A change to these tables needs a new `SCHEMA` and a migration from the one before, in `_migration`.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Float, ForeignKey, Index, String, Table, Text, UniqueConstraint, event
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from diffsift.common.files import digest
from diffsift.errors import StudyError

SCHEMA = 4
_NAME = String(250)  # the longest that MySQL can index


def utc_now() -> datetime:
    return datetime.now(UTC)


def utc(moment: datetime) -> datetime:
    """A stored time with its zone: SQLite gives times back without it, and all of ours are UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


class Base(DeclarativeBase):
    """Metadata of the ledger alone: Optuna's tables are none of our business."""


def table_of(entity: type[Base]) -> Table:
    """For statements on the table itself: those on the class, which make objects, take about twice as long."""
    return Base.metadata.tables[entity.__tablename__]


class Checked:
    """A row with a checksum over what it says: SQLite itself does not notice that a stored value changed.

    It is set when the row is written through a session, and compared when it is read. Rows of older schemas have none.
    """

    checksum: Mapped[str | None] = mapped_column(String(16))


_UNCHECKED = ("id", "checksum", "token", "host", "pid")


def checksum_of(entity: type[Base], values: Mapping[str, Any]) -> str:
    """The checksum of a row: over all columns but its number, its times and its holder.

    Args:
        entity: of the table.
        values: by the attributes' names; those of other columns are ignored.
    """
    columns = entity.__mapper__.column_attrs
    names = (c.key for c in columns if c.key not in _UNCHECKED and not isinstance(c.columns[0].type, DateTime))
    return digest({name: values.get(name) for name in names})


@event.listens_for(Checked, "before_insert", propagate=True)
@event.listens_for(Checked, "before_update", propagate=True)
def _seal(_mapper: Any, _connection: Any, row: Any) -> None:
    row.checksum = checksum_of(type(row), vars(row))


@event.listens_for(Checked, "load", propagate=True)
def _verify(row: Any, _context: Any) -> None:
    if row.checksum is not None and row.checksum != checksum_of(type(row), vars(row)):
        raise StudyError(
            f"the study database is damaged: a row of {row.__tablename__} must have the checksum {row.checksum}, but "
            "what it says has another. Restore the database from a copy."
        )


class VersionTable(Base):
    __tablename__ = "diffsift_version"
    schema: Mapped[int] = mapped_column("schema", primary_key=True, autoincrement=False)


class StudyTable(Checked, Base):
    __tablename__ = "diffsift_study"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(_NAME, unique=True)
    identity: Mapped[dict[str, Any]] = mapped_column(JSON)
    runtime: Mapped[dict[str, Any]] = mapped_column(JSON)
    pool: Mapped[list[Any]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class EvaluationTable(Checked, Base):
    """A row per selection of a study that was evaluated or is being evaluated.

    A process claims a selection by inserting its row without a score, and completes the row with the score. `token`
    names the holder (`HolderTable`): the process that evaluates the selection, or that is about to write its trial. A
    row without a token has no holder; host and number then say who evaluated the selection. A row without a score has
    no checksum.
    """

    __tablename__ = "diffsift_selection"  # schemas 1 and 2 had the scores alone, in ``diffsift_evaluation``
    __table_args__ = (
        UniqueConstraint("study_id", "selection_key"),
        Index("diffsift_selection_score", "study_id", "score"),  # what is claimed and what is scored, without a scan
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("diffsift_study.id"))
    selection_key: Mapped[str] = mapped_column(String(16))
    selection: Mapped[list[Any]] = mapped_column(JSON)
    score: Mapped[float | None] = mapped_column(Float(53))
    fold_scores: Mapped[list[float] | None] = mapped_column(JSON)
    channels: Mapped[int | None]
    seconds: Mapped[float | None] = mapped_column(Float(53))
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
    token: Mapped[str | None] = mapped_column(String(32))
    host: Mapped[str | None] = mapped_column(_NAME)
    pid: Mapped[int | None]


class EliminationTable(Checked, Base):
    """What backward elimination left of a study's pool; its solves are looks at labels beside the evaluations."""

    __tablename__ = "diffsift_elimination"
    study_id: Mapped[int] = mapped_column(ForeignKey("diffsift_study.id"), primary_key=True)
    selection: Mapped[list[Any]] = mapped_column(JSON)
    solves: Mapped[int]
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class DecisionTable(Checked, Base):
    __tablename__ = "diffsift_decision"
    study_id: Mapped[int] = mapped_column(ForeignKey("diffsift_study.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(_NAME)
    kind: Mapped[str] = mapped_column(_NAME)
    stage: Mapped[str] = mapped_column(_NAME)
    level: Mapped[int | None]
    depth: Mapped[int]
    channels: Mapped[int]
    stride: Mapped[int]
    kept: Mapped[bool]
    reason: Mapped[str] = mapped_column(Text)
    backbone: Mapped[str] = mapped_column(_NAME)


class OpeningTable(Checked, Base):
    __tablename__ = "diffsift_opening"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("diffsift_study.id"))
    rows: Mapped[list[str]] = mapped_column("row_names", JSON)
    opened: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class OutcomeTable(Checked, Base):
    __tablename__ = "diffsift_outcome"
    study_id: Mapped[int] = mapped_column(ForeignKey("diffsift_study.id"), primary_key=True)
    outcome: Mapped[dict[str, Any]] = mapped_column(JSON)
    written: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now, onupdate=utc_now)


class LockTable(Base):
    """One row per study that has a leader. No foreign key: the lock is taken before the study is made."""

    __tablename__ = "diffsift_lock"
    study: Mapped[str] = mapped_column(_NAME, primary_key=True)
    token: Mapped[str] = mapped_column(String(32))
    since: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class HolderTable(Base):
    """Who holds locks and claims: a process, under a token. `beat` counts up while it lives."""

    __tablename__ = "diffsift_holder"
    token: Mapped[str] = mapped_column(String(32), primary_key=True)
    host: Mapped[str] = mapped_column(_NAME)
    pid: Mapped[int]
    started: Mapped[str] = mapped_column(_NAME)
    beat: Mapped[int] = mapped_column(default=0)
