"""Leases: who holds locks and claims in a study database, and whether that process still lives.

A process of this machine is looked up by its number and start. One elsewhere counts up its row's `beat` while it lives;
it is dead once this process has watched the number stand still for `LEASE` seconds. No clock is compared with another.
"""

from __future__ import annotations

import threading
import time
import uuid
from contextlib import suppress

from sqlalchemy import CursorResult, Engine, delete, insert, update
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from diffsift.common.process import Process

from ._tables import HolderTable, table_of

BEAT = 10.0
"""Seconds between two signs of life."""

LEASE = 60.0
"""Seconds without a sign of life after which a process elsewhere counts as dead."""

_ROWS = table_of(HolderTable)
_open_here: set[str] = set()
"""Tokens of this process's leases: another token of this process has no holder any more."""


class Lease:
    """This process as a holder of locks or claims; between `open` and `close` it shows that it lives.

    Args:
        engine: of the study database.

    Attributes:
        token: names this hold.
        process: this one.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self.token, self.process = engine, uuid.uuid4().hex, Process.this()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="diffsift-lease", daemon=True)

    def open(self, session: Session) -> None:
        """Write the holder's row, and begin to count."""
        self._insert(session)
        _open_here.add(self.token)
        if self._thread.ident is None:
            self._thread.start()

    def close(self, session: Session) -> None:
        """Remove the row; what it still held belongs to nobody from now."""
        self._ended.set()
        _open_here.discard(self.token)
        session.execute(delete(_ROWS).where(_ROWS.c.token == self.token))

    def _insert(self, session: Session) -> None:
        session.execute(delete(_ROWS).where(_ROWS.c.token == self.token))  # of an earlier try, whose answer was lost
        session.execute(insert(_ROWS).values(token=self.token, beat=0, **vars(self.process)))

    def _beat(self) -> None:
        ours = _ROWS.c.token == self.token
        while not self._ended.wait(BEAT):
            # A database that does not answer now is asked again: who watches cannot reach it either.
            with suppress(SQLAlchemyError), Session(self._engine) as session, session.begin():
                beaten = session.execute(update(_ROWS).where(ours).values(beat=_ROWS.c.beat + 1))
                is_there = isinstance(beaten, CursorResult) and beaten.rowcount == 1
                if not is_there and not self._ended.is_set():  # taken for dead while this machine slept
                    self._insert(session)


class Watch:
    """Looks at other holders again and again, to see which are dead."""

    def __init__(self) -> None:
        self._this = Process.this()
        self._seen: dict[str, tuple[int, float, float]] = {}  # by token: beat, seconds it stood still, last look

    def lives(self, token: str | None, process: Process | None, beat: int) -> bool:
        """Whether a holder lives, as far as was seen until now.

        Args:
            token: of the lock or claim; None: it has no holder.
            process: of the holder's row; None: it has none any more.
            beat: of the holder's row.
        """
        if token is None or process is None:
            return False
        if process.is_here:
            return token in _open_here if process == self._this else process.lives()
        now = time.monotonic()
        last_beat, still, last_look = self._seen.get(token, (beat, 0.0, now))
        # Time in which this process did not look (asleep, or without the database) says little about the other one.
        still = still + min(now - last_look, BEAT) if beat == last_beat else 0.0
        self._seen[token] = (beat, still, now)
        return still < LEASE

    def saw_beat(self, token: str) -> bool:
        """Whether a holder elsewhere gave a sign of life between the last two looks."""
        return self._seen[token][1] == 0.0
