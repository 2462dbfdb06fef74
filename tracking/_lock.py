"""One leading process per study: a lock in the study database that outlives no process."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import CursorResult, Engine, delete, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from diffsift.common.process import Process
from diffsift.errors import StudyError

from ._database import transaction
from ._lease import BEAT, LEASE, Lease, Watch
from ._retry import Notify, retried
from ._tables import HolderTable, LockTable, utc_now


@contextmanager
def exclusive(engine: Engine, study: str, notify: Notify) -> Iterator[str]:
    """Hold the lock of `study` inside the ``with`` block, under a token; see `Ledger.exclusive`."""
    lease = Lease(engine)
    try:
        retried(lambda: _acquire(engine, study, lease, notify), notify)
        yield lease.token
    finally:
        with contextlib.suppress(StudyError), transaction(engine) as session:  # what stays has no holder from now
            lease.close(session)
            session.execute(delete(LockTable).where(LockTable.study == study, LockTable.token == lease.token))


def require_lead(session: Session, study: str, token: str) -> None:
    """Refuse to go on where another process took the lock of this one over.

    Raises:
        StudyError: the lock has another token.
    """
    lock = session.get(LockTable, study)
    if lock is None or lock.token != token:
        raise StudyError(
            f"study {study!r} must be led by this process, but another one took it over: this one gave no sign of life "
            "for a while, or 'diffsift unlock' freed the study. Nothing finished is lost."
        )


def _acquire(engine: Engine, study: str, lease: Lease, notify: Notify) -> None:
    """Insert our row, or put it in the place of a dead process's row."""
    with transaction(engine) as session:
        lease.open(session)
        lock = session.get(LockTable, study)
        if lock is not None and lock.token == lease.token:
            return  # an earlier try got through, but its answer was lost
    ours = {"token": lease.token, "since": utc_now()}
    for _ in range(3):  # the holder may leave, or another process may take over, between two of our steps
        try:
            with transaction(engine) as session:
                session.add(LockTable(study=study, **ours))
            return
        except IntegrityError:
            dead = _dead_holder(engine, study, notify)
        if dead is None:
            continue
        with transaction(engine) as session:
            # Compare and swap: of several processes that saw the same dead holder, one finds its token still there.
            swap = update(LockTable).where(LockTable.study == study, LockTable.token == dead).values(**ours)
            result = session.execute(swap)
            taken = isinstance(result, CursorResult) and result.rowcount == 1
            session.execute(delete(HolderTable).where(HolderTable.token == dead))
        if taken:
            return
    raise StudyError(f"study {study!r} is being started by several processes at once: stop all but one.")


def _dead_holder(engine: Engine, study: str, notify: Notify) -> str | None:
    """The token of a lock whose holder is dead; None where the lock was given back. One elsewhere is watched.

    Raises:
        StudyError: the holder lives.
    """
    watch, was_watched = Watch(), False
    while True:
        with transaction(engine) as session:
            lock = session.get(LockTable, study)
            holder = None if lock is None else session.get(HolderTable, lock.token)
        if lock is None:
            return None
        if holder is None or not watch.lives(lock.token, _process(holder), holder.beat):
            return lock.token
        if _process(holder).is_here or (was_watched and watch.saw_beat(lock.token)):
            raise _held(study, lock, holder)
        if not was_watched:
            was_watched = True
            notify(
                f"study {study!r} was last searched by process {holder.pid} on host {holder.host}: watching for up to "
                f"{LEASE:.0f} s whether that one still lives"
            )
        time.sleep(BEAT / 10)


def _process(holder: HolderTable) -> Process:
    return Process(holder.host, holder.pid, holder.started)


def _held(study: str, lock: LockTable, holder: HolderTable) -> StudyError:
    return StudyError(
        f"study {study!r} is being searched by process {holder.pid} on host {holder.host} "
        f"since {lock.since:%Y-%m-%d %H:%M:%S} UTC: wait for it or stop it."
    )
