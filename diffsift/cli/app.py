"""The command line. Heavy imports happen inside commands, so that ``--help`` answers at once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffsift import __version__
from diffsift.errors import DiffsiftError
from diffsift.memory import tune_malloc

if TYPE_CHECKING:
    from diffsift.common.reporting import Reporter
    from diffsift.runs.select import Result

app = typer.Typer(
    name="diffsift",
    help="Choose which activations of a diffusion model to use as features for a vision task.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

bank_app = typer.Typer(help="Look at the bank of features, or clean it up.", no_args_is_help=True)
app.add_typer(bank_app, name="bank")

WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        envvar="DIFFSIFT_WORKSPACE",
        help="Folder for bank, databases and artifacts (default: ./.diffsift).",
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out", "-o", help="Selection file to write (default: selection-STUDY.json); the report goes beside it."
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace files of another study.")]
TrialsOption = Annotated[
    int | None, typer.Option(min=1, help="Distinct selections to evaluate, in all (default: 300, or the study's).")
]
TimeoutOption = Annotated[float | None, typer.Option(min=0.001, help="Seconds after which no new trial starts.")]
WorkersOption = Annotated[
    int | None, typer.Option(min=1, help="Processes that evaluate selections (default: 1, or the study's).")
]
StorageOption = Annotated[str | None, typer.Option(help="SQLAlchemy URL of the study database.")]


class ScopeName(StrEnum):
    """Which part of the catalogue is listed."""

    all = "all"
    paper = "paper"


class TableFormat(StrEnum):
    """How a table is printed."""

    table = "table"
    csv = "csv"


class SplitName(StrEnum):
    """Which images a selection is scored on."""

    validation = "validation"
    test = "test"


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"diffsift {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, show_default=False, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    # An eager option with a callback of its own answers before a missing command is complained of.
    pass


@app.command(epilog="Example: diffsift demo --trials 100")
def demo(
    trials: TrialsOption = None,
    task: Annotated[
        str, typer.Option(help="segmentation, depth, classification or correspondence.", metavar="TASK")
    ] = "segmentation",
    seed: Annotated[int, typer.Option(min=0, help="Seed of scenes and search.")] = 0,
    workers: WorkersOption = None,
    workspace: WorkspaceOption = None,
    out: OutOption = None,
    force: ForceOption = False,
) -> None:
    """Run the main job on the built-in pipeline and data: minutes on two cores, no downloads."""
    with _errors():
        from diffsift.demo import demo_specification
        from diffsift.runs.select import select

        specification = demo_specification(task=task, seed=seed, trials=trials).with_runtime(workers=workers)
        with _resumable():
            _show(select(specification, workspace=workspace, out=out, force=force, reporter=_reporter()), workspace)


@app.command(epilog="Example: diffsift init --out horses.yaml")
def init(
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write.")] = Path("diffsift.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Overwrite an existing file.")] = False,
) -> None:
    """Write a commented specification to start from."""
    if out.exists() and not force:
        _fail(f"{out} exists already: name another file with --out, or add --force.")
    template = files("diffsift") / "templates" / "specification.yaml"
    try:
        out.write_text(template.read_text(encoding="utf-8"), encoding="utf-8")
    except OSError as error:
        _fail(f"{out} cannot be written: {error.strerror}.")
    typer.echo(f"Wrote {out}. Edit it, then: diffsift search {out} --dry-run")


@app.command(epilog="Example: diffsift search horses.yaml --dry-run")
def search(
    specification: Annotated[
        Path, typer.Argument(help="YAML file, as `diffsift init` writes it.", metavar="SPEC.yaml")
    ],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and print what it would cost.")] = False,
    trials: TrialsOption = None,
    timeout: TimeoutOption = None,
    workers: WorkersOption = None,
    workspace: WorkspaceOption = None,
    out: OutOption = None,
    force: ForceOption = False,
) -> None:
    """Search for the best features; a study of the same name is gone on with."""
    with _errors():
        from diffsift.runs.plan import plan
        from diffsift.runs.select import select
        from diffsift.specification import load_specification

        loaded = load_specification(specification).with_runtime(trials=trials, timeout=timeout, workers=workers)
        if dry_run:
            expected = plan(loaded, workspace=workspace, reporter=_reporter())
            typer.echo(f"dry run     {expected.describe(loaded.study.trials)}")
            return
        with _resumable():
            _show(select(loaded, workspace=workspace, out=out, force=force, reporter=_reporter()), workspace)


@app.command(epilog="Example: diffsift resume horses --trials 300")
def resume(
    study: Annotated[str, typer.Argument(help="Name of the study; `diffsift status` lists them.", metavar="STUDY")],
    trials: TrialsOption = None,
    timeout: TimeoutOption = None,
    workers: WorkersOption = None,
    storage: StorageOption = None,
    workspace: WorkspaceOption = None,
    out: OutOption = None,
    force: ForceOption = False,
) -> None:
    """Go on with a study where it stopped; finished trials are kept."""
    with _errors():
        from diffsift.runs.select import resume as resume_study

        with _resumable():
            result = resume_study(
                study,
                workspace=workspace,
                storage=storage,
                trials=trials,
                timeout=timeout,
                workers=workers,
                out=out,
                force=force,
                reporter=_reporter(),
            )
            _show(result, workspace)


@app.command(epilog="Example: diffsift worker horses")
def worker(
    study: Annotated[str, typer.Argument(help="Name of the study; `diffsift status` lists them.", metavar="STUDY")],
    storage: StorageOption = None,
    workspace: WorkspaceOption = None,
    leader: Annotated[int | None, typer.Option(hidden=True, help="End when this process does.")] = None,
) -> None:
    """Join a study with one more process; start and end it with search or resume."""
    with _errors():
        import signal

        from diffsift.runs.workers import join

        if leader is not None:  # which ends its workers so
            signal.signal(signal.SIGTERM, signal.default_int_handler)
        with _resumable():
            join(study, workspace=workspace, storage=storage, leader=leader, reporter=_reporter())


@app.command(epilog="Example: diffsift status")
def status(workspace: WorkspaceOption = None, storage: StorageOption = None) -> None:
    """List the studies of a workspace: finished trials, best score, verdict."""
    with _errors():
        from .tables import print_status

        print_status(workspace, storage)


@app.command(epilog="Example: diffsift pick horses --channels 1000")
def pick(
    study: Annotated[str, typer.Argument(help="Name of the study; `diffsift status` lists them.", metavar="STUDY")],
    channels: Annotated[int | None, typer.Option(min=1, help="Most channels of the fused feature.")] = None,
    passes: Annotated[int | None, typer.Option(min=1, help="Most runs of a model per image.")] = None,
    operations: Annotated[
        float | None, typer.Option(min=0.0, help="Most operations per image, as a share of a whole pass.")
    ] = None,
    storage: StorageOption = None,
    workspace: WorkspaceOption = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Selection file to write (default: picked-STUDY.json).")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Take the best selection that costs no more than asked; without a bound, list what there is to take."""
    with _errors():
        from diffsift.cli.tables import print_front
        from diffsift.runs.pick import pick as pick_selection

        if channels is None and passes is None and operations is None:
            print_front(study, workspace=workspace, storage=storage)
            return
        found = pick_selection(
            study,
            channels=channels,
            passes=passes,
            operations=operations,
            out=out,
            force=force,
            workspace=workspace,
            storage=storage,
            reporter=_reporter(),
        )
        record = found.record
        share = "" if record.operations is None else f", operations: {record.operations:.2f} whole passes"
        typer.echo(f"picked      {record.selection}")
        typer.echo(
            f"            {record.score:.4f} on validation; channels: {record.channels}, passes: "
            f"{record.passes}{share}; not tested, the test split stays sealed"
        )
        typer.echo(f"selection   {found.file}  (with {found.file.stem}.safetensors)")


@app.command(epilog="Example: diffsift compare horses-sd15 horses-sdxl")
def compare(
    studies: Annotated[list[str], typer.Argument(help="Names of studies that have ended.", metavar="STUDY STUDY ...")],
    workspace: WorkspaceOption = None,
    storage: StorageOption = None,
) -> None:
    """Final scores of several studies in one column, if they were measured by one protocol."""
    with _errors():
        from diffsift.cli.tables import print_comparison
        from diffsift.runs.compare import compare as compare_studies

        print_comparison(compare_studies(studies, workspace=workspace, storage=storage))


@app.command(epilog="Example: diffsift activations stable-diffusion-v1-5/stable-diffusion-v1-5 --format csv")
def activations(
    model: Annotated[str, typer.Argument(help="Hub id or folder; configurations alone are enough.", metavar="MODEL")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit on the hub.")] = None,
    scope: Annotated[
        ScopeName, typer.Option(help="Every activation, or those that Meng et al. tried (deep ViTs thinned).")
    ] = ScopeName.all,
    format: Annotated[TableFormat, typer.Option(help="How to print the table.")] = TableFormat.table,
) -> None:
    """List a model's activations, and which of them the structural filter (`filters.rules: structural`) keeps."""
    with _errors():
        from .tables import print_activations

        print_activations(model, revision, scope=scope.value, csv=format is TableFormat.csv)


@app.command(epilog="Example: diffsift properties MODEL --images photos --out pictures")
def properties(
    model: Annotated[str, typer.Argument(help="Hub id or folder of a pipeline.", metavar="MODEL")],
    images: Annotated[Path, typer.Option(help="Folder of PNG or JPEG images; the first 24 are used, without labels.")],
    timesteps: Annotated[str, typer.Option(help="Noise levels, with commas between them.")] = "50,200",
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for pictures of every activation.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    format: Annotated[TableFormat, typer.Option(help="How to print the table.")] = TableFormat.table,
) -> None:
    """Measure a model's activations without labels: noise, granularity, locality, and which are worth keeping."""
    with _errors():
        from diffsift.cli.tables import show_properties

        if not re.fullmatch(r"\s*\d+\s*(,\s*\d+\s*)*", timesteps):
            _fail(f"--timesteps must be whole numbers with commas between them (50,200), but got {timesteps!r}.")
        levels = [int(part) for part in timesteps.split(",")]
        csv = format is TableFormat.csv
        show_properties(model, images, levels, device=device, csv=csv, out=out, reporter=_reporter())


@app.command(epilog="Example: diffsift score selection.json --probe mlp --split test")
def score(
    selection: Annotated[Path, typer.Argument(help="A selection file.", metavar="SELECTION.json")],
    probe: Annotated[
        str,
        typer.Option(
            help="ridge or knn (the search's own), mlp, logistic, linear, conv, exact, or reference: the task's first."
        ),
    ] = "reference",
    split: Annotated[
        SplitName, typer.Option(help="Held-out images of the search, or the test split, whose opening is recorded.")
    ] = SplitName.validation,
    study: Annotated[
        str | None, typer.Option(help="Study whose data and task are used (default: the one in the file).")
    ] = None,
    workspace: WorkspaceOption = None,
    storage: StorageOption = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
) -> None:
    """Score a selection by a probe of its task: the slow ones of papers, on uncompressed features at every pixel."""
    with _errors():
        from diffsift.runs.score import score_file

        found = score_file(
            selection,
            probe=probe,
            split=split.value,
            study=study,
            workspace=workspace,
            storage=storage,
            device=device,
            reporter=_reporter(),
        )
        typer.echo(f"score       {found}")


@app.command(epilog="Example: diffsift extract selection.json photos/*.jpg --out features")
def extract(
    selection: Annotated[Path, typer.Argument(help="A selection file.", metavar="SELECTION.json")],
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGES...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for one .safetensors file per image.")],
    model: Annotated[str | None, typer.Option(help="Hub id or folder, where it is not the one in the file.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps.")] = "auto",
    batch_size: Annotated[int, typer.Option(min=1, help="Images per pass.")] = 8,
    prompts: Annotated[
        Path | None, typer.Option(help="YAML or JSON file of prompts by stem, where the selection was made with them.")
    ] = None,
) -> None:
    """Write the selected features of new images."""
    with _errors():
        from diffsift.runs.extract import extract_files

        extract_files(
            selection,
            images,
            out,
            model=model,
            device=device,
            batch_size=batch_size,
            prompts=prompts,
            reporter=_reporter(),
        )


@bank_app.command("list", epilog="Example: diffsift bank list --check")
def bank_list(
    check: Annotated[bool, typer.Option("--check", help="Read everything and compare it with its checksums.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """What is in the bank, for which studies, and how large it is."""
    with _errors():
        from .bank import print_bank

        print_bank(workspace, check=check)


@bank_app.command("clean", epilog="Example: diffsift bank clean --unused --damaged")
def bank_clean(
    unused: Annotated[bool, typer.Option("--unused", help="Entries that no study used, and leftovers.")] = False,
    damaged: Annotated[bool, typer.Option("--damaged", help="Entries and records whose checksum is off.")] = False,
    study: Annotated[str | None, typer.Option(help="Entries that only this study used.", metavar="NAME")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Remove entries from the bank; a search that needs them extracts them again."""
    with _errors():
        from .bank import clean_bank

        def agreed(question: str) -> bool:
            return yes or typer.confirm(question)

        clean_bank(workspace, unused=unused, damaged=damaged, study=study, agreed=agreed, say=typer.echo)


@app.command(epilog="Example: diffsift ui --port 5001")
def ui(
    workspace: WorkspaceOption = None,
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port on 127.0.0.1.")] = 5000,
) -> None:
    """Look at the trials in the MLflow UI, on 127.0.0.1 only. Ctrl-C ends it."""
    with _errors():
        from diffsift.common.workspace import Workspace
        from diffsift.tracking import serve

        place = Workspace.at(workspace)
        if not (place.folder / "mlflow.db").is_file():
            _fail(f"{place.folder} holds no MLflow trials: run a search first, or name the workspace with --workspace.")
        serve(place.mlflow_url, place.artifacts, port)


def main() -> None:
    """Entry point of the command ``diffsift``."""
    tune_malloc()
    app()


def _reporter() -> Reporter:
    from diffsift.common.reporting import ConsoleReporter

    return ConsoleReporter()


def _show(result: Result, workspace: Path | None) -> None:
    from .tables import print_result

    print_result(result, workspace)


def _fail(message: str) -> None:
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(message, err=True)
    raise typer.Exit(1)


@contextmanager
def _errors() -> Iterator[None]:
    """Errors on purpose as one message without a traceback; anything else is a bug and shows in full."""
    try:
        yield
    except DiffsiftError as error:
        _fail(str(error))


@contextmanager
def _resumable() -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        typer.echo("\nStopped; what was finished is kept. Repeat the command to go on.", err=True)
        raise typer.Exit(130) from None
