"""Locks of entries: a file each, so that no two processes write one entry."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from pathlib import Path

from filelock import SoftFileLock, Timeout

from diffsift.common.process import is_zombie

_TICKS = 2**64 - 1
"""The part of the third line that says when the holder started, in clock ticks; the rest says in which boot."""

_UNWRITTEN = 10.0
"""Seconds after which a lock file without content was left by a process that was killed before it wrote any."""


class EntryLock:
    """A lock file that names its holder's process and host.

    A process of this host that has ended holds nothing: the next one takes its lock over at once, also where its parent
    has not collected it. Whether a process on another host still runs cannot be known here, so its lock stays until it
    gives it back.

    Args:
        path: of the file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = SoftFileLock(path, blocking=False, thread_local=False)

    def acquire(self) -> bool:
        """Take the lock if no other process holds it.

        Returns:
            Whether it was taken.

        Raises:
            OSError: the file cannot be written.
        """
        if self._lock.is_locked:
            return False
        self._remove_abandoned()
        try:
            self._lock.acquire()
        except Timeout:
            return False
        return True

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        self._lock.release()

    def holder(self) -> str:
        """Who holds the lock, in words."""
        try:
            pid, host, *_ = self._path.read_text().splitlines()
        except (OSError, ValueError):
            return "another process"
        return f"process {pid} on host {host.partition('?')[0]}"  # behind the mark: which container

    def held(self) -> bool:
        """Whether a process that may still run holds the lock."""
        if self._lock.is_locked or not self._path.exists():
            return self._lock.is_locked
        try:
            return not self.acquire()
        except OSError:  # a bank that may only be read: nothing can be taken over
            return True
        finally:
            self.release()

    def _remove_abandoned(self) -> None:
        """Remove a file that belongs to nobody, under a lock of its own: who looks later finds a new one."""
        if not self._abandoned():
            return
        with suppress(Timeout), SoftFileLock(f"{self._path}.removal", blocking=False):
            if self._abandoned():
                self._path.unlink(missing_ok=True)

    def _abandoned(self) -> bool:
        """Whether nobody will ever write to the file, or its holder is a zombie of this host."""
        try:
            status = self._path.stat()
            if status.st_size == 0:
                return time.time() - status.st_mtime > _UNWRITTEN
            pid, host, start, *_ = self._path.read_text().splitlines()
        except (OSError, ValueError):
            return False
        is_here = host.partition("?")[0] == socket.gethostname()
        return is_here and is_zombie(int(pid), int(start) & _TICKS)
