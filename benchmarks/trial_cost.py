"""What a trial of the demo's search costs, and which part of it takes how long.

Measures a real search: ``diffsift.select`` on the demo's specification with timing wrappers around the objects it uses,
stopped right after the search (the test split stays sealed). The total is the wall time of ``SearchLoop.run`` and the
last MLflow flush, over the trials. Each moment counts for one part only, the innermost:

- proposal: `SubsetGPSampler.sample_relative`, without the storage reads in it;
- probe: `RidgeProbe.score`;
- ledger: `Ledger.evaluation` and the methods of `Claims`;
- optuna storage: every call on the study's storage (SQLite, with Optuna's cache in memory before it);
- mlflow: `MlflowLogger.add` and `MlflowLogger.flush`; it writes in batches: most trials pay nothing, some for many;
- rest: what is left: Optuna's study in memory, the search space, the progress of the loop, the timing itself.

``--planted`` measures what grows with a study instead: a search of --trials selections of a pool of 40 with a synthetic
probe, which costs next to nothing, and the parts of 200 trials before and after the 1,000th and of the last 200. Beside
it stands a yardstick, taken right before and right after: what plain Optuna takes for a trial of ten parameters drawn
at random, with the same SQLite settings. The ratio compares two machines, or one machine at two times.

A trial is cold when it holds a candidate, or a pair of them, that no trial before it held: the probe then reads
features and computes moments. A warm trial finds all in memory, as long as the probe's cache of 1 GB holds them.

Beside the wall time stands the processor time that this process used (all of its threads): where the load exceeds the
number of CPUs, the wall time is mostly waiting for others, and the processor time is what can be compared.

Noise that is left: one run on a machine that may be busy; load is printed and written before and after. Disk speed
enters the wall time through SQLite's commits.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, environment, load, print_table, write_csv

import diffsift
from diffsift.demo import TRIALS, demo_specification
from diffsift.objectives import RidgeProbe
from diffsift.search import SearchLoop, SubsetGPSampler, open_storage
from diffsift.spaces import Selection
from diffsift.tracking import Claims, Ledger, Logger, MlflowLogger

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support import planted

PARTS = ("proposal", "probe", "ledger", "optuna storage", "mlflow", "rest")
OVERHEAD = "all but probe"
_YARDSTICK = 150  # trials of plain Optuna before and after
Times = dict[str, np.ndarray]
_COLUMNS = ("mean_ms", "median_ms", "p95_ms", "mean_cpu_ms")


class _SearchOverError(Exception):
    """Ends `diffsift.select` when the search is over, before the test split is opened."""


class Clock:
    """Exclusive time per part, cut at the ends of trials.

    Attributes:
        trials: [wall, processor] seconds by part, one mapping per trial in order; "total" is their sum.
        after: seconds by part after the last trial's end: what was still to be written.
        cold: per trial, whether its probe met a candidate or a pair for the first time.
    """

    def __init__(self) -> None:
        self.trials: list[Times] = []
        self.after: Times = {}
        self.cold: list[bool] = []
        self._running = False
        self._stack = ["rest"]
        self._spent = _nothing()
        self._since = _now()
        self._met: set[Any] = set()
        self._is_cold = False

    def start(self) -> None:
        self._running, self._since = True, _now()

    def end_trial(self) -> None:
        self.trials.append(self._cut())
        self.cold.append(self._is_cold)
        self._is_cold = False

    def stop(self) -> None:
        self.after = self._cut()
        self._running = False

    def meet(self, selection: Selection) -> None:
        """Note what a probe is asked for."""
        blocks = {*selection.candidates, *map(frozenset, combinations(selection.candidates, 2))}
        self._is_cold = not blocks <= self._met
        self._met |= blocks

    def timed(self, part: str, method: Callable[..., Any]) -> Callable[..., Any]:
        """`method`, with its time counted for `part` while the clock runs."""

        @functools.wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            if not self._running:
                return method(*args, **kwargs)
            self._switch()
            self._stack.append(part)
            try:
                return method(*args, **kwargs)
            finally:
                self._switch()
                self._stack.pop()

        return wrapper

    def _switch(self) -> None:
        now = _now()
        self._spent[self._stack[-1]] += now - self._since
        self._since = now

    def _cut(self) -> Times:
        self._switch()
        spent, self._spent = self._spent, _nothing()
        return {**spent, "total": np.sum(list(spent.values()), axis=0)}


def _nothing() -> Times:
    return {part: np.zeros(2) for part in PARTS}


def _now() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


def install(clock: Clock) -> None:
    """Put the clock around the real methods, for the rest of this process."""
    import optuna

    score = RidgeProbe.score

    def score_and_meet(probe: RidgeProbe, selection: Selection) -> Any:
        clock.meet(selection)
        return score(probe, selection)

    RidgeProbe.score = clock.timed("probe", score_and_meet)
    planted.SyntheticProbe.score = clock.timed("probe", planted.SyntheticProbe.score)
    SubsetGPSampler.sample_relative = clock.timed("proposal", SubsetGPSampler.sample_relative)
    Ledger.evaluation = clock.timed("ledger", Ledger.evaluation)
    for name in ("claim", "complete", "others"):
        setattr(Claims, name, clock.timed("ledger", getattr(Claims, name)))
    for name in ("add", "flush"):
        setattr(MlflowLogger, name, clock.timed("mlflow", getattr(MlflowLogger, name)))
    # What a study talks to is not RDBStorage itself but Optuna's cache before it, made by get_storage.
    storage = type(optuna.storages.get_storage("sqlite://"))
    for name, method in vars(optuna.storages.BaseStorage).items():
        if callable(method) and not name.startswith("_"):
            setattr(storage, name, clock.timed("optuna storage", getattr(storage, name)))

    run = SearchLoop.run

    def run_and_stop(loop: SearchLoop, trials: int, *, logger: Logger | None = None, **options: Any) -> None:
        last = "recorded" if logger is None else "logged"
        SearchLoop.after_step = lambda loop, step: clock.end_trial() if step == last else None
        clock.start()
        run(loop, trials, logger=logger, **options)
        if logger is not None:
            logger.flush()
        clock.stop()
        raise _SearchOverError

    SearchLoop.run = run_and_stop


def main() -> None:
    options = _options()
    load_before = load()
    yardsticks = [_yardstick()] if options.planted else []
    clock = Clock()
    install(clock)
    with tempfile.TemporaryDirectory(prefix="diffsift-cost-") as temporary, contextlib.suppress(_SearchOverError):
        (_search_planted if options.planted else _search_demo)(options, temporary)
    yardsticks += [_yardstick()] if options.planted else []
    columns = {**environment(), "trials": len(clock.trials), "load_before": load_before, "load_after": load()}
    rows = _windows(clock) if options.planted else _statistics(clock)
    _print(rows, clock, columns)
    if options.planted:
        yardstick = np.concatenate(yardsticks)
        rows.append(_row("plain Optuna, 10 parameters", "total", *yardstick.T))
        _print_ratios(rows)
    write_csv(options.out, [{**row, **columns} for row in rows])


def _search_demo(options: argparse.Namespace, folder: str) -> None:
    specification = demo_specification(seed=options.seed, trials=options.trials)
    study = specification.study.model_copy(update={"name": f"trial-cost-{uuid.uuid4().hex[:8]}"})
    specification = specification.model_copy(update={"study": study})
    diffsift.select(specification, workspace=options.workspace or folder)


def _search_planted(options: argparse.Namespace, folder: str) -> None:
    store, logger = planted.logged_store(folder)
    SearchLoop(store, planted.SyntheticProbe()).run(options.trials, logger=logger)


def _yardstick() -> np.ndarray:
    """[wall, processor] milliseconds of trials of plain Optuna: ten parameters, drawn at random, told to SQLite."""
    import optuna

    times = []
    with tempfile.TemporaryDirectory(prefix="diffsift-cost-") as folder:
        storage = open_storage(f"sqlite:///{folder}/studies.db")
        study = optuna.create_study(storage=storage, sampler=optuna.samplers.RandomSampler(seed=0))
        for _ in range(_YARDSTICK):
            started = _now()
            trial = study.ask()
            study.tell(trial, sum(trial.suggest_float(f"parameter{number}", 0.0, 1.0) for number in range(10)))
            times.append(1000 * (_now() - started))
    return np.array(times[_YARDSTICK // 3 :])


def _print_ratios(rows: Sequence[dict[str, Any]]) -> None:
    # Of a window's two rows, the overhead's comes later and counts.
    whole = {row["kind"]: row for row in rows if row["part"] in (OVERHEAD, "total")}
    *ours, plain = whole.values()
    print(f"\nplain Optuna, a trial of 10 parameters: {plain['mean_ms']:.1f} ms ({plain['mean_cpu_ms']:.1f} CPU)")
    for row in ours:
        ratio = row["mean_ms"] / plain["mean_ms"]
        print(f"{row['kind']}: {row['mean_ms']:.1f} ms beside the probe, {ratio:.2f} times plain Optuna's")


def _windows(clock: Clock) -> list[dict[str, Any]]:
    """Milliseconds by window and part."""
    last = len(clock.trials)
    windows = {f"last 200 of {last:,}": slice(max(0, last - 200), last)}
    if last >= 1200:
        windows = {"around 1,000": slice(800, 1200), **windows}
    rows = []
    for window, trials in windows.items():
        for part in (*PARTS, "total", OVERHEAD):
            values, processor = 1000 * np.array([_part(trial, part) for trial in clock.trials[trials]]).T
            rows.append(_row(window, part, values, processor))
    return rows


def _part(trial: Times, part: str) -> np.ndarray:
    return trial["total"] - trial["probe"] if part == OVERHEAD else trial[part]


def _row(
    kind: str, part: str, values: np.ndarray, processor: np.ndarray, late: float = 0, late_processor: float = 0
) -> dict[str, Any]:
    return {
        "kind": kind,
        "count": len(values),
        "part": part,
        "mean_ms": float(values.mean()) + late,
        "median_ms": float(np.median(values)),
        "p95_ms": float(np.percentile(values, 95)),
        "mean_cpu_ms": float(processor.mean() + late_processor),
    }


def _statistics(clock: Clock) -> list[dict[str, Any]]:
    """Milliseconds by kind of trial and part. The mean over all trials includes what was written after the last one."""
    cold = np.array(clock.cold)
    rows = []
    for kind, chosen in (("all", np.ones_like(cold)), ("cold", cold), ("warm", ~cold)):
        for part in (*PARTS, "total") if chosen.any() else ():
            values, processor = 1000 * np.array([trial[part] for trial in clock.trials])[chosen].T
            late, late_processor = 1000 * clock.after[part] / len(values) if kind == "all" else (0.0, 0.0)
            rows.append(_row(kind, part, values, processor, late, late_processor))
    return rows


def _print(rows: Sequence[dict[str, Any]], clock: Clock, columns: dict[str, Any]) -> None:
    print(
        f"\n{columns['trials']} trials on {columns['cpus']} CPUs ({columns['cpu']}), {columns['threads']} torch threads"
        f" (the probe solves on one), niceness {os.nice(0)}, machine load {columns['load_before']} before and "
        f"{columns['load_after']} after; milliseconds per trial"
    )
    cells = [(f"{row['kind']} ({row['count']})", row["part"], *(f"{row[k]:.2f}" for k in _COLUMNS)) for row in rows]
    print_table(("trials", "part", "mean", "median", "p95", "mean CPU"), cells)
    after, before = clock.after["total"][0], sum(trial["total"][0] for trial in clock.trials)
    share = 100 * after / (after + before)
    print(f"the mean over all trials includes the last flush, {share:.1f} % of the time")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, help="reuse this folder's bank; the study is new; default: temporary")
    parser.add_argument("--planted", action="store_true", help="a synthetic probe and a long study")
    parser.add_argument(
        "--trials", type=int, default=TRIALS["segmentation"], help="distinct selections (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of scenes and search (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="default: trial_cost.csv or trial_cost_planted.csv in the results")
    parser.add_argument("--progress", action="store_true", help="show progress bars; they cost a little in each trial")
    options = parser.parse_args()
    options.out = options.out or RESULTS / ("trial_cost_planted.csv" if options.planted else "trial_cost.csv")
    return options


if __name__ == "__main__":
    main()
