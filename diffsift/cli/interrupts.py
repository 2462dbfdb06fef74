"""How a search is stopped: Ctrl-C, the time limit of a cluster and a terminal that closes all end it in good order."""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

import typer

_GRACE = 2.5
"""Seconds in which a stopped search gives back what it evaluates and closes its logs; then the process just ends."""

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


@contextmanager
def interruptible(study: str) -> Iterator[None]:
    """On Ctrl-C, SIGTERM or SIGHUP, stop in good order and say how the study is continued, within three seconds.

    A second signal ends the process at once. Nothing finished is lost either way, as nothing is when it is killed.
    A signal that is ignored, as by ``nohup``, stays ignored.

    Args:
        study: name, for what is said.
    """
    if threading.current_thread() is not threading.main_thread():  # where signals do not arrive
        yield
        return
    received: list[int] = []
    said = (
        "\nStopped; what is finished is stored. Continue with the same command, or once there are trials with: "
        f"diffsift resume {study}\n"
    )

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            _end(number, said)
        raise KeyboardInterrupt

    with _handled(stop, said):
        try:
            yield
        except BaseException as error:
            # Once a signal has come, any other error follows from stopping, such as output to a closed terminal.
            if not received and not isinstance(error, KeyboardInterrupt):
                raise
            if received:  # all is given back and closed; Python's own end, with all that is loaded, takes seconds
                with suppress(OSError):
                    sys.stdout.flush()
                _end(received[0], said)
            typer.echo(said, err=True, nl=False)
            raise typer.Exit(128 + signal.SIGINT) from None


@contextmanager
def _handled(stop: Callable[[int, FrameType | None], Any], said: str) -> Iterator[None]:
    """Call `stop` for every signal, and have a thread end the process when that takes too long.

    The thread is woken by the system's own handler: Python's waits until the main thread is back from what it computes.
    """
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    numbers = [getattr(signal, name) for name in _NAMES if hasattr(signal, name)]
    before = {number: signal.getsignal(number) for number in numbers}
    caught = [number for number in numbers if before[number] is not signal.SIG_IGN]
    threading.Thread(target=_watch, args=(ours, caught, said), name="diffsift-signals", daemon=True).start()
    wakeup = signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
    try:
        for number in caught:
            signal.signal(number, stop)
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])
        signal.set_wakeup_fd(wakeup)
        theirs.close()  # ends the thread where no signal has come; else it sees to the end of the process


def _watch(ours: socket.socket, caught: list[int], said: str) -> None:
    with ours:
        while number := ours.recv(1):
            if number[0] in caught:
                time.sleep(_GRACE)
                _end(number[0], said)


def _end(number: int, said: str) -> None:
    with suppress(OSError):
        os.write(2, said.encode())
    os._exit(128 + number)
