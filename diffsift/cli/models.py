"""Commands about models: their activations, declared and measured."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, fields
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import Commands, FormatOption, device, errors, fail, reporter
from .render import Cell, Column, Format, Table, render

if TYPE_CHECKING:
    from diffsift.runs.properties import MeasuredModel
    from diffsift.spaces import Decision

commands = Commands("Models")


class ScopeName(StrEnum):
    """Which part of the catalogue is listed."""

    all = "all"
    paper = "paper"


@commands.add("activations stable-diffusion-v1-5/stable-diffusion-v1-5 --format csv")
def activations(
    model: Annotated[str, typer.Argument(help="Hub id or folder; configurations are enough.", metavar="MODEL")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    scope: Annotated[ScopeName, typer.Option(help="All activations, or those that Meng et al. tried.")] = ScopeName.all,
    format: FormatOption = Format.table,
) -> None:
    """List a model's activations and which of them the structural filter keeps."""
    with errors():
        from diffsift.backbones.folders import check_model_folder

        check_model_folder(model)
        from diffsift.runs.catalogue import list_activations, weights_warning

        warning = weights_warning(model)
        if warning:
            reporter(format).warning(warning)
        decisions = list_activations(model, revision, scope=scope.value)
        rows: list[tuple[Cell, ...]] = []
        for decision in decisions:
            entry = decision.activation
            # An attention map is as wide as the grid or the prompt, which configurations do not say.
            numbers = (entry.level, entry.depth, entry.channels or None, entry.stride, entry.operations)
            rows.append((entry.name, entry.kind, entry.stage, *numbers, decision.kept, decision.reason))
        columns = (
            Column("name"),
            Column("kind", priority=3),
            Column("stage", priority=4),
            Column("level", priority=4),
            Column("depth", priority=4),
            Column("channels", priority=2),
            Column("stride", priority=4),
            Column("operations", priority=4),
            Column("kept"),
            Column("reason", priority=1, wraps=True),
        )
        table = Table(
            columns, rows, title=_title(model, decisions), notes=_reasons(decisions), styles=_dimmed(decisions)
        )
        render(table, format)


@commands.add("properties MODEL --images photos --out pictures")
def properties(
    model: Annotated[str, typer.Argument(help="Hub id or folder of a pipeline.", metavar="MODEL")],
    images: Annotated[Path, typer.Option(help="Folder of PNG or JPEG images without labels; the first 24 are used.")],
    timesteps: Annotated[str, typer.Option(help="Timesteps, separated by commas.")] = "50,200",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for pictures of every activation.")] = None,
    on: Annotated[str, typer.Option("--device", help="Device to run on: auto, cpu, cuda, cuda:1 or mps.")] = "auto",
    format: FormatOption = Format.table,
) -> None:
    """Measure a model's activations without labels: noise, granularity, locality."""
    with errors():
        if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", timesteps):
            fail(f"--timesteps must be whole numbers separated by commas (50,200), but got {timesteps!r}.")
        levels = [int(part) for part in timesteps.split(",")]
        from diffsift.backbones.folders import check_model_folder

        check_model_folder(model)
        device(on)
        from diffsift.runs.properties import measure_model

        measured = measure_model(model, images, levels, device=on, out=out, reporter=reporter(format))
        table = Table(
            _property_columns(),
            list(_property_rows(measured)),
            title=_title(model, measured.decisions),
            notes=_reasons(measured.decisions),
            styles=_dimmed(measured.decisions, repeats=len(measured.timesteps)),
        )
        render(table, format)
        if out is not None and format is Format.table:
            typer.echo(f"pictures    {out}")


def _property_columns() -> tuple[Column, ...]:
    from diffsift.spaces import Properties

    measures = [Column(entry.name, decimals=2, priority=2) for entry in fields(Properties)]
    capacity = Column("capacity", decimals=0, priority=3)
    return (Column("name"), Column("timestep"), *measures, capacity, Column("kept"), Column("reason", priority=4))


def _property_rows(measured: MeasuredModel) -> Iterator[tuple[Cell, ...]]:
    from diffsift.spaces import capacity

    for decision in measured.decisions:
        entry = decision.activation
        for timestep in measured.timesteps:
            found = measured.of(entry.name, timestep)
            numbers = (float(number) for number in (*asdict(found).values(), capacity(entry, found)))
            yield (entry.name, timestep, *numbers, decision.kept, decision.reason)


def _title(model: str, decisions: tuple[Decision, ...]) -> str:
    return f"{model}: {len(decisions)} activations, {sum(decision.kept for decision in decisions)} kept"


def _reasons(decisions: tuple[Decision, ...]) -> list[str]:
    counts = Counter(decision.reason for decision in decisions if not decision.kept)
    return [f"{count:4d} dropped: {reason}" for reason, count in counts.most_common()]


def _dimmed(decisions: tuple[Decision, ...], repeats: int = 1) -> dict[int, str]:
    """Styles of rows, `repeats` of them a decision: what is dropped is dim."""
    return {
        number * repeats + repeat: "dim"
        for number, decision in enumerate(decisions)
        for repeat in range(repeats)
        if not decision.kept
    }
