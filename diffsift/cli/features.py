"""Commands that use a selection file: score it, extract its features."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from .options import (
    Commands,
    DeviceOption,
    DownloadOption,
    FormatOption,
    PickleOption,
    SelectionArgument,
    StorageOption,
    WorkspaceOption,
    errors,
    reporter,
)
from .options import device as checked
from .render import Column, Format, Table, render

commands = Commands("Features")


class SplitName(StrEnum):
    """Which images a selection is scored on."""

    validation = "validation"
    test = "test"


class FileFormat(StrEnum):
    """Which files features are written to."""

    safetensors = "safetensors"
    npy = "npy"


@commands.add("extract selection.json photos --out features")
def extract(
    selection: SelectionArgument,
    images: Annotated[
        list[str], typer.Argument(help="Image files, folders, or patterns such as 'photos/*.jpg'.", metavar="IMAGES...")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write one file per image to.")],
    file_format: Annotated[
        FileFormat, typer.Option("--as", help="File format: safetensors (tensor `features`) or npy.")
    ] = FileFormat.safetensors,
    pooled: Annotated[
        bool, typer.Option("--pooled", help="Write one vector (channels) per image instead of a map.")
    ] = False,
    model: Annotated[str | None, typer.Option(help="Hub id or folder to load instead of the one in the file.")] = None,
    device: DeviceOption = "auto",
    allow_download: DownloadOption = False,
    allow_pickle: PickleOption = False,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per pass.")] = 8,
    prompts: Annotated[
        Path | None, typer.Option(help="YAML or JSON file of prompts by image name, if the selection needs them.")
    ] = None,
) -> None:
    """Write the selected features of images: (channels, rows, columns) in float32."""
    with errors():
        from diffsift.runs.images import find_images, require_selection

        require_selection(selection)
        files = find_images(images)
        checked(device)
        from diffsift.runs.extract import extract_files

        extract_files(
            selection,
            files,
            out,
            file_format=file_format.value,
            pooled=pooled,
            model=model,
            device=device,
            allow_download=allow_download,
            allow_pickle=allow_pickle,
            batch_size=batch_size,
            prompts=prompts,
            reporter=reporter(),
        )


@commands.add("score selection.json --probe mlp --split test")
def score(
    selection: SelectionArgument,
    probe: Annotated[
        str,
        typer.Option(
            help="Fast: ridge or knn, as in the search. Slow: mlp, logistic, linear, conv, exact, or reference for "
            "the first that the task has."
        ),
    ] = "reference",
    split: Annotated[
        SplitName, typer.Option(help="Held-out images of the search, or the test split; its opening is recorded.")
    ] = SplitName.validation,
    study: Annotated[
        str | None, typer.Option(help="Study whose data and task are used (default: the one in the file).")
    ] = None,
    workspace: WorkspaceOption = None,
    storage: StorageOption = None,
    device: DeviceOption = "auto",
    allow_download: DownloadOption = False,
    allow_pickle: PickleOption = False,
    format: FormatOption = Format.table,
) -> None:
    """Score a selection with a probe of its task, on full features for slow probes."""
    with errors():
        from diffsift.runs.images import require_selection

        require_selection(selection)
        checked(device)
        from diffsift.runs.score import score_file

        found = score_file(
            selection,
            probe=probe,
            split=split.value,
            study=study,
            workspace=workspace,
            storage=storage,
            device=device,
            allow_download=allow_download,
            allow_pickle=allow_pickle,
            reporter=reporter(format),
        )
        columns = (
            Column("metric"),
            Column("score", decimals=4),
            Column("low", decimals=4),
            Column("high", decimals=4),
            Column("probe"),
            Column("split"),
            Column("images", priority=1),
        )
        interval = found.interval
        row = (found.metric, found.value, interval.low, interval.high, found.probe, found.split, found.images)
        render(Table(columns, [row], notes=["low to high: 95 % interval"]), format)
