"""Commands about studies that exist: list, compare, report, pick, show."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .options import (
    Commands,
    ForceOption,
    FormatOption,
    StorageOption,
    StudyArgument,
    WorkspaceOption,
    errors,
    fail,
    reporter,
)
from .render import Cell, Column, Format, Table, render

if TYPE_CHECKING:
    from diffsift.tracking import TrialRecord

commands = Commands("Studies")


@commands.add("status --format json")
def status(
    workspace: WorkspaceOption = None, storage: StorageOption = None, format: FormatOption = Format.table
) -> None:
    """List the studies of a workspace."""
    with errors():
        from diffsift.runs.status import study_statuses

        rows: list[tuple[Cell, ...]] = [
            (entry.name, entry.evaluated, entry.trials, entry.best, entry.verdict)
            for entry in study_statuses(workspace=workspace, storage=storage)
        ]
        columns = (
            Column("study"),
            Column("evaluated"),
            Column("trials"),
            Column("best", decimals=4),
            Column("verdict", priority=1),
        )
        render(Table(columns, rows), format)


@commands.add("report horses --out horses.html")
def report(
    study: StudyArgument,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="File to write (default: report-STUDY.html).")] = None,
    force: ForceOption = False,
    workspace: WorkspaceOption = None,
    storage: StorageOption = None,
) -> None:
    """Write the report of a finished study again; the test split stays closed."""
    with errors():
        from diffsift.runs.report import report_again

        file = report_again(study, out=out, force=force, workspace=workspace, storage=storage)
        typer.echo(f"report      {file}")


@commands.add("unlock horses")
def unlock(study: StudyArgument, workspace: WorkspaceOption = None, storage: StorageOption = None) -> None:
    """Free a study from processes of other hosts that are gone for good.

    Needed only where the minute after which a silent process counts as dead is too long. A process of this host that
    still runs keeps what it holds: stop it instead.
    """
    with errors():
        from diffsift.study_store import StudyStore

        with StudyStore.existing(workspace, storage) as store:
            freed = store.ledger.unlock(study)
        for holder in freed:
            typer.echo(f"freed       {study} from {holder}")
        if not freed:
            typer.echo(f"unlock      no process of another host and none that has ended holds anything of {study}")


@commands.add("pick horses --channels 1000")
def pick(
    study: StudyArgument,
    channels: Annotated[int | None, typer.Option(min=1, help="Most channels of the fused feature.")] = None,
    passes: Annotated[int | None, typer.Option(min=1, help="Most runs of a model per image.")] = None,
    operations: Annotated[
        float | None, typer.Option(min=0.0, help="Most operations per image, as a fraction of a whole pass.")
    ] = None,
    storage: StorageOption = None,
    workspace: WorkspaceOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Selection file to write (default: picked-STUDY.json).")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite any selection file.")] = False,
    format: FormatOption = Format.table,
) -> None:
    """Write the best selection within a cost; without a bound, list the Pareto front."""
    with errors():
        from diffsift.runs.pick import front_of
        from diffsift.runs.pick import pick as pick_selection

        if channels is None and passes is None and operations is None:
            front = front_of(study, workspace=workspace, storage=storage)
            title = (
                f"Pareto front of {study}: no other selection is better in score and cost (scores on held-out images)"
            )
            render(_trials(front, title), format)
            return
        picked = pick_selection(
            study,
            channels=channels,
            passes=passes,
            operations=operations,
            out=out,
            force=force,
            workspace=workspace,
            storage=storage,
            reporter=reporter(format),
        )
        render(_trials([picked.record], "Best selection within the bounds (score on held-out images)"), format)
        if format is Format.table:
            typer.echo("The score is not a test score: the test split stays sealed.")
            typer.echo(f"selection   {picked.file}  (with {picked.file.stem}.safetensors)")


@commands.add("compare horses-sd15 horses-sdxl")
def compare(
    studies: Annotated[list[str], typer.Argument(help="Names of finished studies.", metavar="STUDY STUDY ...")],
    workspace: WorkspaceOption = None,
    storage: StorageOption = None,
    format: FormatOption = Format.table,
) -> None:
    """Print the final tables of studies with the same protocol as one table."""
    with errors():
        from diffsift.runs.compare import compare as compare_studies

        comparison = compare_studies(studies, workspace=workspace, storage=storage)
        rows: list[tuple[Cell, ...]] = [
            (study, model, row["name"], row["score"], row["low"], row["high"], row["channels"])
            for study, (model, entries) in comparison.rows.items()
            for row in entries
        ]
        columns = (
            Column("study"),
            Column("model", priority=4),
            Column("features"),
            Column("score"),
            Column("low", priority=2),
            Column("high", priority=2),
            Column("channels", priority=3),
        )
        protocol = "; ".join(f"{name}: {value}" for name, value in comparison.protocol.items())
        title = f"{comparison.metric} on the sealed test split (low to high: 95 % intervals)"
        render(Table(columns, rows, title=title, notes=[f"Protocol: {protocol}"]), format)


@commands.add("ui --port 5001")
def ui(
    workspace: WorkspaceOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Show the trials in the MLflow UI, on 127.0.0.1 only, until Ctrl-C."""
    with errors():
        from diffsift.common.workspace import Workspace

        found = Workspace.at(workspace)
        if not (found.folder / "mlflow.db").is_file():
            fail(f"{found.folder} holds no MLflow trials: run a search first, or name the workspace with --workspace.")
        from diffsift.tracking import serve

        serve(found.mlflow_url, found.artifacts, port)


def _trials(records: list[TrialRecord] | tuple[TrialRecord, ...], title: str) -> Table:
    """Selections with their validation scores and costs."""
    columns = (
        Column("score", decimals=4),
        Column("channels", priority=1),
        Column("passes", priority=2),
        Column("operations", decimals=2, priority=3),
        Column("selection", wraps=True),
    )
    rows = [
        (record.score, record.channels, record.passes, record.operations, str(record.selection)) for record in records
    ]
    return Table(columns, rows, title=title)
