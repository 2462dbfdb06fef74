"""Freeing a study from processes that cannot give back what they hold."""

from __future__ import annotations

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from diffsift.common.process import Process

from ._lease import Watch
from ._tables import EvaluationTable, HolderTable, LockTable


def unlock(session: Session, study: str, number: int | None) -> list[str]:
    """Drop the lock and the claims of a study, but for those of living processes of this host; see `Ledger.unlock`.

    Args:
        session: in a transaction.
        study: name.
        number: the ledger's, where the study exists.
    """
    in_study = EvaluationTable.study_id == number
    tokens = set(session.scalars(select(EvaluationTable.token).where(in_study, EvaluationTable.token.is_not(None))))
    lock = session.get(LockTable, study)
    if lock is not None:
        tokens.add(lock.token)
    freed, watch = set(), Watch()
    for token in tokens:
        holder = session.get(HolderTable, token)
        if holder is not None:
            process = Process(holder.host, holder.pid, holder.started)
            if process.is_here and watch.lives(token, process, holder.beat):
                continue
            freed.add(f"process {process.pid} on host {process.host}")
            session.delete(holder)
        held = (in_study, EvaluationTable.token == token)
        session.execute(delete(LockTable).where(LockTable.study == study, LockTable.token == token))
        session.execute(delete(EvaluationTable).where(*held, EvaluationTable.score.is_(None)))
        session.execute(update(EvaluationTable).where(*held).values(token=None))
    return sorted(freed)
