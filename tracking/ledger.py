"""The ledger: what was measured, decided and scored, so that nothing is computed twice."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, Self

from sqlalchemy import Engine, Select, delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from diffsift.common.reporting import LOGGER
from diffsift.errors import StudyError, did_you_mean
from diffsift.spaces import Selection

from ._database import open_database, require_sound, transaction
from ._holders import unlock
from ._lock import exclusive, require_lead
from ._retry import Notify, retrying
from ._study_rows import Eliminated, Opening, StudyRow, plain, require_same_identity
from ._tables import (
    DecisionTable,
    EliminationTable,
    EvaluationTable,
    OpeningTable,
    OutcomeTable,
    StudyTable,
    checksum_of,
    utc,
)
from .claims import Claims
from .records import ActivationDecision, Evaluation

__all__ = ["Ledger", "open_database"]


@retrying
class Ledger:
    """Reads and writes the ledger; every method is one short transaction.

    All methods raise `StudyError` when the database fails or, where they name a study, when there is none of that name.
    Where the connection to a server is lost, they try again for some minutes.

    Args:
        engine: from `open_database`. Used as a context manager, the ledger closes its connections on leaving.
        notify: told that a server does not answer, and that it does again; default: the logger ``diffsift``.
    """

    def __init__(self, engine: Engine, notify: Notify = LOGGER.warning) -> None:
        self._engine, self._notify = engine, notify
        self._leads: dict[str, str] = {}  # studies that this process leads, and the token of its lock
        self._ids: dict[str, int] = {}  # of studies, whose numbers never change

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._engine.dispose()

    @property
    def notify(self) -> Notify:
        """What is told that the server does not answer."""
        return self._notify

    def require_sound(self) -> None:
        """Look the whole database over, which takes a second for each 100 MB or so.

        Raises:
            StudyError: it is damaged.
        """
        require_sound(self._engine)

    # Studies

    def create_study(
        self, name: str, identity: Mapping[str, Any], runtime: Mapping[str, Any], pool: Sequence[Any]
    ) -> None:
        """Make a study.

        Args:
            name: at most 250 characters; none that there is already.
            identity: fields that never change again, as JSON.
            runtime: fields of this run, as JSON.
            pool: see `StudyRow`; never changes again.

        Raises:
            StudyError: there is a study of that name already.
        """
        try:
            with transaction(self._engine) as session:
                session.add(
                    StudyTable(name=name, identity=plain(identity), runtime=plain(runtime), pool=plain(list(pool)))
                )
        except IntegrityError as error:
            raise StudyError(
                f"there is already a study {name!r}: resume it, or give another name (study.name)."
            ) from error

    def study(self, name: str) -> StudyRow | None:
        """The study of that name, or None.

        Args:
            name: name of the study.

        Returns:
            Its row; None where there is no such study.
        """
        with transaction(self._engine) as session:
            row = session.scalar(select(StudyTable).where(StudyTable.name == name))
        return None if row is None else _study_row(row)

    def studies(self) -> list[StudyRow]:
        """All studies, oldest first."""
        with transaction(self._engine) as session:
            return [_study_row(row) for row in session.scalars(select(StudyTable).order_by(StudyTable.id))]

    def set_runtime(self, name: str, runtime: Mapping[str, Any]) -> None:
        """Replace the fields that may change between runs.

        Args:
            name: of the study.
            runtime: the specification of this run, as JSON.
        """
        with transaction(self._engine) as session:
            self._study(session, name).runtime = plain(runtime)

    def check_identity(self, name: str, identity: Mapping[str, Any]) -> None:
        """Make sure that `identity` is the one the study was made with.

        Args:
            name: of the study.
            identity: as the present specification has it, as JSON.

        Raises:
            StudyError: fields differ; all are named by their dotted path, with both values.
        """
        with transaction(self._engine) as session:
            old = self._study(session, name).identity
        require_same_identity(name, old, plain(identity))

    # Evaluations

    def record_evaluation(self, study: str, evaluation: Evaluation) -> None:
        """Record a selection's score without a claim, as `Claims` does for what this process evaluates.

        Args:
            study: name.
            evaluation: nothing is written where the selection has a score or is being evaluated.

        Raises:
            StudyError: a score is not finite, or there is no such study.
        """
        with contextlib.suppress(IntegrityError), transaction(self._engine) as session:
            selection = {"selection_key": evaluation.selection.key, "selection": evaluation.selection.to_json()}
            row = {"study_id": self._study_id(session, study), **selection, **evaluation.columns()}
            checksum = checksum_of(EvaluationTable, row)
            session.execute(insert(EvaluationTable).values(**row, checksum=checksum))

    def evaluation(self, study: str, selection: Selection) -> Evaluation | None:
        """The score of exactly this selection, or None if it was never scored.

        Args:
            study: name of the study.
            selection: in canonical form.

        Returns:
            The score with fold scores, channels and seconds; None where there is none yet.
        """
        with transaction(self._engine) as session:
            row = session.scalar(self._scored(session, study).where(EvaluationTable.selection_key == selection.key))
        return None if row is None else _evaluation(row)

    def evaluations(self, study: str) -> list[Evaluation]:
        """All scores of a study, in the order in which their selections were claimed.

        Args:
            study: name of the study.

        Returns:
            One evaluation for each selection that has a score.
        """
        with transaction(self._engine) as session:
            rows = session.scalars(self._scored(session, study).order_by(EvaluationTable.id))
            return [_evaluation(row) for row in rows]

    def evaluated(self, study: str) -> int:
        """How many selections of a study have a score.

        Args:
            study: name of the study.

        Returns:
            The number of scores; selections that are claimed but not scored yet do not count.
        """
        with transaction(self._engine) as session:
            counted = select(func.count(EvaluationTable.score))
            return session.scalar(counted.where(EvaluationTable.study_id == self._study_id(session, study))) or 0

    def _scored(self, session: Session, study: str) -> Select[EvaluationTable]:
        in_study = EvaluationTable.study_id == self._study_id(session, study)
        return select(EvaluationTable).where(in_study, EvaluationTable.score.is_not(None))

    def record_elimination(self, study: str, left: Selection, solves: int) -> None:
        """Remember what backward elimination left and what it cost; it is done once in a study.

        Args:
            study: name.
            left: the candidates that are left.
            solves: candidate sets that were solved on labels.
        """
        with transaction(self._engine) as session:
            identifier = self._study_id(session, study)
            session.merge(EliminationTable(study_id=identifier, selection=left.to_json(), solves=solves))

    def elimination(self, study: str) -> Eliminated | None:
        """What backward elimination left, or None where there was none.

        Args:
            study: name of the study.

        Returns:
            The selection that was left, and how many solves that took.
        """
        with transaction(self._engine) as session:
            row = session.get(EliminationTable, self._study_id(session, study))
        return None if row is None else Eliminated(Selection.from_json(row.selection), row.solves)

    # Decisions, openings, outcome

    def record_decisions(self, study: str, decisions: Sequence[ActivationDecision]) -> None:
        """Remember what the filters decided; earlier decisions of the study are replaced.

        Args:
            study: name.
            decisions: about every activation, in the order in which they are given back.
        """
        with transaction(self._engine) as session:
            identifier = self._study(session, study).id
            session.execute(delete(DecisionTable).where(DecisionTable.study_id == identifier))
            session.add_all(
                DecisionTable(study_id=identifier, position=position, **vars(decision))
                for position, decision in enumerate(decisions)
            )

    def decisions(self, study: str) -> list[ActivationDecision]:
        """What the filters decided, in the order it was recorded.

        Args:
            study: name of the study.

        Returns:
            One decision for each activation of each model.
        """
        names = [field.name for field in fields(ActivationDecision)]
        with transaction(self._engine) as session:
            identifier = self._study(session, study).id
            query = select(DecisionTable).where(DecisionTable.study_id == identifier).order_by(DecisionTable.position)
            return [
                ActivationDecision(**{name: getattr(row, name) for name in names}) for row in session.scalars(query)
            ]

    def open_test_split(self, study: str, rows: Sequence[str]) -> None:
        """Record that the sealed test split is opened now. Call it before anything is scored on it.

        Args:
            study: name.
            rows: names of the rows of the final table, which were frozen beforehand.

        Raises:
            StudyError: another process took the study's lock over from this one.
        """
        with transaction(self._engine) as session:
            if study in self._leads:
                require_lead(session, study, self._leads[study])
            session.add(OpeningTable(study_id=self._study(session, study).id, rows=list(rows)))

    def openings(self, study: str) -> list[Opening]:
        """Every opening of the test split, oldest first.

        Args:
            study: name of the study.

        Returns:
            Each opening with its time (UTC) and the rows that were scored.
        """
        with transaction(self._engine) as session:
            identifier = self._study(session, study).id
            query = select(OpeningTable).where(OpeningTable.study_id == identifier).order_by(OpeningTable.id)
            return [Opening(utc(row.opened), tuple(row.rows)) for row in session.scalars(query)]

    def record_outcome(self, study: str, outcome_json: Mapping[str, Any]) -> None:
        """Remember the outcome of a finished search; an earlier one is replaced.

        Args:
            study: name.
            outcome_json: from `Outcome.to_json`.
        """
        with transaction(self._engine) as session:
            session.merge(OutcomeTable(study_id=self._study(session, study).id, outcome=plain(outcome_json)))

    def outcome(self, study: str) -> dict[str, Any] | None:
        """The recorded outcome, or None while the search has not finished.

        Args:
            study: name of the study.

        Returns:
            What `Outcome.to_json` gave.
        """
        with transaction(self._engine) as session:
            row = session.get(OutcomeTable, self._study(session, study).id)
            return None if row is None else row.outcome

    # Locks and claims

    @contextlib.contextmanager
    def exclusive(self, study: str) -> Iterator[None]:
        """Lead the study with this process inside a ``with`` block; the study need not exist yet.

        The leader prepares a study, and opens its test split; other processes may join it to evaluate selections
        (`claims`). A lock left by a process that no longer runs is taken over: at once where it ran here, and after a
        minute without a sign of life where it ran on another host.

        Args:
            study: name.

        Yields:
            Nothing; the lock is released at the end of the block.

        Raises:
            StudyError: a living process, this one included, leads the study.
        """
        with exclusive(self._engine, study, self._notify) as token:
            self._leads[study] = token
            try:
                yield
            finally:
                self._leads.pop(study, None)

    def unlock(self, study: str) -> list[str]:
        """Free a study from the processes of other hosts, and from those of this one that have ended.

        A process elsewhere that lives all the same notices it and does no harm; but what it evaluates is done twice.

        Args:
            study: name.

        Returns:
            The processes whose lock or claims were dropped, in words.

        Raises:
            StudyError: there is no such study.
        """
        with transaction(self._engine) as session:
            found = session.scalar(select(StudyTable.id).where(StudyTable.name == study))
            freed = unlock(session, study, found)
            if found is None and not freed:
                self._study(session, study)
            return freed

    def claims(self, study: str) -> Claims:
        """The selections of a study that this process evaluates, for a ``with`` block; see `Claims`.

        Args:
            study: name of the study.

        Returns:
            A context manager.
        """
        with transaction(self._engine) as session:
            return Claims(self._engine, self._study_id(session, study), self._notify)

    def _study_id(self, session: Session, name: str) -> int:
        """The study's number, without its specification and pool: they are large, and this is asked in each trial."""
        if name not in self._ids:
            found = session.scalar(select(StudyTable.id).where(StudyTable.name == name))
            self._ids[name] = self._study(session, name).id if found is None else found
        return self._ids[name]

    def _study(self, session: Session, name: str) -> StudyTable:
        row = session.scalar(select(StudyTable).where(StudyTable.name == name))
        if row is None:
            known = list(session.scalars(select(StudyTable.name)))
            hint = did_you_mean(name, known) if known else "; there is no study yet: start one with 'diffsift search'"
            raise StudyError(f"there is no study {name!r}{hint}")
        return row


def _study_row(row: StudyTable) -> StudyRow:
    return StudyRow(row.name, row.identity, row.runtime, row.pool, utc(row.created))


def _evaluation(row: EvaluationTable) -> Evaluation:
    if row.score is None or row.fold_scores is None or row.channels is None or row.seconds is None:
        raise StudyError(f"the ledger's row of selection {row.selection_key} must hold a score, but is incomplete.")
    return Evaluation(Selection.from_json(row.selection), row.score, tuple(row.fold_scores), row.channels, row.seconds)
