"""Where a run says what it does: one `Reporter` instead of prints, progress bars and warnings all over the code.

The library prints nothing by itself. Every long step is given a reporter and tells it lines, warnings, progress and
finished trials; what becomes of them is the caller's choice.
"""

from __future__ import annotations

import logging
import sys
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, TextIO

from tqdm import tqdm

if TYPE_CHECKING:
    from diffsift.tracking import TrialRecord

LOGGER = logging.getLogger("diffsift")
_QUIET = 0.5
"""Seconds before a progress bar shows: work that is done by then needs none."""


class Reporter(ABC):
    """Receives what a run has to say.

    The life of a run: `info` and `warning` at any time; `progress` when a step of known length begins, whose bar the
    step updates and closes; `trial` after each trial of a search that this process has seen finish. All are called
    from one thread of one process.
    """

    @abstractmethod
    def info(self, topic: str, message: str) -> None:
        """A line about the course of things.

        Args:
            topic: one word that says what it is about, such as ``bank``; empty where a line continues the last one.
            message: the line.
        """

    @abstractmethod
    def warning(self, message: str) -> None:
        """Something the user should know and may have to act on.

        Args:
            message: the line, without the word "warning".
        """

    @abstractmethod
    def progress(self, total: int | None, description: str, unit: str, *, initial: int = 0) -> tqdm[Any]:
        """A progress bar, to be used as a context manager and told of each finished unit by ``update``.

        Args:
            total: units of work; None where the number is not known.
            description: what is being done.
            unit: what is counted, in the singular.
            initial: units that were finished before.

        Returns:
            The bar. A reporter that shows none gives one that is disabled.
        """

    def trial(self, record: TrialRecord) -> None:  # noqa: B027  (a hook that few need)
        """A trial that is finished. Nothing by default.

        Args:
            record: the trial with its selection, score and costs.
        """


class NullReporter(Reporter):
    """Says nothing."""

    def info(self, topic: str, message: str) -> None:
        pass

    def warning(self, message: str) -> None:
        pass

    def progress(self, total: int | None, description: str, unit: str, *, initial: int = 0) -> tqdm[Any]:
        return tqdm(total=total, initial=initial, disable=True)


class LoggingReporter(Reporter):
    """Lines and warnings to the logger ``diffsift``, progress bars to standard error: what Python code gets by default.

    Args:
        bars: whether progress bars are shown. In a notebook they are widgets.
    """

    def __init__(self, *, bars: bool = True) -> None:
        self._bars = bars

    def info(self, topic: str, message: str) -> None:
        LOGGER.info("%s: %s", topic, message) if topic else LOGGER.info("%s", message)

    def warning(self, message: str) -> None:
        LOGGER.warning("%s", message)

    def progress(self, total: int | None, description: str, unit: str, *, initial: int = 0) -> tqdm[Any]:
        from tqdm.auto import tqdm as bar

        return bar(total=total, initial=initial, desc=description, unit=unit, delay=_QUIET, disable=not self._bars)


class ConsoleReporter(Reporter):
    """Lines to standard output, topic first; warnings, and progress bars on a terminal, to standard error.

    Args:
        bars: whether progress bars are shown; default: where standard error is a terminal.
        out: where lines go; default: standard output.
    """

    def __init__(self, *, bars: bool | None = None, out: TextIO | None = None) -> None:
        self._bars, self._out = bars, out

    def info(self, topic: str, message: str) -> None:
        tqdm.write(f"{topic:12}{message}", file=self._out or sys.stdout)

    def warning(self, message: str) -> None:
        tqdm.write(f"{'warning':12}{message}", file=sys.stderr)

    def progress(self, total: int | None, description: str, unit: str, *, initial: int = 0) -> tqdm[Any]:
        hidden = None if self._bars is None else not self._bars  # None: hidden where it is no terminal
        return tqdm(total=total, initial=initial, desc=description, unit=unit, delay=_QUIET, disable=hidden)


class NotebookReporter(LoggingReporter):
    """Lines and warnings printed below the cell, progress bars as widgets."""

    def info(self, topic: str, message: str) -> None:
        print(f"{topic:12}{message}")

    def warning(self, message: str) -> None:
        print(f"{'warning':12}{message}")
