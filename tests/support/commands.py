"""Running the command line in this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from click.testing import Result
from typer.testing import CliRunner

from diffsift.cli.app import app


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def done(*arguments: object) -> str:
    """What a command says that must succeed."""
    result = run(*arguments)
    assert result.exit_code == 0, result.output
    return result.output


def write(path: Path, specification: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump(specification))
    return path


def refused(*arguments: object) -> str:
    """What a command says that must fail: one message, no traceback."""
    result = run(*arguments)
    assert result.exit_code == 1, (result.output, result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.output.count("error: ") == 1
    assert "Traceback" not in result.output
    return " ".join(result.output[result.output.index("error: ") :].split())
