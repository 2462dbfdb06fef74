"""Commands about the bank of features: list what it holds, and remove some of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from diffsift.errors import BankError

from .options import Commands, FormatOption, WorkspaceOption, errors
from .render import Cell, Column, Format, Table, render

if TYPE_CHECKING:
    from diffsift.bank import Removal, StoredEntry

commands = Commands(help="List or clean the bank of features.", no_args_is_help=True)


@commands.add("bank list --check", name="list")
def list_entries(
    check: Annotated[bool, typer.Option("--check", help="Read everything and compare it with its checksums.")] = False,
    workspace: WorkspaceOption = None,
    format: FormatOption = Format.table,
) -> None:
    """List what the bank holds, for which studies, and its size."""
    with errors():
        folder = _folder(workspace)
        from diffsift.bank import inventory

        entries = inventory(folder, check=check)
        render(_table(folder, entries, check=check), format)


@commands.add("bank clean --unused --damaged", name="clean")
def clean_entries(
    unused: Annotated[bool, typer.Option("--unused", help="Remove entries that no study used, and leftovers.")] = False,
    damaged: Annotated[
        bool, typer.Option("--damaged", help="Remove entries and records whose checksums do not match.")
    ] = False,
    study: Annotated[str | None, typer.Option(help="Remove entries that only this study used.", metavar="NAME")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask for confirmation.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Remove entries from the bank; a search that needs them extracts them again."""
    with errors():
        if not (unused or damaged or study):
            raise BankError("choose what to remove: add --unused, --damaged or --study NAME.")
        folder = _folder(workspace)
        from diffsift.bank import clean, inventory, removals

        entries = inventory(folder, check=damaged)
        _refuse_unknown(study, entries, folder)
        steps = removals(entries, unused=unused, damaged=damaged, study=study)
        if not steps:
            typer.echo("nothing to remove")
            return
        if not (yes or typer.confirm(f"Remove {_words(steps)} from {folder}?")):
            typer.echo("nothing was removed")
            return
        try:
            skipped = clean(steps, study=study)
        except OSError as error:
            raise BankError(f"the bank in {folder} cannot be written: {error.strerror or error}.") from error
        typer.echo(f"removed {_words([step for step in steps if step not in skipped])}")
        if skipped:
            typer.echo(f"left {len(skipped)} entries that a process is writing")


def _table(folder: Path, entries: list[StoredEntry], *, check: bool) -> Table:
    """The entries, those of one network and the same studies in one row."""
    groups: dict[tuple[str, str, str], list[StoredEntry]] = {}
    for entry in entries:
        groups.setdefault((entry.model, ", ".join(entry.studies), entry.state), []).append(entry)
    rows: list[tuple[Cell, ...]] = []
    for (model, studies, state), members in sorted(groups.items()):
        timesteps = sorted({entry.timestep for entry in members if entry.timestep is not None})
        images = [entry.images for entry in members]
        size = sum(entry.size for entry in members) / 1e6
        listed = ", ".join(map(str, timesteps))
        rows.append(
            (model or None, studies or None, state, len(members), listed, min(images), max(images), round(size, 3))
        )
    columns = (
        Column("model", wraps=True),
        Column("studies", wraps=True),
        Column("state", priority=1),
        Column("entries", priority=2),
        Column("timesteps", priority=4),
        Column("least images", priority=3),
        Column("most images", priority=3),
        Column("MB", decimals=1),
    )
    unchecked = "" if check else " (checksums were not compared: --check does that)"
    total = sum(entry.size for entry in entries)
    return Table(columns, rows, notes=[f"{folder}: {len(entries)} entries, {_size(total)}{unchecked}"])


def _refuse_unknown(study: str | None, entries: list[StoredEntry], folder: Path) -> None:
    if study is not None and not any(study in entry.studies for entry in entries):
        known = sorted({name for entry in entries for name in entry.studies})
        raise BankError(f"no entry of the bank in {folder} is used by study {study!r}; known: {', '.join(known)}.")


def _words(steps: list[Removal]) -> str:
    whole = [step.entry for step in steps if step.part == "entry"]
    records = sum(step.part == "damaged records" for step in steps)
    notes = sum(step.part == "study" for step in steps)
    parts = [f"{len(whole)} entries ({_size(sum(entry.size for entry in whole))})"]
    parts += [f"the damaged records of {records} entries"] if records else []
    parts += [f"the study's use of {notes} entries that other studies share"] if notes else []
    return " and ".join(parts)


def _folder(workspace: Path | None) -> Path:
    from diffsift.common.workspace import Workspace

    folder = Workspace.at(workspace).bank
    if not folder.is_dir():
        raise BankError(f"{folder.parent} holds no bank: run a search first, or name the workspace with --workspace.")
    return folder


def _size(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
