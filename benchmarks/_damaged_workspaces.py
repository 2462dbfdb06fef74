"""Parts of `robustness.py` that need whole searches: first starts at once, and bits that flip in a workspace.

Everything runs the real command line, in processes forked from one that has imported it all. The model and its data are
those of the tests: so small that a search takes seconds.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support import tiny

from diffsift.cli.app import app
from diffsift.tracking import Ledger, open_database

STUDY = "flips"
_TRIALS, _MORE = 12, 6
_AT_ONCE = 15  # searches that are started together
_PATIENCE = 300.0  # s that a command may take
_TRACEBACK = "Traceback (most recent call last)"


Ended = tuple[str, str, float]
"""How a case ended, what was said, and the seconds that it took."""


def starts(count: int) -> list[Ended]:
    """Searches of different studies that are started together in a new workspace, in rounds of fifteen.

    Args:
        count: of searches in all.

    Returns:
        For each: accepted, died, or different where trials are missing.
    """
    found: list[Ended] = []
    with tempfile.TemporaryDirectory(prefix="diffsift-starts-") as temporary:
        made = _Made(Path(temporary))
        for number in range(0, count, _AT_ONCE):
            workspace = made.folder / f"workspace{number}"
            names = [f"study{process}" for process in range(min(_AT_ONCE, count - number))]
            started = time.monotonic()
            children = [
                _fork(["search", str(made.specification(name, 3)), *made.places(workspace, name)], made.log(name))
                for name in names
            ]
            statuses = [_wait(child) for child in children]
            seconds, scores = (time.monotonic() - started) / len(names), _scores(workspace)
            for name, status in zip(names, statuses, strict=True):
                whole = len(scores.get(name, {})) == 3
                end = "died" if status else "accepted" if whole else "different"
                found.append((end, "" if end == "accepted" else _tail(made.log(name)), seconds))
    return found


def flips(count: int) -> list[Ended]:
    """One bit that flips in a file of a workspace, the kinds of files in turn, and what the next command makes of it.

    Args:
        count: of flips.

    Returns:
        For each: accepted (it was mended or harmless, with the same scores), refused, a traceback, or different scores.
    """
    rng = random.Random(0)
    found: list[Ended] = []
    with tempfile.TemporaryDirectory(prefix="diffsift-flips-") as temporary:
        made = _Made(Path(temporary))
        whole = made.folder / "whole"
        _done(made, ["search", str(made.specification(STUDY, _TRIALS)), *made.places(made.workspace, STUDY)])
        shutil.copytree(made.workspace, whole)
        wanted = {command: _after(made, whole, command, None, 0) for command in ("resume", "worker", "extract")}
        for number in range(count):
            kind = list(_KINDS.values())[number % len(_KINDS)]
            file = rng.choice(sorted(path.relative_to(whole) for path in whole.glob(kind.files)))
            bit = rng.randrange(8 * (whole / file).stat().st_size)
            started = time.monotonic()
            after = _after(made, whole, kind.command, file, bit)
            end = after.end(wanted[kind.command])
            found.append((end, f"{file}, bit {bit}: {after.said}", time.monotonic() - started))
    return found


WORKSPACE_PARTS: dict[str, tuple[Callable[[int], list[Ended]], int]] = {"starts": (starts, 75), "flips": (flips, 64)}
"""Each part with the number of cases of the published figures."""


@dataclass(frozen=True)
class _Kind:
    """Files of a workspace, and the command that reads them back."""

    files: str
    command: str = "resume"


_KINDS = {
    "entry": _Kind("bank/*/entry.json"),
    "statistics": _Kind("bank/*/*.safetensors"),
    "index": _Kind("bank/*/*.index"),
    "features": _Kind("bank/*/*.bin"),
    "studies": _Kind("studies.db"),
    "mlflow": _Kind("mlflow.db"),
    "shared": _Kind("shared/*.safetensors", "worker"),
    "weights": _Kind("weights.json"),
    "selection": _Kind("selection.json", "extract"),
    "tensors": _Kind("selection.safetensors", "extract"),
}


@dataclass(frozen=True)
class _Found:
    """What a command left: its exit status, what it said, and scores by selection or the features that it wrote."""

    status: int
    said: str
    result: Any

    def end(self, wanted: _Found) -> str:
        if _TRACEBACK in self.said or self.status not in (0, 1):
            return "traceback"
        if self.status:
            return "refused"
        return "accepted" if self.result == wanted.result else "different"


class _Made:
    """A model, data, and what is searched with them."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.workspace = folder, folder / "workspace"
        tiny.pipeline().save_pretrained(folder / "model")
        self.data = tiny.write_data(folder / "data")

    def specification(self, name: str, trials: int) -> Path:
        file = self.folder / f"{name}.yaml"
        values = tiny.specification(self.folder / "model", self.data, study={"name": name, "trials": trials})
        file.write_text(yaml.safe_dump(values), encoding="utf-8")
        return file

    def places(self, workspace: Path, name: str) -> list[str]:
        out = workspace / "selection.json" if name == STUDY else self.folder / f"{name}.json"
        return ["--workspace", str(workspace), "--out", str(out)]

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"


def _after(made: _Made, whole: Path, command: str, file: Path | None, bit: int) -> _Found:
    """Restore the workspace, flip a bit in it, and run a command there."""
    shutil.rmtree(made.workspace)
    shutil.copytree(whole, made.workspace)
    if file is not None:
        content = bytearray((made.workspace / file).read_bytes())
        content[bit // 8] ^= 1 << bit % 8
        (made.workspace / file).write_bytes(content)
    log, features = made.log("command"), made.folder / "features"
    log.unlink(missing_ok=True)
    shutil.rmtree(features, ignore_errors=True)
    at = ["--workspace", str(made.workspace)]
    if command == "extract":
        words = ["extract", str(made.workspace / "selection.json"), str(made.data / "images"), "--out", str(features)]
    elif command == "worker":  # has something to do where the study asks for more
        with Ledger(open_database(_url(made.workspace))) as ledger:
            row = ledger.study(STUDY)
            runtime = {**row.runtime, "study": {**row.runtime["study"], "trials": _TRIALS + _MORE}}
            ledger.set_runtime(STUDY, runtime)
        words = ["worker", STUDY, *at]
    else:
        words = ["resume", STUDY, "--trials", str(_TRIALS + _MORE), *made.places(made.workspace, STUDY)]
    status = _wait(_fork(words, log))
    said = log.read_text(encoding="utf-8", errors="replace")
    if status:
        return _Found(status, said if _TRACEBACK in said else _tail(log), None)
    if command == "extract":
        return _Found(0, "", {path.name: path.read_bytes() for path in sorted(features.rglob("*")) if path.is_file()})
    # A worker draws proposals of its own: what it scored must have the score that any other process gives it.
    scores = _scores(made.workspace)[STUDY]
    return _Found(0, "", _rescored(made, scores) if command == "worker" else scores)


def _rescored(made: _Made, scores: dict[str, float]) -> bool:
    """Whether a bank that is whole gives these selections the same scores."""
    from diffsift.common.reporting import NullReporter
    from diffsift.objectives import make_objective
    from diffsift.spaces import Selection
    from diffsift.study_store import StudyStore

    with StudyStore.existing(made.folder / "whole") as store:
        specification = store.specification(STUDY)
        bank = store.shared_bank(specification, specification.context(store.workspace, NullReporter()))
        objective = make_objective(specification.data_sets, specification.task, specification.bank, specification.probe)
        probe = objective.probe(bank)
        return all(
            abs(probe.score(Selection.from_json(json.loads(members))).value - score) < 1e-9
            for members, score in scores.items()
        )


def _url(workspace: Path) -> str:
    return f"sqlite:///{workspace / 'studies.db'}"


def _scores(workspace: Path) -> dict[str, dict[str, float]]:
    """The scores of every study, by selection."""
    with Ledger(open_database(_url(workspace))) as ledger:
        return {
            row.name: {json.dumps(entry.selection.to_json()): entry.score for entry in ledger.evaluations(row.name)}
            for row in ledger.studies()
        }


def _fork(command: Sequence[str], log: Path) -> int:
    """Run ``diffsift`` in a process forked from this one; what it prints is appended to a file."""
    child = os.fork()
    if child:
        return child
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    status = 70
    try:
        app(list(command))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _wait(child: int) -> int:
    ends = time.monotonic() + _PATIENCE
    while time.monotonic() < ends:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.02)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _done(made: _Made, command: list[str]) -> None:
    if _wait(_fork(command, made.log("first"))):
        raise SystemExit(f"diffsift {command[0]} failed:\n{_tail(made.log('first'))}")


def _tail(log: Path) -> str:
    lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if "error" in line.lower()]
    return lines[-1][:300] if lines else ""
