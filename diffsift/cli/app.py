"""The command ``diffsift``. Heavy imports happen inside commands, so that ``--help`` and wrong input answer at once."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from diffsift import __version__
from diffsift.memory import tune_malloc

from . import bank, features, models, search, studies
from .options import Commands

app = Commands(
    name="diffsift",
    help="Choose which activations of a diffusion model to use as features for a vision task.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for theme in (search, studies, features, models):
    app.add_typer(theme.commands)
app.add_typer(bank.commands, name="bank", rich_help_panel="Studies")


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"diffsift {__version__}")
        raise typer.Exit
    return wanted


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


def main() -> None:
    """Entry point of the command ``diffsift``."""
    tune_malloc()
    # Threads of OpenMP spin while they wait for each other. Beside other load that takes the processor from the one
    # that is waited for: on two busy cores, a pass of the demo's U-Net took 1 to 7 s instead of 0.05 to 0.1 s. OpenMP
    # reads this when torch is imported. Whoever sets it, as for a machine that does nothing else, decides.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
