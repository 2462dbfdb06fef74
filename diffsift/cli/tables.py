"""What the command line prints: tables of activations, studies and results."""

from __future__ import annotations

import csv as csv_module
import re
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffsift.backbones import (
    Scope,
    in_scope,
    is_unet,
    load_structure,
    operation_shares,
    read_activations,
    unet_pass,
    with_operations,
)
from diffsift.errors import StudyError
from diffsift.runs.select import Result
from diffsift.spaces import FilterSpecification, apply_filters
from diffsift.tracking import Ledger, Outcome, open_database
from diffsift.workspace import Workspace

_COLUMNS = ("name", "kind", "stage", "level", "depth", "channels", "stride", "operations", "kept", "reason")


def print_activations(model: str, revision: str | None, *, scope: Scope, csv: bool) -> None:
    """The catalogue of a model, or the part of it that the paper tried, with the structural filter's decisions.

    The share of a pass's operations is counted for U-Nets; of a transformer the configuration alone does not say what a
    pass is given.
    """
    denoiser = load_structure(model, revision=revision)
    every = read_activations(denoiser)
    run = unet_pass(denoiser) if is_unet(denoiser) else None
    known = in_scope(every if run is None else with_operations(every, operation_shares(denoiser, run, every)), scope)
    decisions = apply_filters(known, FilterSpecification(rules="structural"))
    rows = []
    for decision in decisions:
        entry = decision.activation
        level = "" if entry.level is None else str(entry.level)
        kept = "yes" if decision.kept else "no"
        # An attention map is as wide as the grid or the prompt, which configurations do not say.
        numbers = (str(entry.depth), str(entry.channels or ""), str(entry.stride))
        share = "" if entry.operations is None else f"{entry.operations:.3f}"
        rows.append((entry.name, entry.kind, entry.stage, level, *numbers, share, kept, decision.reason))
    if csv:
        writer = csv_module.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
        return
    table = Table(*_COLUMNS, title=f"{model}: {len(rows)} activations, {sum(d.kept for d in decisions)} kept")
    for row in rows:
        table.add_row(*row, style=None if row[-2] == "yes" else "dim")
    Console().print(table)


def print_status(workspace: Path | None, storage: str | None) -> None:
    """The studies of a workspace.

    Raises:
        StudyError: there is no study database.
    """
    place = Workspace.at(workspace)
    place.require_studies(storage)
    with Ledger(open_database(storage or place.study_url)) as ledger:
        columns = ("study", "evaluated", "solved by elimination", "asked", "best on validation", "selection", "verdict")
        table = Table()
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in ledger.studies():
            evaluations = ledger.evaluations(row.name)
            best = max(evaluations, key=lambda entry: entry.score, default=None)
            eliminated, outcome = ledger.elimination(row.name), ledger.outcome(row.name)
            table.add_row(
                row.name,
                str(len(evaluations)),
                "" if eliminated is None else str(eliminated.solves),
                str(row.runtime["study"]["trials"]),
                "" if best is None else f"{best.score:.4f}",
                "" if best is None else str(best.selection),
                "not finished" if outcome is None else _gist(str(outcome["verdict"])),
            )
    if not table.row_count:
        raise StudyError(
            f"{place.folder} holds no study yet: a study begins when its bank is full. Repeat the command that was "
            "stopped; it goes on."
        )
    Console().print(table)


def _gist(verdict: str) -> str:
    """The first thing that a verdict says of others, without figures; all of it is in the report."""
    score, _, rest = verdict.partition(". ")
    said = (rest or score).partition(". ")[0].rstrip(".")
    return re.sub(r" \([^)]*\)", "", said) + "."


def print_result(result: Result, workspace: Path | None) -> None:
    """The final table, the verdict, and where things are."""
    console, outcome = Console(), result.outcome
    console.print(_final_table(outcome))
    console.print(f"[bold]Verdict[/bold] {outcome.verdict}", highlight=False)
    where = "" if workspace is None else f" --workspace {workspace}"
    console.print(
        f"selection   {result.selection_file}  (with {result.selection_file.stem}.safetensors)", highlight=False
    )
    console.print(f"report      {result.report_file}", highlight=False)
    console.print(f"trials      diffsift ui{where}", highlight=False)


def _final_table(outcome: Outcome) -> Table:
    table = Table(title=f"{outcome.metric} on the sealed test split (95 % intervals over images)")
    for column, justify in (
        ("features", "left"),
        ("score", "right"),
        ("interval", "left"),
        ("gain over this", "left"),
        ("channels", "right"),
        ("passes", "right"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    for row in outcome.table:
        gain = "" if row.gain is None else f"{row.gain:+.3f} [{row.gain_low:+.3f}, {row.gain_high:+.3f}]"
        interval = f"[{row.low:.3f}, {row.high:.3f}]"
        style = "bold" if row.gain is None else None
        cells = (row.name, f"{row.score:.3f}", interval, gain, str(row.channels), str(row.passes))
        table.add_row(*(cell.replace("[", r"\[") for cell in cells), style=style)
    return table
