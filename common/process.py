"""Who does something in a study: a process, and whether it still runs."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass

import psutil

_START_TOLERANCE = 2.0
"""Seconds by which a process's start time may drift: the system derives it from a clock that is being adjusted."""


@dataclass(frozen=True)
class Process:
    """A process by host, number and start time (seconds since 1970): numbers are given anew.

    Attributes:
        host: name of the computer that it runs on.
        pid: its number there.
        process_started: when it started, in seconds since 1970.
    """

    host: str
    pid: int
    process_started: float

    @classmethod
    def this(cls) -> Process:
        """The process that calls this."""
        return cls(socket.gethostname(), os.getpid(), psutil.Process().create_time())

    @property
    def is_here(self) -> bool:
        """Whether it ran on this host, so that it can be looked at."""
        return self.host == socket.gethostname()

    def lives(self) -> bool:
        """Whether it still runs. One on another host cannot be looked at and counts as living."""
        if not self.is_here:
            return True
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:  # it ended, only its parent has not noticed yet
                return False
            return abs(process.create_time() - self.process_started) < _START_TOLERANCE
        except psutil.NoSuchProcess:
            return False
        except psutil.AccessDenied:
            return True
