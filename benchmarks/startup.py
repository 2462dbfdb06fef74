"""How fast the command line answers: processor time of commands that need no model.

For each command the least user and system time of several runs, each a new process: wrong input, help, and looks at a
study that has ended. The study is one of a few trials on the built-in pipeline and scenes.

Noise that is left: processor time grows by some ten per cent on a busy machine; the least of the runs is given. The
first run after an installation compiles byte code and is never the least.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml
from _common import RESULTS, environment, load, print_table, write_csv

import diffsift
from diffsift.demo import PIPELINE

STUDY = {
    "model": {"id": str(PIPELINE), "device": "cpu"},
    "data": {"kind": "rendered-scenes", "train": 12, "validation": 0, "test": 6},
    "timesteps": [50],
    "filters": {"rules": "none", "keep": ["up-*-cross-q"]},
    "study": {"name": "small", "trials": 5},
    "tracking": {"mlflow": False},
}
WRONG: dict[str, dict[str, Any]] = {
    "wrong field": {"study": {"name": "small", "trails": 3}},
    "no data folder": {"data": {"kind": "folder", "images": "nowhere", "labels": "labels", "classes": 2}},
    "no model folder": {"model": {"id": "./nowhere"}},
}
COMMANDS: dict[str, tuple[float, list[str]]] = {
    "help": (0.2, ["--help"]),
    "help of a command": (0.2, ["search", "--help"]),
    "no specification": (0.5, ["search", "nowhere.yaml"]),
    **{name: (0.5, ["search", f"{name}.yaml"]) for name in WRONG},
    "no study": (0.5, ["resume", "other"]),
    "no selection": (0.5, ["extract", "nowhere.json", ".", "--out", "features"]),
    "status": (1.0, ["status"]),
    "pick, the front": (1.0, ["pick", "small"]),
    "compare": (1.0, ["compare", "small", "again"]),
    "report": (1.0, ["report", "small"]),
    "bank list": (1.0, ["bank", "list"]),
}
"""By what is measured: the most seconds it should take, and the arguments."""


def main() -> None:
    options = _options()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="diffsift-startup-") as temporary:
        folder = Path(temporary)
        for name in ("small", "again"):
            study = {**STUDY["study"], "name": name}  # type: ignore[dict-item]
            diffsift.select({**STUDY, "study": study}, workspace=folder / ".diffsift", out=folder / f"{name}.json")
        for name, changes in WRONG.items():
            (folder / f"{name}.yaml").write_text(yaml.safe_dump({**STUDY, **changes}), encoding="utf-8")
        for name, (most, arguments) in COMMANDS.items():
            seconds = min(_processor_time(arguments, folder) for _ in range(options.runs))
            rows.append({"command": name, "seconds": seconds, "at_most": most, "load": load(), **environment()})
    cells = [(row["command"], f"{row['seconds']:.2f}", f"{row['at_most']:.1f}") for row in rows]
    print_table(("command", "seconds", "at most"), cells)
    write_csv(options.out, rows)


def _processor_time(arguments: list[str], folder: Path) -> float:
    """User and system time of one call, in seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-m", "diffsift", *arguments], cwd=folder, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=5, help="of each command; default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "startup.csv", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
