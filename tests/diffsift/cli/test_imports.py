"""What answers at once: these commands import none of the heavy packages."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support import tiny

HEAVY = ("torch", "diffusers", "transformers", "mlflow", "sklearn", "scipy", "matplotlib", "pandas")
PROGRAM = f"""
import json, sys
from typer.testing import CliRunner
from diffsift.cli.app import app
answers = {{}}
for command in json.loads(sys.argv[1]):
    before = set(sys.modules)
    result = CliRunner().invoke(app, command.split())
    heavy = [name for name in {HEAVY!r} if name in sys.modules and name not in before]
    answers[command] = [result.exit_code, heavy, result.output]
print(json.dumps(answers))
"""


@pytest.fixture(scope="module")
def folder(
    searched: tuple[Path, str], tiny_pipeline: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a finished study and specifications that are wrong."""
    folder = tmp_path_factory.mktemp("light")
    shutil.copytree(searched[0] / "workspace", folder / ".diffsift")
    shutil.copy(searched[0] / "selection.json", folder)
    values = tiny.specification(tiny_pipeline, tiny_data)
    wrong = {
        "field": {"study": {**values["study"], "trails": 1}},
        "data": {"data": {**values["data"], "labels": str(folder / "nowhere")}},
        "mask": {"data": {**values["data"], "classes": 2}},
        "model": {"model": {"id": str(folder / "nowhere")}},
        "timestep": {"timesteps": [50, 1000]},
    }
    for name, changes in wrong.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**values, **changes}))
    (folder / "notes.json").write_text("{}")
    return folder


LIGHT: dict[str, tuple[int, str]] = {
    "--help": (0, "Choose which activations"),
    "search --help": (0, "--dry-run"),
    "schema": (0, '"model"'),
    "status": (0, "tiny"),
    "pick tiny": (0, "Pareto front"),
    "bank list --check": (0, "UNet2D"),
    "compare tiny tiny": (1, "studies to compare must differ, but 'tiny' is named 2 times"),
    "compare tiny tinny": (1, "no study is named 'tinny'"),
    "search nowhere.yaml": (1, "nowhere.yaml cannot be read"),
    "search field.yaml": (1, "field.yaml: study.trails is not a field"),
    "search data.yaml": (1, "data.yaml: data: the folder of labels must exist"),
    "search mask.yaml": (1, "mask.yaml: data: mask"),
    "search model.yaml": (1, "model.yaml: model.id must be a hub id or an existing folder"),
    "search timestep.yaml": (
        1,
        "timestep.yaml: timesteps.1 (counted from 0): timestep must be in [0, 999], but got 1000",
    ),
    "resume tinny": (1, "no study is named 'tinny'"),
    "worker tinny": (1, "no study is named 'tinny'"),
    "report tinny": (1, "no study is named 'tinny'"),
    "pick tinny --channels 3": (1, "no study is named 'tinny'"),
    "demo --task detection": (1, "the demo's task must be one of"),
    "activations ./nowhere": (1, "there is no folder ./nowhere"),
    "extract nowhere.json . --out features": (1, "there is no nowhere.json"),
    "extract notes.json . --out features": (1, "must be a selection file, but has no members"),
    "extract selection.json nowhere --out features": (1, "there is no nowhere"),
    "score nowhere.json": (1, "there is no nowhere.json"),
    "report tiny --out copied.html": (0, "copied.html"),  # the last: what it imports would hide in those behind it
}


@pytest.fixture(scope="module")
def answers(folder: Path) -> dict[str, tuple[int, list[str], str]]:
    """Exit code, heavy packages imported and words of each command, one after the other in a new process."""
    environment = {name: value for name, value in os.environ.items() if name != "DIFFSIFT_WORKSPACE"}
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps([*LIGHT])],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(result.stdout))


@pytest.mark.parametrize("command", LIGHT)
def test_commands_that_answer_at_once_import_nothing_heavy(
    answers: dict[str, tuple[int, list[str], str]], command: str
) -> None:
    code, words = LIGHT[command]
    found, heavy, said = answers[command]
    drawn = ["matplotlib"] if command.startswith("report tiny ") else []  # reports hold curves
    assert (found, heavy) == (code, drawn)
    assert words in " ".join(said.split())
