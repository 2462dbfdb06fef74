"""Damaged inputs and machines: nothing may end in a traceback, hang, or be silently wrong.

The cases of `_damaged_inputs` run one after another in forked processes: a hundred in each, because most of what a
case costs is its process, and a new one after a case that hangs or ends its process. A case may succeed or be refused
with a `DiffsiftError`; everything else is a failure and is named: another exception (with the place that raised it),
more than ten seconds, more memory than 6 GB above the start, a process that dies, or an answer of more than 2,000
characters. Seeds are fixed, so every run has the same cases. The exit status is 1 where anything failed.

The parts ``starts`` and ``flips`` (`_damaged_workspaces`) run whole searches: fifteen that are started together in a
new workspace, and one after a bit has flipped in a file of its workspace. There, scores that differ from those of a
whole workspace are a failure too. Kills, and servers that restart, are tried by `chaos.py`:

    python benchmarks/chaos.py --kills 200
    python benchmarks/chaos.py --kills 100 --workers 3 --postgresql --restarts 10 --cuts 20

    python benchmarks/robustness.py --only specifications selections   # these parts alone
    python benchmarks/robustness.py --cases 50                         # the first cases of each part
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from _common import RESULTS, environment, load, print_table, write_csv
from _damaged_inputs import PARTS, Part
from _damaged_workspaces import WORKSPACE_PARTS

MOST_SECONDS = 10.0
MOST_CHARACTERS = 2000
_MEMORY = 6 * 2**30
_AT_ONCE = 100  # cases of a process, where none ends it
_OK, _REFUSED, _TRACEBACK, _HANG, _DIED = "accepted", "refused", "traceback", "hang", "died"
_DIFFERENT = "different"


@dataclass(frozen=True)
class Answer:
    """What became of a case: how it ended, what it said or where it failed, and the seconds that it took."""

    end: str
    said: str
    seconds: float

    def __str__(self) -> str:
        return f"{self.end} after {self.seconds:.1f} s: {self.said[:200]}"

    @property
    def failed(self) -> bool:
        return self.end not in (_OK, _REFUSED) or len(self.said) > MOST_CHARACTERS


def answers(part: Part, folders: Sequence[Path]) -> Iterator[Answer]:
    """Run cases, in as few processes as their ends allow."""
    done = 0
    while done < len(folders):
        started, child = time.monotonic(), os.fork()
        if child == 0:
            _run(part, folders[done:])
        for folder in folders[done:]:
            end, said = _answer_of(child, folder, started)
            yield Answer(end, said, time.monotonic() - started)
            done, started = done + 1, time.monotonic()
            if end in (_HANG, _DIED):
                break
        else:
            os.waitpid(child, 0)


def _answer_of(child: int, folder: Path, started: float) -> tuple[str, str]:
    """How the next case of a process ends, and what it says; a process that hangs is killed."""
    file = _answer_file(folder)
    while time.monotonic() - started < MOST_SECONDS:
        ended = os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        if file.exists():  # looked at last: a process may answer and then end
            end, _, said = file.read_text(encoding="utf-8", errors="replace").partition("\n")
            return end, said
        if ended:
            os.waitpid(child, 0)
            return _DIED, ""
        time.sleep(0.005)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return _HANG, ""


def _answer_file(folder: Path) -> Path:
    return folder.with_suffix(".answer")


def _run(part: Part, folders: Sequence[Path]) -> None:
    """In the child: use the cases, write what came of each, and end without cleaning up after the parent."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    for folder in folders:
        end, said = _ended(part, folder)
        written = folder.with_suffix(".written")
        written.write_text(f"{end}\n{said}", encoding="utf-8", errors="replace")
        written.rename(_answer_file(folder))
    os._exit(0)


def _ended(part: Part, folder: Path) -> tuple[str, str]:
    from diffsift.errors import DiffsiftError

    try:
        part.use(folder)
    except DiffsiftError as error:
        return _REFUSED, str(error)
    except BaseException as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "diffsift" in frame.filename]
        place = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "?"
        return _TRACEBACK, f"{place} {type(error).__name__}: {error}"[:300]
    return _OK, ""


def measure(name: str, cases: int, keep: Path | None) -> dict[str, Any]:
    """Run the cases of a part and count how they end; those that fail are shown, and kept where that is asked for."""
    scratch = Path(tempfile.mkdtemp(prefix="robustness-"))
    part = PARTS[name](scratch)
    ended: list[Answer] = []
    try:
        for start in range(0, cases, _AT_ONCE):
            folders = [scratch / f"case-{number}" for number in range(start, min(cases, start + _AT_ONCE))]
            for number, folder in enumerate(folders, start):
                folder.mkdir()
                part.make(number, folder)
            for folder, found in zip(folders, answers(part, folders), strict=True):
                ended.append(found)
                if found.failed:
                    print(f"{name}, {folder.name}: {found}", flush=True)
                    if keep is not None:
                        shutil.copytree(folder, keep / f"{name}-{folder.name}", dirs_exist_ok=True)
                shutil.rmtree(folder)
    finally:
        shutil.rmtree(scratch)
    return _row(name, ended)


def measure_workspaces(name: str, cases: int | None) -> dict[str, Any]:
    """Run the cases of a part with whole searches and count how they end; those that fail are shown."""
    part, default = WORKSPACE_PARTS[name]
    answered = [Answer(*ended) for ended in part(cases or default)]
    for number, found in enumerate(answered):
        if found.failed:
            print(f"{name}, case {number}: {found}", flush=True)
    return _row(name, answered)


def _row(name: str, answered: Sequence[Answer]) -> dict[str, Any]:
    ends = Counter(found.end for found in answered)
    return {
        "part": name,
        "tried": len(answered),
        **{end: ends[end] for end in (_OK, _REFUSED, _TRACEBACK, _HANG, _DIED, _DIFFERENT)},
        "too_long": sum(len(found.said) > MOST_CHARACTERS for found in answered),
        "longest_answer": max(len(found.said) for found in answered),
        "slowest_seconds": max(found.seconds for found in answered),
        "failed": sum(found.failed for found in answered),
        **environment(),
        "load": load(),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parts = [*PARTS, *WORKSPACE_PARTS]
    parser.add_argument("--only", nargs="+", choices=parts, default=parts, help="parts to run")
    parser.add_argument("--cases", type=int, help="cases of each part (default: those of the published figures)")
    parser.add_argument("--keep", type=Path, help="folder to keep failing cases in")
    parser.add_argument("--out", type=Path, default=RESULTS / "robustness.csv")
    options = parser.parse_args(arguments)
    os.environ["HF_HUB_OFFLINE"] = "1"
    rows = [
        measure(name, options.cases or PARTS[name].default_count, options.keep)
        if name in PARTS
        else measure_workspaces(name, options.cases)
        for name in options.only
    ]
    columns = ("part", "tried", _OK, _REFUSED, _TRACEBACK, _HANG, _DIED, _DIFFERENT, "too_long", "longest_answer")
    print_table(columns, [[str(row[column]) for column in columns] for row in rows])
    write_csv(options.out, rows)
    return int(any(row["failed"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
