"""What the command line does with banks: list what is there, and remove some of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from diffsift.bank import Removal, StoredEntry, clean, inventory, removals
from diffsift.common.workspace import Workspace
from diffsift.errors import BankError


def print_bank(workspace: Path | None, *, check: bool) -> None:
    """The entries of a workspace's bank, those of one network and the same studies in one row.

    Raises:
        BankError: there is no bank.
    """
    folder = _folder(workspace)
    entries = inventory(folder, check=check)
    groups: dict[tuple[str, ...], list[StoredEntry]] = {}
    for entry in entries:
        groups.setdefault((entry.model, ", ".join(entry.studies), entry.state), []).append(entry)
    table = Table("model", "studies", "state", "entries", "timesteps", "images", "size")
    for (model, studies, state), members in sorted(groups.items()):
        timesteps = sorted({entry.timestep for entry in members if entry.timestep is not None})
        table.add_row(
            model or "?",
            studies or "none",
            state,
            str(len(members)),
            ", ".join(map(str, timesteps)),
            _range([entry.images for entry in members]),
            _size(members),
        )
    console = Console()
    console.print(table)
    looked = "" if check else " (records not compared with their checksums: --check does that)"
    console.print(f"{folder}: {len(entries)} entries, {_size(entries)}{looked}", highlight=False)


def clean_bank(
    workspace: Path | None,
    *,
    unused: bool,
    damaged: bool,
    study: str | None,
    agreed: Callable[[str], bool],
    say: Callable[[str], None],
) -> None:
    """Remove entries, once `agreed` says yes to the question that tells what would go.

    Raises:
        BankError: nothing was asked for, there is no bank, or it cannot be written.
    """
    if not (unused or damaged or study):
        raise BankError("what to remove must be said: add --unused, --damaged or --study NAME.")
    folder = _folder(workspace)
    entries = inventory(folder, check=damaged)
    if study is not None and not any(study in entry.studies for entry in entries):
        known = sorted({name for entry in entries for name in entry.studies})
        raise BankError(f"no entry of the bank in {folder} is noted for study {study!r}; known: {', '.join(known)}.")
    steps = removals(entries, unused=unused, damaged=damaged, study=study)
    if not steps:
        say("nothing to remove")
        return
    if not agreed(f"Remove {_steps(steps)} from {folder}?"):
        say("nothing was removed")
        return
    try:
        skipped = clean(steps, study=study)
    except OSError as error:
        raise BankError(f"the bank in {folder} cannot be written: {error.strerror or error}.") from error
    say(f"removed {_steps([step for step in steps if step not in skipped])}")
    if skipped:
        say(f"left {len(skipped)} entries that a process is writing")


def _steps(steps: list[Removal]) -> str:
    whole = [step.entry for step in steps if step.part == "entry"]
    records = sum(step.part == "damaged records" for step in steps)
    notes = sum(step.part == "study" for step in steps)
    parts = [f"{len(whole)} entries ({_size(whole)})"]
    parts += [f"the damaged records of {records} entries"] if records else []
    parts += [f"the note of the study in {notes} entries that other studies use"] if notes else []
    return " and ".join(parts)


def _folder(workspace: Path | None) -> Path:
    folder = Workspace.at(workspace).bank
    if not folder.is_dir():
        raise BankError(f"{folder.parent} holds no bank: run a search first, or name the workspace with --workspace.")
    return folder


def _size(entries: list[StoredEntry]) -> str:
    size = sum(entry.size for entry in entries)
    return f"{size / 1e9:.2f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"


def _range(counts: list[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"
