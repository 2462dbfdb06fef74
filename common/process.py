"""Who does something in a study: a process, and whether it still runs."""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

_START_TICKS = 19  # field 22 of /proc/PID/stat, counted behind the name, which ends with the last bracket
_STATE = 0
_DEAD = ("Z", "X")


@dataclass(frozen=True)
class Process:
    """A process, named so that a clock that is set or corrected does not change it.

    Attributes:
        host: name of the computer that it runs on.
        pid: its number there. Numbers are given anew.
        started: where and when it started. On Linux ``boot/namespace/ticks``: the boot of the machine, the namespace
            that numbers its processes (a container's own) and the clock ticks from that boot to its start. Elsewhere
            the time that the system noted.
    """

    host: str
    pid: int
    started: str

    @classmethod
    def this(cls) -> Process:
        """The process that calls this."""
        return cls(socket.gethostname(), os.getpid(), _started(os.getpid()) or "")

    @property
    def is_here(self) -> bool:
        """Whether it can be looked at from here: same computer, same boot and same container."""
        return self.host == socket.gethostname() and self.started.rpartition("/")[0] == _place()

    def lives(self) -> bool:
        """Whether it still runs, as far as this process can see; see `is_here`.

        Returns:
            True for one that cannot be looked at. One that ended but was not yet collected by its parent is dead.
        """
        return not self.is_here or _started(self.pid) == self.started


@cache
def _place() -> str:
    """The boot and the namespace of this process; empty where the system has neither."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').stat().st_ino}"
    except OSError:
        return ""


def _started(pid: int) -> str | None:
    """Where and when the living process of a number started; None: there is none."""
    if sys.platform != "linux":
        try:
            process = psutil.Process(pid)
            return None if process.status() == psutil.STATUS_ZOMBIE else repr(process.create_time())
        except psutil.NoSuchProcess:
            return None
    fields = _stat(pid)
    return None if fields is None or fields[_STATE] in _DEAD else f"{_place()}/{fields[_START_TICKS]}"


def _stat(pid: int) -> list[str] | None:
    """The fields of ``/proc/PID/stat`` behind the name; None where there is no such process."""
    try:
        content = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return content.rpartition(")")[2].split()


def is_zombie(pid: int, start_ticks: int) -> bool:
    """Whether a process of this computer has ended without being collected by its parent.

    Args:
        pid: its number.
        start_ticks: when it started, in clock ticks since the computer was started.

    Returns:
        False where another process has the number now, and on systems other than Linux.
    """
    fields = _stat(pid) if sys.platform == "linux" else None
    return fields is not None and fields[_STATE] in _DEAD and int(fields[_START_TICKS]) == start_ticks
