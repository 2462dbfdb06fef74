"""How many trials a second several workers finish on one study.

The demo's segmentation study is prepared for each run (the bank is shared); then n processes join it as ``diffsift
worker`` does, wait for one another, and evaluate selections until the asked number is finished. A run's time is from
the first start to the last end of the search itself: preparing and the test split are left out, caches that are cold at
the start are not (each process computes its own moments). Runs with different numbers of workers alternate, and each is
a study of its own, with the same seeds for each number.

Processes are forked from this one. Set OMP_NUM_THREADS=1, so that each computes on one thread from its start.

Noise that is left: the machine's other load, which is printed and written before and after each run. Two workers cannot
gain anything where less than two CPUs are free.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, environment, load, print_table, write_csv

import diffsift
from diffsift.common.workspace import Workspace
from diffsift.demo import demo_specification
from diffsift.runs.workers import join
from diffsift.search import SearchLoop
from diffsift.specification import Specification
from diffsift.tracking import Ledger, open_database

FORKS = multiprocessing.get_context("fork")


class _PreparedError(Exception):
    """Ends `diffsift.select` when the study is prepared."""


def main() -> None:
    options = _options()
    rows: list[dict[str, Any]] = []
    columns = environment() | {"threads": 1}
    with tempfile.TemporaryDirectory(prefix="diffsift-workers-") as temporary:
        place = Workspace.at(temporary)
        for repeat in range(options.repeats):
            for workers in options.workers:
                rows.append({**_measure(place, repeat, workers, options.trials), **columns})
                row = rows[-1]
                print(
                    f"{workers} workers: {row['trials_per_second']:.1f} trials a second, shares {row['shares']}, load "
                    f"{row['load_before']} before and {row['load_after']} after",
                    flush=True,
                )
    _print(rows, options.workers)
    write_csv(options.out, rows)


def _measure(place: Workspace, repeat: int, workers: int, trials: int) -> dict[str, Any]:
    specification = _prepared(place, repeat, workers, trials)
    name = specification.study.name
    load_before = load()
    barrier, times = FORKS.Barrier(workers), FORKS.SimpleQueue()
    processes = [FORKS.Process(target=_work, args=(name, place.folder, barrier, times)) for _ in range(workers)]
    for process in processes:
        process.start()
    spans = [times.get() for _ in processes]
    for process in processes:
        process.join()
    with Ledger(open_database(place.study_url)) as ledger:
        evaluations = ledger.evaluated(name)
    if evaluations != trials:
        raise SystemExit(f"the study must hold {trials} evaluations, but holds {evaluations}")
    seconds = max(end for _, end, _ in spans) - min(start for start, _, _ in spans)
    return {
        "workers": workers,
        "repeat": repeat,
        "trials": trials,
        "seconds": seconds,
        "trials_per_second": trials / seconds,
        "shares": "+".join(str(scored) for _, _, scored in sorted(spans)),
        "load_before": load_before,
        "load_after": load(),
    }


def _prepared(place: Workspace, repeat: int, workers: int, trials: int) -> Specification:
    """A study with its bank, before its first trial."""
    specification = demo_specification(trials=trials)
    study = {"name": f"workers-{workers}-{repeat}", "seed": repeat}
    specification = specification.model_copy(
        update={
            "study": specification.study.model_copy(update=study),
            "tracking": specification.tracking.model_copy(update={"mlflow": False}),
        }
    )
    run = SearchLoop.run

    def stop(*arguments: Any, **keywords: Any) -> None:
        raise _PreparedError

    SearchLoop.run = stop  # type: ignore[method-assign]
    try:
        diffsift.select(specification, workspace=place.folder)
    except _PreparedError:
        return specification
    finally:
        SearchLoop.run = run  # type: ignore[method-assign]
    raise SystemExit("the study must be prepared and no further")


def _work(study: str, folder: Path, barrier: Barrier, times: Any) -> None:
    """Join the study as a worker does; the search begins when all have come so far."""
    run, scored = SearchLoop.run, Counter[str]()

    def timed(loop: SearchLoop, *arguments: Any, **keywords: Any) -> None:
        barrier.wait()
        started = time.time()
        run(loop, *arguments, **keywords)
        times.put((started, time.time(), scored["scored"]))

    SearchLoop.run = timed  # type: ignore[method-assign,assignment]
    SearchLoop.after_step = lambda loop, step: scored.update([step])  # type: ignore[method-assign,assignment]
    join(study, workspace=folder)


def _print(rows: Sequence[dict[str, Any]], workers: Sequence[int]) -> None:
    def speeds(count: int) -> np.ndarray:
        return np.array([row["trials_per_second"] for row in rows if row["workers"] == count])

    first = np.median(speeds(workers[0]))
    cells = []
    for count in workers:
        found = speeds(count)
        numbers = (np.median(found), found.min(), found.max(), np.median(found) / first)
        cells.append((str(count), *(f"{number:.2f}" for number in numbers)))
    print_table(("workers", "trials/s, median", "least", "most", f"times {workers[0]} worker's"), cells)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="numbers to try (default: 1 2)")
    parser.add_argument("--trials", type=int, default=200, help="distinct selections a run (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of each number (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "workers.csv", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
