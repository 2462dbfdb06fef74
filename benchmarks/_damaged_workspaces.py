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
from collections import Counter
from collections.abc import Sequence
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
_PATIENCE = 300.0  # s that a command may take
_TRACEBACK = "Traceback (most recent call last)"


def measure_starts(processes: int, rounds: int) -> dict[str, Any]:
    """Searches of different studies that are started together in a new workspace, and how they end.

    Args:
        processes: at once.
        rounds: each in a workspace of its own.

    Returns:
        Counts of processes that were tried and that failed, and of studies and child runs that are missing.
    """
    failed = missing = 0
    with tempfile.TemporaryDirectory(prefix="diffsift-starts-") as temporary:
        made = _Made(Path(temporary))
        for number in range(rounds):
            workspace = made.folder / f"workspace{number}"
            names = [f"study{process}" for process in range(processes)]
            children = [
                _fork(["search", str(made.specification(name, 3)), *made.places(workspace, name)], made.log(name))
                for name in names
            ]
            ends = [_wait(child) for child in children]
            failed += sum(end != 0 for end in ends)
            for name, end in zip(names, ends, strict=True):
                if end:
                    print(f"starts {number}: {name} ended with {end}: {_tail(made.log(name))}", flush=True)
            scores = _scores(workspace)
            missing += sum(len(scores.get(name, {})) != 3 for name in names)
    return {"part": "starts", "tried": processes * rounds, "failed": failed, "missing": missing}


def measure_flips(count: int, seed: int = 0) -> dict[str, Any]:
    """One bit that flips in a file of a workspace, the kinds of files in turn, and what the next command makes of it.

    Args:
        count: of flips.
        seed: draws files and bits.

    Returns:
        Counts of how they ended: mended or harmless (the same scores), refused, a traceback, or other scores.
    """
    rng, ends = random.Random(seed), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="diffsift-flips-") as temporary:
        made = _Made(Path(temporary))
        whole = made.folder / "whole"
        _done(made, ["search", str(made.specification(STUDY, _TRIALS)), *made.places(made.workspace, STUDY)])
        shutil.copytree(made.workspace, whole)
        wanted = {command: _after(made, whole, command, None, 0) for command in ("resume", "worker", "extract")}
        for number in range(count):
            kind = list(_KINDS)[number % len(_KINDS)]
            file = rng.choice(sorted(path.relative_to(whole) for path in whole.glob(_KINDS[kind].files)))
            bit = rng.randrange(8 * (whole / file).stat().st_size)
            found = _after(made, whole, _KINDS[kind].command, file, bit)
            end = found.end(wanted[_KINDS[kind].command])
            ends[end] += 1
            print(f"flip {number:3d}   {file}, bit {bit}: {end} {found.said if end != 'same' else ''}", flush=True)
    bad = ends["traceback"] + ends["different"]
    return {"part": "flips", "tried": count, **{end: ends[end] for end in _ENDS}, "failed": bad}


_ENDS = ("same", "refused", "traceback", "different")


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
        return "same" if self.result == wanted.result else "different"


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
