"""Commands that search: from the first specification to the final table."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .interrupts import interruptible
from .options import (
    Commands,
    ForceOption,
    FormatOption,
    OutOption,
    StorageOption,
    StudyArgument,
    TimeoutOption,
    TrialsOption,
    WorkersOption,
    WorkspaceOption,
    errors,
    fail,
    reporter,
)
from .render import Column, Format, Table, render

if TYPE_CHECKING:
    from diffsift.runs.select import Result

commands = Commands("Search")
_SCHEMA_FILE = "diffsift.schema.json"


@commands.add("demo --trials 100")
def demo(
    trials: TrialsOption = None,
    task: Annotated[
        str,
        typer.Option(help="segmentation, depth, normals, correspondence or classification.", metavar="TASK"),
    ] = "segmentation",
    model: Annotated[str, typer.Option(help="unet, transformer, or both in one search.", metavar="MODEL")] = "unet",
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes and of the search.")] = 0,
    workers: WorkersOption = None,
    workspace: WorkspaceOption = None,
    out: OutOption = None,
    force: ForceOption = False,
    format: FormatOption = Format.table,
) -> None:
    """Search on the built-in pipelines and data: minutes on two cores, no downloads."""
    with errors():
        from diffsift.demo import demo_specification

        specification = demo_specification(task=task, model=model, seed=seed, trials=trials).with_runtime(
            workers=workers
        )
        from diffsift.runs.select import select

        with interruptible(specification.study.name):
            result = select(
                specification.with_runtime(workers=workers),
                workspace=workspace,
                out=out,
                force=force,
                reporter=reporter(format),
            )
            _show(result, workspace, format)


@commands.add("init horses.yaml")
def init(
    file: Annotated[Path, typer.Argument(help="File to write.", metavar="[NAME.yaml]")] = Path("diffsift.yaml"),
    out: Annotated[Path | None, typer.Option("--out", "-o", hidden=True)] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented specification to start from.

    Also writes diffsift.schema.json beside it, so that editors complete and check its fields.

    This works offline, in any editor with a YAML language server (VS Code: the YAML extension).
    """
    with errors():
        from diffsift.specification_file import json_schema

        file = out or file
        if file.exists() and not force:
            fail(f"{file} exists already: give another name, or add --force.")
        template = files("diffsift") / "templates" / "specification.yaml"
        line = f"# yaml-language-server: $schema=./{_SCHEMA_FILE}\n"
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            (file.parent / _SCHEMA_FILE).write_text(json.dumps(json_schema(), indent=1) + "\n", encoding="utf-8")
            file.write_text(line + template.read_text(encoding="utf-8"), encoding="utf-8")
        except OSError as error:
            fail(f"{file} cannot be written: {error.strerror}.")
    typer.echo(f"Wrote {file}, and beside it {_SCHEMA_FILE}, with which editors check and complete its fields.")
    typer.echo(f"Edit it, then: diffsift search {file} --dry-run")


@commands.add("schema > diffsift.schema.json")
def schema() -> None:
    """Print the JSON schema of specification files."""
    from diffsift.specification_file import json_schema

    typer.echo(json.dumps(json_schema(), indent=1))


@commands.add("search horses.yaml --set study.trials=50")
def search(
    specification: Annotated[Path, typer.Argument(help="YAML file; `diffsift init` writes one.", metavar="SPEC.yaml")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and print the cost; extract nothing.")
    ] = False,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Set a field, such as study.seed=1; can be repeated."),
    ] = None,
    trials: TrialsOption = None,
    timeout: TimeoutOption = None,
    workers: WorkersOption = None,
    workspace: WorkspaceOption = None,
    out: OutOption = None,
    force: ForceOption = False,
    format: FormatOption = Format.table,
) -> None:
    """Search for the best features, or continue the study of that name."""
    if dry_run and format != Format.table:
        fail(f"--format {format.value} must be left out with --dry-run, which prints text.")
    with errors(specification):
        from diffsift.runs.inputs import check_inputs
        from diffsift.specification_file import load_specification

        loaded = load_specification(specification, changes or ()).with_runtime(
            trials=trials, timeout=timeout, workers=workers
        )
        check_inputs(loaded)
        if dry_run:
            from diffsift.runs.plan import plan

            expected = plan(loaded, workspace=workspace, reporter=reporter())
            typer.echo(f"dry run     {expected.describe()}")
            return
        from diffsift.runs.select import select

        with interruptible(loaded.study.name):
            result = select(loaded, workspace=workspace, out=out, force=force, reporter=reporter(format))
            _show(result, workspace, format)


@commands.add("resume horses --trials 300")
def resume(
    study: StudyArgument,
    trials: TrialsOption = None,
    timeout: TimeoutOption = None,
    workers: WorkersOption = None,
    storage: StorageOption = None,
    workspace: WorkspaceOption = None,
    out: OutOption = None,
    force: ForceOption = False,
    format: FormatOption = Format.table,
) -> None:
    """Continue a study where it stopped."""
    with errors():
        _require_study(study, workspace, storage)
        from diffsift.runs.select import resume as resume_study

        with interruptible(study):
            result = resume_study(
                study,
                workspace=workspace,
                storage=storage,
                trials=trials,
                timeout=timeout,
                workers=workers,
                out=out,
                force=force,
                reporter=reporter(format),
            )
            _show(result, workspace, format)


@commands.add("worker horses")
def worker(
    study: StudyArgument,
    storage: StorageOption = None,
    workspace: WorkspaceOption = None,
    leader: Annotated[int | None, typer.Option(hidden=True, help="End when this process does.")] = None,
) -> None:
    """Join a running study with one more process."""
    with errors():
        _require_study(study, workspace, storage)
        from diffsift.runs.workers import join

        with interruptible(study):
            join(study, workspace=workspace, storage=storage, leader=leader, reporter=reporter())


def _require_study(study: str, workspace: Path | None, storage: str | None) -> None:
    """Refuse a study that does not exist before anything heavy is imported."""
    from diffsift.study_store import StudyStore

    with StudyStore.existing(workspace, storage, study=study) as store:
        store.row(study)


def _show(result: Result, workspace: Path | None, format: Format) -> None:
    """Print the final table; for people also the verdict, and where things are."""
    outcome, verdict = result.outcome, result.outcome.verdict
    rows = [
        (row.name, row.score, row.low, row.high, row.gain, row.gain_low, row.gain_high, row.channels, row.passes)
        for row in outcome.table
    ]
    columns = (
        Column("features"),
        Column("score"),
        Column("low", priority=1),
        Column("high", priority=1),
        Column("gain over this", priority=2),
        Column("gain low", priority=3),
        Column("gain high", priority=3),
        Column("channels", priority=4),
        Column("passes", priority=5),
    )
    table = Table(
        columns,
        rows,
        title=f"{outcome.metric} on the sealed test split (low to high: 95 % intervals over images)",
        styles={number: "bold" for number, row in enumerate(outcome.table) if row.gain is None},
    )
    render(table, format)
    if format is not Format.table:
        return
    where = "" if workspace is None else f" --workspace {workspace}"
    typer.echo(f"\nVerdict     {verdict.headline} {typer.style(verdict.recommendation, bold=True)}")
    for line in verdict.evidence:
        typer.echo(f"- {line}")
    typer.echo(f"\nselection   {result.selection_file}  (with {result.selection_file.stem}.safetensors)")
    typer.echo(f"report      {result.report_file}")
    from diffsift.common.workspace import Workspace

    if (Workspace.at(workspace).folder / "mlflow.db").is_file():
        typer.echo(f"trials      diffsift ui{where}")
