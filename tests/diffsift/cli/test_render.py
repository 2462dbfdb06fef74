"""Tables: nothing is cut at any width, and every format holds the same rows."""

from __future__ import annotations

import csv
import io
import json
import sys

import pytest

from diffsift.cli.render import Column, Format, Table, as_csv, as_json, as_text, render

NAME = "up-level2-repeat1-vit-block0-cross-q"
SELECTION = "up-level0-repeat1-res-out@300 + 0.5 up-level0-upsampler-out@300"
TABLE = Table(
    (
        Column("name"),
        Column("channels", priority=2),
        Column("score", decimals=2, priority=1),
        Column("kept"),
        Column("selection", wraps=True),
    ),
    [(NAME, 12, 0.12345, True, SELECTION), ("x", None, 0.5, False, "y")],
    title="Something longer than a narrow terminal is wide",
    notes=["a note"],
)


@pytest.mark.parametrize("width", [None, 200, 120, 100, 80, 60, 40, 20])
def test_no_word_is_broken_at_any_width(width: int | None) -> None:
    text = as_text(TABLE, width)
    assert "…" not in text
    assert not set("│┃━─") & set(text)
    for word in (NAME, *SELECTION.split(), "yes", "a note"):
        assert word in text
    if width is not None and width >= 60:
        assert max(map(len, text.splitlines())) <= width


def test_elsewhere_than_on_a_terminal_a_row_is_a_line() -> None:
    title, heading, first, second, note = as_text(TABLE).splitlines()
    assert heading.split() == ["name", "channels", "score", "kept", "selection"]
    assert first.endswith(SELECTION)
    assert (title, note) == (TABLE.title, "a note")
    assert second.split() == ["x", "0.50", "no", "y"]


def test_columns_are_left_out_by_priority_and_then_the_table_becomes_a_list() -> None:
    assert as_text(TABLE, 85).splitlines()[1].split() == ["name", "score", "kept", "selection"]
    assert as_text(TABLE, 75).splitlines()[1].split() == ["name", "kept", "selection"]
    listed = as_text(TABLE, 50)
    assert "channels" in listed  # a list has room for all
    assert f"name       {NAME}\n" in listed


def test_csv_and_json_hold_numbers_in_full() -> None:
    rows = list(csv.DictReader(io.StringIO(as_csv(TABLE))))
    assert rows[0] == {"name": NAME, "channels": "12", "score": "0.12345", "kept": "yes", "selection": SELECTION}
    assert rows[1]["channels"] == ""
    assert json.loads(as_json(TABLE))[0] == {
        "name": NAME,
        "channels": 12,
        "score": 0.12345,
        "kept": True,
        "selection": SELECTION,
    }
    assert json.loads(as_json(TABLE))[1]["channels"] is None


def test_a_terminal_gets_styles_and_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("COLUMNS", "85")
    monkeypatch.delenv("NO_COLOR", raising=False)
    out, plain = Terminal(), io.StringIO()
    for stream in (out, plain):
        monkeypatch.setattr(sys, "stdout", stream)
        render(Table(TABLE.columns, TABLE.rows, styles={1: "dim"}), Format.table)
    assert "\x1b[" in out.getvalue()
    assert "channels" not in out.getvalue()
    assert "\x1b[" not in plain.getvalue()
