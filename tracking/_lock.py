"""One leading process per study: a lock in the study database that outlives no process."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import CursorResult, Engine, delete, update
from sqlalchemy.exc import IntegrityError

from diffsift.common.process import Process
from diffsift.errors import StudyError

from ._database import transaction
from ._tables import LockTable, utc_now


@contextmanager
def exclusive(engine: Engine, study: str) -> Iterator[None]:
    """Hold the lock of `study` inside the ``with`` block; see `Ledger.exclusive`."""
    token = _acquire(engine, study)
    try:
        yield
    finally:
        with transaction(engine) as session:
            session.execute(delete(LockTable).where(LockTable.study == study, LockTable.token == token))


def _acquire(engine: Engine, study: str) -> str:
    """Insert our row, or put it in the place of a dead process's row; returns the token that names our hold."""
    ours = {"token": uuid.uuid4().hex, **vars(Process.this()), "since": utc_now()}
    for _ in range(3):  # the holder may leave, or another process may take over, between two of our steps
        try:
            with transaction(engine) as session:
                session.add(LockTable(study=study, **ours))
            return str(ours["token"])
        except IntegrityError:
            with transaction(engine) as session:
                holder = session.get(LockTable, study)
        if holder is None:
            continue
        if _process(holder).lives():
            raise _held(study, holder)
        with transaction(engine) as session:
            # Compare and swap: of several processes that saw the same dead holder, one finds its token still there.
            swap = update(LockTable).where(LockTable.study == study, LockTable.token == holder.token).values(**ours)
            result = session.execute(swap)
            taken = isinstance(result, CursorResult) and result.rowcount == 1
        if taken:
            return str(ours["token"])
    raise StudyError(f"study {study!r} is being started by several processes at once: stop all but one.")


def _process(holder: LockTable) -> Process:
    return Process(holder.host, holder.pid, holder.process_started)


def _held(study: str, holder: LockTable) -> StudyError:
    message = (
        f"study {study!r} is being searched by process {holder.pid} on host {holder.host} "
        f"since {holder.since:%Y-%m-%d %H:%M:%S} UTC: wait for it or stop it"
    )
    if not _process(holder).is_here:
        message += f"; if it or its host is gone for good, free the study with Ledger.break_lock({study!r})"
    return StudyError(message + ".")
