"""Locks of entries: a file each, so that no two processes write one entry. A lock outlives no process of this host."""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
from pathlib import Path
from typing import Any

import psutil

_START_TOLERANCE = 2.0
"""Seconds by which a process's start time may drift: the system derives it from a clock that is being adjusted."""

_UNWRITTEN = 10.0
"""Seconds after which a lock file without content belongs to a process that was killed before it wrote any."""


class EntryLock:
    """A lock file, made exclusively. It names host, process and the process's start time.

    Args:
        path: of the file; its folder must exist.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._content = path, b""

    def acquire(self) -> bool:
        """Take the lock, also from a process of this host that has ended; False where another process holds it."""
        content = json.dumps(
            {
                "host": socket.gethostname(),
                "pid": os.getpid(),
                "started": psutil.Process().create_time(),
                "token": uuid.uuid4().hex,
            }
        ).encode()
        if self._create(content):
            return True
        dead = self._dead_content()
        if dead is None:
            return False
        # Several processes may have seen the same dead holder: the one that holds the lock to inherit replaces it, and
        # looks again first, for it may be the second to inherit.
        inheritance = EntryLock(self._path.with_name(f"{self._path.name}.heir"))
        if not inheritance.acquire():
            return False
        try:
            if self._read() != dead:
                return False
            own = self._path.with_name(f"{self._path.name}.{uuid.uuid4().hex}")
            own.write_bytes(content)
            own.replace(self._path)
            self._content = content
            return True
        finally:
            inheritance.release()

    def release(self) -> None:
        """Give the lock back; nothing happens where it is not held."""
        if self._content and self._read() == self._content:
            self._path.unlink(missing_ok=True)
        self._content = b""

    def holder(self) -> str:
        """Who holds the lock, in words."""
        known = _parsed(self._read() or b"")
        return f"process {known['pid']} on host {known['host']}" if known else "another process"

    def held(self) -> bool:
        """Whether a process that may still run holds the lock."""
        return self._read() is not None and self._dead_content() is None

    def _create(self, content: bytes) -> bool:
        try:
            handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o644)
        except FileExistsError:
            return False
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        self._content = content
        return True

    def _read(self) -> bytes | None:
        try:
            return self._path.read_bytes()
        except FileNotFoundError:
            return None

    def _dead_content(self) -> bytes | None:
        """What a holder wrote that runs no more; None where there is no holder, or one that may run."""
        content = self._read()
        if content is None:
            return None
        known = _parsed(content)
        if known is None:
            try:
                return content if time.time() - self._path.stat().st_mtime > _UNWRITTEN else None
            except FileNotFoundError:
                return None
        return None if _lives(known) else content


def _parsed(content: bytes) -> dict[str, Any] | None:
    try:
        known = json.loads(content)
        return {"host": str(known["host"]), "pid": int(known["pid"]), "started": float(known["started"])}
    except (ValueError, KeyError, TypeError):
        return None


def _lives(holder: dict[str, Any]) -> bool:
    """Whether the holder's process still runs. One on another host cannot be looked at and counts as living."""
    if holder["host"] != socket.gethostname():
        return True
    try:
        process = psutil.Process(holder["pid"])
        if process.status() == psutil.STATUS_ZOMBIE:  # it ended, only its parent has not noticed yet
            return False
        return bool(abs(process.create_time() - holder["started"]) < _START_TOLERANCE)
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        return True
