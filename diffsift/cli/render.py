"""Tables: one record, printed for people, or as CSV or JSON for programs."""

from __future__ import annotations

import csv
import io
import json
import shutil
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table as RichTable

Cell = str | int | float | bool | None
_NUMBER = int | float | None

_GAP = 2
"""Spaces between columns."""

_ANY_WIDTH = 1_000_000
"""Characters: wider than any table."""


class Format(StrEnum):
    """How a table is printed."""

    table = "table"
    csv = "csv"
    json = "json"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: heading, and name of the field in CSV and JSON.
        decimals: of floating-point numbers in the printed table; CSV and JSON hold them in full.
        priority: 0: the column is always shown. Where the terminal is too narrow, those of the highest number are left
            out first.
        wraps: whether long text may continue on the next line; it is broken at spaces only.
    """

    name: str
    decimals: int = 3
    priority: int = 0
    wraps: bool = False

    def text(self, cell: Cell) -> str:
        """A cell as it is printed."""
        if cell is None:
            return ""
        if isinstance(cell, bool):
            return "yes" if cell else "no"
        return f"{cell:.{self.decimals}f}" if isinstance(cell, float) else str(cell)


@dataclass(frozen=True)
class Table:
    """What a command prints.

    Attributes:
        columns: in order.
        rows: cells in the order of the columns; None where there is nothing to say.
        title: above the printed table.
        notes: lines below the printed table.
        styles: how rows look on a terminal, by their position: names of rich's styles.
    """

    columns: tuple[Column, ...]
    rows: Sequence[tuple[Cell, ...]]
    title: str = ""
    notes: Sequence[str] = ()
    styles: Mapping[int, str] = field(default_factory=dict)


def render(table: Table, format: Format = Format.table) -> None:
    """Print a table to standard output.

    On a terminal it is fitted to the width: columns are left out by priority, and where that is not enough the table
    becomes a list. Elsewhere it is plain text of any width. Nothing is ever cut.

    Args:
        table: what to print.
        format: how.
    """
    stream = sys.stdout
    if format is Format.csv:
        stream.write(as_csv(table))
    elif format is Format.json:
        stream.write(as_json(table))
    elif stream.isatty():
        stream.write(as_text(table, shutil.get_terminal_size().columns, styled=True))
    else:
        stream.write(as_text(table))


def as_csv(table: Table) -> str:
    """The rows as CSV with a header; numbers in full, empty where there is nothing to say."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    for row in table.rows:
        writer.writerow(["yes" if cell is True else "no" if cell is False else cell for cell in row])
    return text.getvalue()


def as_json(table: Table) -> str:
    """The rows as a JSON list of mappings."""
    names = [column.name for column in table.columns]
    rows = [dict(zip(names, row, strict=True)) for row in table.rows]
    return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"


def as_text(table: Table, width: int | None = None, *, styled: bool = False) -> str:
    """The table for people.

    Args:
        table: what to print.
        width: characters that fit into a line; default: any number.
        styled: whether rows and headings have their styles, as terminals show them.

    Returns:
        Lines; where not even the indispensable columns fit, a block of lines for each row.
    """
    from rich.console import Console
    from rich.text import Text

    text = io.StringIO()
    console = Console(file=text, width=width or _ANY_WIDTH, force_terminal=styled, highlight=False)
    if table.title:
        console.print(Text(table.title, style="bold"), soft_wrap=True)
    shown = _fitting(table, width)
    if shown or width is None:
        console.print(_grid(table, shown))
    else:
        console.print(Text(_blocks(table, width)), soft_wrap=True)
    for note in table.notes:
        console.print(Text(note), soft_wrap=width is None)
    return "".join(f"{line.rstrip()}\n" for line in text.getvalue().splitlines())


def _grid(table: Table, shown: Sequence[int]) -> RichTable:
    from rich.table import Table as RichTable
    from rich.text import Text

    grid = RichTable(box=None, pad_edge=False, padding=(0, _GAP, 0, 0))
    for index in shown:
        column, numbers = table.columns[index], all(isinstance(row[index], _NUMBER) for row in table.rows)
        grid.add_column(
            column.name,
            justify="right" if numbers else "left",
            no_wrap=not column.wraps,
            min_width=_least_width(table, index),
        )
    for number, row in enumerate(table.rows):
        grid.add_row(*(Text(table.columns[index].text(row[index])) for index in shown), style=table.styles.get(number))
    return grid


def _blocks(table: Table, width: int) -> str:
    """The rows one below the other, a line for each cell; text is broken at spaces only, whatever the width."""
    label = max(len(column.name) for column in table.columns) + _GAP
    blocks = []
    for row in table.rows:
        lines = []
        for column, cell in zip(table.columns, row, strict=True):
            indent = " " * label
            text = textwrap.fill(
                column.text(cell),
                max(width, label + 1),
                initial_indent=column.name.ljust(label),
                subsequent_indent=indent,
                break_long_words=False,
                break_on_hyphens=False,
            )
            lines += [text] if text.strip() else []
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks)


def _fitting(table: Table, width: int | None) -> list[int]:
    """Positions of the columns that fit; none where not even the indispensable ones do."""
    shown = list(range(len(table.columns)))
    while width is not None and sum(_least_width(table, index) + _GAP for index in shown) - _GAP > width:
        dropped = max(shown, key=lambda index: (table.columns[index].priority, index))
        if not table.columns[dropped].priority:
            return []
        shown.remove(dropped)
    return shown


def _least_width(table: Table, index: int) -> int:
    """The width in which no word of a column breaks, or no line where lines do not wrap."""
    column = table.columns[index]
    texts = [column.name, *(column.text(row[index]) for row in table.rows)]
    return max(len(part) for text in texts for part in (text.split() if column.wraps else [text]) or [""])
