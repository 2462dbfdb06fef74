"""The ledger's tables. They share a database with Optuna's, so all names start with ``diffsift_``.

A change to these tables needs a new `SCHEMA` and a migration from the one before, in `_migration`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Float, ForeignKey, Index, String, Table, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

SCHEMA = 3
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


class VersionTable(Base):
    __tablename__ = "diffsift_version"
    schema: Mapped[int] = mapped_column("schema", primary_key=True, autoincrement=False)


class StudyTable(Base):
    __tablename__ = "diffsift_study"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(_NAME, unique=True)
    identity: Mapped[dict[str, Any]] = mapped_column(JSON)
    runtime: Mapped[dict[str, Any]] = mapped_column(JSON)
    pool: Mapped[list[Any]] = mapped_column(JSON)
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class EvaluationTable(Base):
    """A row per selection of a study that was evaluated or is being evaluated.

    A process claims a selection by inserting its row without a score, and completes the row with the score. `token`
    names the holder: the process that evaluates the selection, or that is about to write its trial. A row without a
    token has no holder; the other columns of a holder then say who evaluated the selection.
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
    process_started: Mapped[float | None] = mapped_column(Float(53))


class EliminationTable(Base):
    """What backward elimination left of a study's pool; its solves are looks at labels beside the evaluations."""

    __tablename__ = "diffsift_elimination"
    study_id: Mapped[int] = mapped_column(ForeignKey("diffsift_study.id"), primary_key=True)
    selection: Mapped[list[Any]] = mapped_column(JSON)
    solves: Mapped[int]
    created: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class DecisionTable(Base):
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


class OpeningTable(Base):
    __tablename__ = "diffsift_opening"
    id: Mapped[int] = mapped_column(primary_key=True)
    study_id: Mapped[int] = mapped_column(ForeignKey("diffsift_study.id"))
    rows: Mapped[list[str]] = mapped_column("row_names", JSON)
    opened: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)


class OutcomeTable(Base):
    __tablename__ = "diffsift_outcome"
    study_id: Mapped[int] = mapped_column(ForeignKey("diffsift_study.id"), primary_key=True)
    outcome: Mapped[dict[str, Any]] = mapped_column(JSON)
    written: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now, onupdate=utc_now)


class LockTable(Base):
    """One row per study that has a leader. No foreign key: the lock is taken before the study is made."""

    __tablename__ = "diffsift_lock"
    study: Mapped[str] = mapped_column(_NAME, primary_key=True)
    token: Mapped[str] = mapped_column(String(32))
    host: Mapped[str] = mapped_column(_NAME)
    pid: Mapped[int]
    process_started: Mapped[float] = mapped_column(Float(53))
    since: Mapped[datetime] = mapped_column(DateTime(timezone=True), default=utc_now)
