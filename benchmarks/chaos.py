"""What is left of a search that is killed again and again: ``kill -9`` at random moments, then ``diffsift resume``.

A search on rendered scenes with a pipeline of the demo is started with ``diffsift search`` and killed (SIGKILL) in its
search phase; then each ``diffsift resume`` is killed too, until all kills are done. The last resume runs to its end.
Every process is a new one and runs the real command line (those to be killed are forked from a server that has only
imported the modules; the last one starts from nothing); the parent sends the signal. Half of the kills come at a
random moment (a random number of trials, then a random delay), the others at a point of a trial, reached after a
random number of trials: "scored" (in the ledger, not in the study), "recorded" (in the study, not handed to MLflow's
log), "logged" (handed to the log) and "mlflow" (after a random number of single writes to the MLflow store, so also
between the writes of one child run; batches are of 25 trials instead of 100 here, so that more kills meet them).

With ``--workers n`` every round has n processes at once, each killed in its own way: one that leads (search, resume)
and n - 1 that joined (``diffsift worker``, which writes nothing to MLflow); the last resume has n processes too.

Checked after every kill: no trial is lost that was committed before. Checked after the last resume: exactly the asked
number of distinct finished selections, each in one trial; no trial of any other state; no claim left; the ledger holds
these selections and no other; in MLflow one parent run, one child run a trial at most, and the same trial uids as in
the study, with equal scores; and, with one worker, since a proposal then depends on the finished trials alone, the same
selections and scores in the same order as a search that nobody killed. A violation is named, and the exit status is 1.

With ``--postgresql`` the study lies on a PostgreSQL server that this script starts, and ``--restarts`` and ``--cuts``
disturb it while processes run: restarts are orderly ("fast") and crashes ("immediate") in turn and keep the server off
for a second; a cut ends all connections. No process may end by that.

Conditions: 40 training, 40 validation and 20 test scenes, 16 locations each, two timesteps; bank and reference are made
first. Noise that is left: places and delays are drawn from --seed, but where in a trial a random moment falls depends
on the machine, so no two runs kill at the same instructions. Killing a process does not lose what the system holds for
the disk; a power cut can, and is not tried here.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from _chaos_driver import MOMENT, POINTS, Plan, drive
from _common import RESULTS, environment, load, write_csv

from diffsift.common.workspace import Workspace
from diffsift.demo import PIPELINE
from diffsift.search import SearchSpace, TrialStore, open_storage
from diffsift.specification import Specification
from diffsift.tracking import Ledger, TrialRecord, open_database

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support.mlflow_store import stored_scores
from support.postgresql import Server

STUDY, REFERENCE = "chaos", "chaos-reference"
LEADS, JOINS = "leads", "joins"
LONGEST_DELAY = 0.15  # s from the drawn trial to the kill at a random moment: some trials long
PATIENCE = 1800  # s that one process may take
FORKS = multiprocessing.get_context("forkserver")


@dataclass(frozen=True)
class Kill:
    """A kill as it came about; `recorded` counts the trials that the killed process had committed for sure."""

    point: str
    recorded: int
    seconds: float


class Tried:
    """A workspace with a study to be killed, and what its databases say."""

    def __init__(self, workspace: Workspace, trials: int, workers: int, server: Server | None) -> None:
        self.workspace, self.trials, self.workers, self.server = workspace, trials, workers, server
        self.url = workspace.study_url if server is None else server.url
        self.output = workspace.folder / "output.log"
        # A copy: all processes must see the same weights, whatever happens to the installed ones meanwhile.
        self.pipeline = Path(shutil.copytree(PIPELINE, workspace.folder / "pipeline"))

    def write_specification(self, name: str) -> Path:
        """Two of three trials get a child run, so that both ways into MLflow are taken."""
        file = self.workspace.folder / f"{name}.yaml"
        values = {
            "model": {"id": str(self.pipeline), "device": "cpu", "batch_size": 40},
            "data": {"kind": "rendered-scenes", "train": 40, "validation": 40, "test": 20},
            "timesteps": [50, 150],
            "bank": {"pixels_per_image": 16, "fit_images": 40},
            "study": {"name": name, "trials": self.trials, "storage": None if self.server is None else self.url},
            "tracking": {"child_runs": 2 * self.trials // 3},
        }
        file.write_text(yaml.safe_dump(values, sort_keys=False), encoding="utf-8")
        return file

    def states(self) -> Counter[str]:
        """Trials by state, as Optuna holds them."""
        import optuna

        if STUDY not in optuna.get_all_study_names(storage := open_storage(self.url)):
            return Counter()
        trials = optuna.load_study(study_name=STUDY, storage=storage).get_trials(deepcopy=False)
        return Counter(trial.state.name for trial in trials)

    def records(self, name: str) -> list[TrialRecord]:
        """The finished trials as the product itself reads them."""
        ledger = self.ledger()
        row = ledger.study(name)
        specification = Specification.parse(row.runtime)
        pool = row.candidates
        space = SearchSpace(pool, dict.fromkeys(pool, 1), specification.limits)
        return TrialStore(self.url, specification.study, space, ledger).records()

    def ledger(self) -> Ledger:
        return Ledger(open_database(self.url))


def main() -> None:
    options = _options()
    load_before = load()
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    FORKS.set_forkserver_preload(["_chaos_driver"])
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory(prefix="diffsift-chaos-"))
        server = Server() if options.postgresql else None
        if server is not None:
            stack.callback(server.remove)
        trials = options.trials or 12 * (options.kills + 1) + 30
        tried = Tried(Workspace(Path(temporary)), trials, options.workers, server)
        _search_reference(tried)
        kills, problems = _kill_all(options, tried)
        _finish(tried, "resume", STUDY, "--workers", str(options.workers))
        problems += _violations(tried)
    between = sum(kill.point != MOMENT for kill in kills)
    print(f"\n{len(kills)} kills of {options.workers} at a time, {between} of them at a point between two writes")
    for problem in problems:
        print(f"VIOLATED    {problem}")
    if not problems:
        print(f"HELD        {tried.trials} distinct finished selections, none running, ledger and MLflow equal")
    columns = {**environment(), "load_before": load_before, "load_after": load(), "trials": tried.trials}
    verdict = {"held": not problems, "problems": "; ".join(problems)}
    rows = [
        {
            "kill": number,
            "storage": "sqlite" if tried.server is None else "postgresql",
            "restarts": options.restarts,
            "cuts": options.cuts,
            "workers": options.workers,
            "point": kill.point,
            "recorded": kill.recorded,
            "seconds": kill.seconds,
            **verdict,
            **columns,
        }
        for number, kill in enumerate(kills, 1)
    ]
    if rows:
        write_csv(options.out, rows)
    sys.exit(1 if problems else 0)


def _kill_all(options: argparse.Namespace, tried: Tried) -> tuple[list[Kill], list[str]]:
    """Start or resume, kill, look, and again."""
    rng = random.Random(options.seed)
    # Of one process; more are made during a random moment's delay, and where MLflow's next batch must be waited for.
    most = tried.trials // (options.kills + 1)
    command = ["search", str(tried.write_specification(STUDY))]
    kills: list[Kill] = []
    problems: list[str] = []
    finished = 0
    points = {
        LEADS: _points_to_kill(POINTS, options.kills, rng),
        JOINS: _points_to_kill(("scored", "recorded"), options.kills, rng),
    }
    disturbances = _disturbances(options, rng)
    while len(kills) < options.kills:
        # The first process makes the study: until then there is nothing to join.
        joining = min(options.workers - 1, options.kills - len(kills) - 1) if kills else 0
        tasks = []
        for role, words in [(LEADS, command), *[(JOINS, ["worker", STUDY])] * joining]:
            plan = Plan(points[role].pop(), rng.randrange(max(1, most - 1)), rng.randint(1, 30))
            tasks.append((words, plan, rng.uniform(0, LONGEST_DELAY), tried))
        with ThreadPoolExecutor(len(tasks) + 1) as pool:
            disturbed = pool.submit(_disturb, tried, rng.uniform(0.5, 2), disturbances.pop() if disturbances else "")
            found = list(pool.map(_kill_one, *zip(*tasks, strict=True)))
            disturbed.result()
        ended = [task[1].point for task, kill in zip(tasks, found, strict=True) if kill is None]
        killed = [kill for kill in found if kill is not None]
        states = tried.states()
        for kill in killed:
            kills.append(kill)
            print(
                f"kill {len(kills):3d}   {kill.point:7s} after {kill.recorded:3d} trials and {kill.seconds:5.1f} s; "
                f"left: {_listed(states)}",
                flush=True,
            )
        recorded = sum(kill.recorded for kill in killed)
        if states["COMPLETE"] < finished + recorded:
            lost = finished + recorded - states["COMPLETE"]
            problems.append(f"kills up to {len(kills)} lost {lost} committed trials")
        if ended:
            problems.append(
                f"after {len(kills)} kills a process ended before its kill at {ended[0]!r}: give more --trials"
            )
            break
        finished = states["COMPLETE"]
        command = ["resume", STUDY]
    return kills, problems


def _points_to_kill(points: Sequence[str], count: int, rng: random.Random) -> list[str]:
    """Half of them at random moments, the others at each point in turn; shuffled."""
    places = [MOMENT if number % 2 else points[number // 2 % len(points)] for number in range(count)]
    rng.shuffle(places)
    return places


def _disturbances(options: argparse.Namespace, rng: random.Random) -> list[str]:
    """What befalls the server in each round, in the order in which it is popped; most rounds of many are quiet."""
    found = [("fast", "immediate")[number % 2] for number in range(options.restarts)] + ["cut"] * options.cuts
    rounds = -(-options.kills // options.workers)
    found += [""] * max(0, rounds - len(found))
    rng.shuffle(found)
    return found


def _disturb(tried: Tried, delay: float, kind: str) -> None:
    """Restart the server or cut its connections, some time from now."""
    if not kind or tried.server is None:
        return
    time.sleep(delay)
    if kind == "cut":
        print(f"cut       {tried.server.cut()} connections", flush=True)
        return
    tried.server.stop(kind)
    time.sleep(1)
    tried.server.start()
    print(f"restart   {kind}", flush=True)


def _kill_one(command: list[str], plan: Plan, delay: float, tried: Tried) -> Kill | None:
    """Run the driver until its mark, kill it, and read what it said; None if it ended by itself."""
    marks, their_end = FORKS.Pipe(duplex=False)
    started = time.perf_counter()
    process = FORKS.Process(target=drive, args=(plan, their_end, [*command, *_arguments(command, tried)], tried.output))
    process.start()
    their_end.close()
    recorded, place = 0, ""
    with contextlib.suppress(EOFError):  # how a dead process says so
        while True:
            word, value = marks.recv()
            if word == "recorded":
                recorded = value
            else:
                place = value
                time.sleep(delay if place == MOMENT else 0)
                process.kill()
    process.join(PATIENCE)
    if process.exitcode != -signal.SIGKILL:
        if process.exitcode != 0:
            raise SystemExit(f"diffsift {' '.join(command)} ended with {process.exitcode}:\n{_tail(tried)}")
        return None
    return Kill(place, recorded, time.perf_counter() - started)


def _search_reference(tried: Tried) -> None:
    """The same search under another name, undisturbed; stopped when it is over, since nothing else of it is needed."""
    command = ["search", str(tried.write_specification(REFERENCE))]
    if _kill_one(command, Plan("recorded", tried.trials, 0), 0, tried) is None:
        raise SystemExit(f"the reference must evaluate {tried.trials} selections, but ended before:\n{_tail(tried)}")


def _finish(tried: Tried, *command: str) -> None:
    """Run the command line, undisturbed, to its end."""
    program = [sys.executable, "-m", "diffsift", *command, *_arguments(command, tried)]
    with tried.output.open("ab") as output:
        ended = subprocess.run(program, stdout=output, stderr=subprocess.STDOUT, timeout=PATIENCE, check=False)
    if ended.returncode:
        raise SystemExit(f"diffsift {' '.join(command)} ended with {ended.returncode}:\n{_tail(tried)}")


def _violations(tried: Tried) -> list[str]:
    """Everything that does not hold after the last resume, in words."""
    problems = []

    def require(holds: bool, text: str) -> None:
        if not holds:
            problems.append(text)

    records, states = tried.records(STUDY), tried.states()
    selections = [record.selection for record in records]
    distinct = set(selections)
    require(len(distinct) == tried.trials, f"{len(distinct)} distinct finished selections, asked {tried.trials}")
    require(len(selections) == len(distinct), f"{len(selections) - len(distinct)} finished trials repeat a selection")
    require(set(states) == {"COMPLETE"}, f"there are {_listed(states)} trials")

    ledger = {entry.selection: entry.score for entry in tried.ledger().evaluations(STUDY)}
    require(ledger == {record.selection: record.score for record in records}, "the ledger differs from the study")
    with tried.ledger() as open_ledger, open_ledger.claims(STUDY) as claims:
        require(not claims.others(), f"{len(claims.others())} claims are left")
    wanted = [(record.selection, record.score) for record in tried.records(REFERENCE)]
    got = [(record.selection, record.score) for record in records]
    require(
        tried.workers > 1 or got == wanted, f"{_first_difference(got, wanted)} differs from the search nobody killed"
    )
    return problems + _mlflow_violations(tried, {record.uid: record.score for record in records})


def _mlflow_violations(tried: Tried, study: dict[str, float]) -> list[str]:
    from mlflow import MlflowClient

    problems = []
    client = MlflowClient(tracking_uri=tried.workspace.mlflow_url)
    experiments = [entry.experiment_id for entry in client.search_experiments()]
    runs = client.search_runs(experiments, f"tags.`diffsift.study` = '{STUDY}'", max_results=5000)
    parents = [run for run in runs if run.data.tags["diffsift.role"] == "study"]
    trials = [run for run in runs if run.data.tags["diffsift.role"] == "trial"]
    children = Counter(run.data.tags["diffsift.trial_uid"] for run in trials)
    statuses = Counter(run.info.status for run in runs)
    if len(parents) != 1:
        problems.append(f"{len(parents)} parent runs in MLflow")
    if twice := [uid for uid, count in children.items() if count > 1]:
        problems.append(f"{len(twice)} trials have several child runs in MLflow, first {twice[0]}")
    if set(statuses) != {"FINISHED"}:
        problems.append(f"runs in MLflow are not all finished: {_listed(statuses)}")
    steps = [metric.step for metric in client.get_metric_history(parents[0].info.run_id, "score")] if parents else []
    if sorted(steps) != sorted(int(uid.rpartition("-")[2]) for uid in study):
        problems.append(
            f"the curve in MLflow has {len(steps)} steps ({len(set(steps))} distinct) for {len(study)} trials"
        )

    tracked = stored_scores(tried.workspace.mlflow_url, STUDY)
    if missing := study.keys() - tracked.keys():
        problems.append(f"{len(missing)} trials are missing in MLflow, first {min(missing)}")
    if extra := tracked.keys() - study.keys():
        problems.append(f"{len(extra)} trials are in MLflow only, first {min(extra)}")
    if differing := [uid for uid in study.keys() & tracked.keys() if study[uid] != tracked[uid]]:
        problems.append(f"{len(differing)} trials have another score in MLflow, first {min(differing)}")
    return problems


def _first_difference(got: list[Any], wanted: list[Any]) -> str:
    pairs = enumerate(zip(got, wanted, strict=False))
    return next((f"finished trial {index}" for index, (a, b) in pairs if a != b), "the number of trials")


def _arguments(command: Sequence[str], tried: Tried) -> list[str]:
    out = [] if command[0] == "worker" else ["--out", str(tried.workspace.folder / "selection.json")]
    stored = ["--storage", tried.url] if tried.server is not None and command[0] != "search" else []
    return ["--workspace", str(tried.workspace.folder), *out, *stored]


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name.lower()}" for name, count in sorted(counts.items())) or "no trials"


def _tail(tried: Tried) -> str:
    return tried.output.read_text(encoding="utf-8", errors="replace")[-3000:]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="processes to kill (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=1, help="processes at once (default: %(default)s)")
    parser.add_argument("--trials", type=int, help="distinct selections to end with (default: 12 a process, and 30)")
    parser.add_argument("--postgresql", action="store_true", help="keep the study on a server; needs PostgreSQL")
    parser.add_argument("--restarts", type=int, default=0, help="of the server (default: %(default)s)")
    parser.add_argument("--cuts", type=int, default=0, help="of all connections (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="draws places and moments (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "chaos.csv", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
