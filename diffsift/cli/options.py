"""What the commands share: options, groups of commands, and how errors and interrupts end them."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
from typer.core import TyperCommand, TyperGroup

from diffsift.errors import DiffsiftError, SpecificationError

from .render import Format

if TYPE_CHECKING:
    from diffsift.common.reporting import Reporter

Function = TypeVar("Function", bound=Callable[..., Any])

StudyArgument = Annotated[str, typer.Argument(help="Name of the study; see `diffsift status`.", metavar="STUDY")]
SelectionArgument = Annotated[Path, typer.Argument(help="A selection file.", metavar="SELECTION.json")]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option(
        "--workspace",
        "-w",
        envvar="DIFFSIFT_WORKSPACE",
        help="Folder of the bank and the databases (default: ./.diffsift).",
    ),
]
StorageOption = Annotated[
    str | None,
    typer.Option(
        help="SQLAlchemy URL of the study database (default: $DIFFSIFT_STORAGE, or where the workspace remembers the "
        "study)."
    ),
]
OutOption = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Selection file to write (default: selection-STUDY.json); the report beside it has the same name.",
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Overwrite files of another study.")]
TrialsOption = Annotated[int | None, typer.Option(min=1, help="Total number of distinct selections to evaluate.")]
TimeoutOption = Annotated[float | None, typer.Option(min=0.001, help="Seconds after which no new trial starts.")]
WorkersOption = Annotated[int | None, typer.Option(min=1, help="Processes that evaluate selections.")]
DeviceOption = Annotated[str, typer.Option(help="Device to run on: auto, cpu, cuda, cuda:1 or mps.")]
DownloadOption = Annotated[
    bool, typer.Option("--allow-download", help="Fetch what the selection file names on the hub.")
]
PickleOption = Annotated[
    bool, typer.Option("--allow-pickle", help="Load weights that can run code, where the file asks for them.")
]
FormatOption = Annotated[Format, typer.Option(help="How to print the table.")]


class _PlainFlags:
    """Flags without a type in the help, for they take no value, and off by default rather than unknown.

    An unknown value makes Typer import a validator, which costs a quarter of the time in which a help text answers.
    """

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if getattr(param, "is_flag", False):
                param.metavar, param.default = "", param.default or False
        return params


class _Command(_PlainFlags, TyperCommand):
    """A command."""


class _Group(_PlainFlags, TyperGroup):
    """A group of commands."""


class Commands(typer.Typer):
    """Commands of one theme, to be added to the application.

    Args:
        panel: heading of the commands in the help; default: none.
        options: of `typer.Typer`.
    """

    def __init__(self, panel: str | None = None, **options: Any) -> None:
        super().__init__(cls=_Group, pretty_exceptions_enable=False, rich_markup_mode="rich", **options)
        self._panel = panel

    def add(self, example: str, *, name: str | None = None) -> Callable[[Function], Function]:
        """Make a function a command.

        Args:
            example: a call of the command without ``diffsift``, for its help.
            name: of the command; default: that of the function.
        """
        epilog = f"Example: diffsift {example}"
        return self.command(name, cls=_Command, epilog=epilog, rich_help_panel=self._panel)


def fail(message: str) -> NoReturn:
    """End the command with an error message."""
    typer.secho("error: ", fg=typer.colors.RED, bold=True, err=True, nl=False)
    typer.echo(message, err=True)
    raise typer.Exit(1)


@contextmanager
def errors(source: Path | None = None) -> Iterator[None]:
    """End the command with one message where diffsift raises an error on purpose; anything else is a bug.

    Args:
        source: the specification file that the command was given; messages about its fields begin with it.
    """
    try:
        yield
    except DiffsiftError as error:
        message = str(error)
        about_field = isinstance(error, SpecificationError) or re.match(r"[a-z_]+(\.[\w.-]+ |(\.[\w.-]+)*: )", message)
        named = source is None or message.startswith(str(source)) or not about_field
        fail(message if named else f"{source}: {message}")


def reporter(format: Format = Format.table) -> Reporter:
    """Lines to standard output; to standard error where that holds CSV or JSON."""
    from diffsift.common.reporting import ConsoleReporter

    return ConsoleReporter(out=None if format is Format.table else sys.stderr)


def device(name: str) -> str:
    """A device as the command line names it.

    Raises:
        SpecificationError: it is no name of a device.
    """
    from diffsift.backbones.specification import checked_device

    try:
        return checked_device(name)
    except ValueError as error:
        raise SpecificationError(f"--device {error}") from error
