"""Reporters: who prints what, and where."""

from __future__ import annotations

import logging

import pytest

from diffsift.common.reporting import ConsoleReporter, LoggingReporter, NotebookReporter, NullReporter, Reporter

REPORTERS = [NullReporter(), LoggingReporter(), ConsoleReporter(), NotebookReporter()]


@pytest.mark.parametrize("reporter", REPORTERS, ids=lambda reporter: type(reporter).__name__)
def test_every_reporter_takes_everything(reporter: Reporter) -> None:
    reporter.info("bank", "12 MB")
    reporter.warning("careful")
    with reporter.progress(3, "bank", "pass", initial=1) as bar:
        bar.update()
        assert bar.total == 3
    with reporter.progress(None, "unknown", "image") as bar:
        bar.update(2)


def test_the_null_reporter_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    test_every_reporter_takes_everything(NullReporter())
    assert capsys.readouterr() == ("", "")


def test_the_console_shows_lines_on_stdout_and_warnings_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = ConsoleReporter()
    reporter.info("bank", "12 MB")
    reporter.info("", "more of it")
    reporter.warning("careful")
    out, err = capsys.readouterr()
    assert out == "bank        12 MB\n            more of it\n"
    assert err == "warning     careful\n"


def test_bars_are_for_terminals(capsys: pytest.CaptureFixture[str]) -> None:
    with ConsoleReporter().progress(3, "bank", "pass") as bar:  # here standard error is no terminal
        bar.update(3)
    assert capsys.readouterr().err == ""


def test_python_code_gets_the_lines_by_logging(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    reporter = LoggingReporter(bars=False)
    with caplog.at_level(logging.INFO, logger="diffsift"):
        reporter.info("bank", "12 MB")
        reporter.warning("careful")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", "bank: 12 MB"),
        ("WARNING", "careful"),
    ]
    assert capsys.readouterr().out == ""
