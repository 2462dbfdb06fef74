"""What the command line prints: tables of activations, studies and results."""

from __future__ import annotations

import csv as csv_module
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, fields
from pathlib import Path

from rich import box
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
from diffsift.common.reporting import Reporter
from diffsift.errors import StudyError
from diffsift.runs.compare import Comparison
from diffsift.runs.pick import front_of
from diffsift.runs.properties import MeasuredModel, measure_model
from diffsift.runs.select import Result
from diffsift.spaces import FilterSpecification, Properties, apply_filters, capacity, count_reasons
from diffsift.study_store import StudyStore
from diffsift.tracking import Outcome, Verdict

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
    with StudyStore.existing(workspace, storage) as store:
        ledger, place = store.ledger, store.workspace
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
                "not finished" if outcome is None else Verdict.from_json(outcome["verdict"]).recommendation,
            )
    if not table.row_count:
        raise StudyError(
            f"{place.folder} holds no study yet: a study begins when its bank is full. Repeat the command that was "
            "stopped; it goes on."
        )
    Console().print(table)


def print_result(result: Result, workspace: Path | None) -> None:
    """The final table, the verdict, and where things are."""
    console, outcome = Console(), result.outcome
    console.print(_final_table(outcome))
    console.print(
        f"[bold]Verdict[/bold]     {outcome.verdict.headline} [bold]{outcome.verdict.recommendation}[/bold]",
        highlight=False,
    )
    for line in outcome.verdict.evidence:
        console.print(f"- {line}", highlight=False)
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


def print_front(study: str, *, workspace: Path | None, storage: str | None) -> None:
    """The Pareto front of a study as a table."""
    table = Table(title=f"{study}: what no other selection beats in score and cost (scores on validation)")
    for column in ("score", "channels", "passes", "operations"):
        table.add_column(column, justify="right")
    table.add_column("selection", overflow="fold")
    for record in front_of(study, workspace=workspace, storage=storage):
        share = "" if record.operations is None else f"{record.operations:.2f}"
        cells = (f"{record.score:.4f}", str(record.channels), str(record.passes), share)
        table.add_row(*cells, str(record.selection))
    Console().print(table)


def print_comparison(found: Comparison) -> None:
    """The comparison as a table."""
    table = Table("study", "features", found.metric, "95 % interval", "channels")
    for study, (model, rows) in found.rows.items():
        for row in rows:
            interval = f"{row['low']:.3f} to {row['high']:.3f}"
            table.add_row(study, row["name"], f"{row['score']:.3f}", interval, str(row["channels"]))
        table.add_row(study, f"(model: {model})", "", "", "", style="dim", end_section=True)
    Console().print(table)
    Console().print("Protocol: " + "; ".join(f"{name}: {value}" for name, value in found.protocol.items()))


def show_properties(
    model: str, images: Path, timesteps: Sequence[int], *, device: str, csv: bool, out: Path | None, reporter: Reporter
) -> None:
    """Measure a model, and print what was measured."""
    measured = measure_model(model, images, timesteps, device=device, out=out, reporter=reporter)
    rows = list(_property_rows(measured))
    if csv:
        writer = csv_module.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_PROPERTY_COLUMNS)
        writer.writerows(rows)
    else:
        # One line per candidate, also in 80 columns: reasons are in the CSV and, counted, below.
        decisions = measured.decisions
        title = f"{model}: {len(decisions)} activations, {sum(d.kept for d in decisions)} kept"
        table = Table(*_SHORT, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name, timestep, *numbers, kept, _ in rows:
            short = [f"{float(number):.2f}" for number in numbers[:-1]]
            cells = (name, timestep, *short, f"{float(numbers[-1]):.0f}", kept)
            table.add_row(*cells, style=None if kept == "yes" else "dim")
        Console().print(table)
        for reason, count in count_reasons(decisions):
            reporter.info("", f"{count:4d} dropped: {reason}")
    if out is not None:
        reporter.info("pictures", str(out))


def _property_rows(measured: MeasuredModel) -> Iterator[tuple[str, ...]]:
    for decision in measured.decisions:
        entry = decision.activation
        for timestep in measured.timesteps:
            found = measured.of(entry.name, timestep)
            numbers = [*asdict(found).values(), capacity(entry, found)]
            kept = "yes" if decision.kept else "no"
            yield (entry.name, str(timestep), *(f"{number:.3f}" for number in numbers), kept, decision.reason)


_PROPERTY_COLUMNS = ("name", "timestep", *(field.name for field in fields(Properties)), "capacity", "kept", "reason")
_SHORT = ("name", "t", "noise", "gran", "over", "local", "pos", "incr", "outl", "cap", "kept")
"""Headings of the printed table: timestep, the properties in their order, capacity."""
