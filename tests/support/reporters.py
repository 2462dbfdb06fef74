"""A reporter that tests can look at afterwards."""

from __future__ import annotations

from diffsift.common.reporting import NullReporter


class Recorder(NullReporter):
    """Keeps every line and warning as the console shows it: topic, then message.

    Attributes:
        lines: in order.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def info(self, topic: str, message: str) -> None:
        self.lines.append(f"{topic:12}{message}")

    def warning(self, message: str) -> None:
        self.info("warning", message)
