"""How good the demo's selections are: found minus every other row of the final table, over tasks, networks and seeds.

Measures, for each task, network and seed, the final table of ``diffsift demo --task TASK --model MODEL --seed SEED``:
the score of every row on the sealed test split (400 scenes, all pixels), and found minus that row with its paired 95 %
bootstrap interval over test images. Then, per row, the mean of found minus row over the seeds with a paired 95 % t
interval, and in how many seeds the seed's own interval lies above or below zero. Gains are positive where the selection
found is better, also for errors, where smaller is better.

Conditions: a seed draws the scenes (training, validation, test) and seeds the search; pipelines, limits and trials are
the demo's. The seeds were fixed in the first commit of this file. Every seed is printed and written.

Noise that is left: all seeds share one pair of pipelines, so the t interval covers other scenes and other searches, not
other trainings of the networks; with five seeds it has four degrees of freedom. The bootstrap over images does not
cover the choice of scenes to train the probe on.

Resumable: what --out holds of these pipelines already is not run again; it is written anew after each study. --share
1/2 and 2/2 divide the studies among two processes with an --out each; --join puts their files together.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from itertools import product
from pathlib import Path

from _common import RESULTS, pipeline_digest, write_csv
from _outcomes import Row, print_study, print_summary, rows_of

import diffsift
from diffsift.common.reporting import ConsoleReporter, NullReporter
from diffsift.demo import PIPELINES, TRIALS, demo_specification
from diffsift.tracking import Outcome

SEEDS = (11, 12, 13, 14, 15)
MODELS = (*PIPELINES, "both")


def main() -> None:
    options = _options()
    rows = [row for file in (options.out, *options.join) for row in _done(file)]
    studies = [(seed, model, task) for seed, model, task in product(options.seeds, options.models, options.tasks)]
    for seed, model, task in [] if options.join else studies[options.share[0] - 1 :: options.share[1]]:
        if any((int(row["seed"]), row["model"], row["task"]) == (seed, model, task) for row in rows):
            continue
        outcome, seconds = _search(seed, model, task, options)
        print_study(f"{task}, {model}, seed {seed}", outcome, seconds)
        rows += rows_of(outcome, seconds, task=task, model=model, seed=seed)
        write_csv(options.out, rows)
    if options.join:
        write_csv(options.out, sorted(rows, key=lambda row: studies.index(_key(row))))
    for model, task in product(options.models, options.tasks):
        print_summary(f"{task}, {model}", [row for row in rows if (row["model"], row["task"]) == (model, task)])


def _key(row: Row) -> tuple[int, str, str]:
    return int(row["seed"]), row["model"], row["task"]


def _done(file: Path) -> list[Row]:
    """Rows that a file holds of the present pipelines."""
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines) if row["pipeline"] == pipeline_digest()]


def _search(seed: int, model: str, task: str, options: argparse.Namespace) -> tuple[Outcome, float]:
    started = time.process_time()
    with tempfile.TemporaryDirectory(prefix="diffsift-quality-") as folder:
        result = diffsift.select(
            demo_specification(task=task, model=model, seed=seed, trials=options.trials),
            workspace=folder,
            out=Path(folder) / "selection.json",
            reporter=ConsoleReporter() if options.progress else NullReporter(),
        )
    return result.outcome, time.process_time() - started


def _share(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    return int(part), int(parts)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=tuple(TRIALS), default=tuple(TRIALS), help="default: all")
    parser.add_argument("--models", nargs="+", choices=MODELS, default=tuple(PIPELINES), help="default: %(default)s")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(SEEDS), help="default: the five fixed ones")
    parser.add_argument("--trials", type=int, help="distinct selections per study (default: the demo's)")
    parser.add_argument("--share", type=_share, default=(1, 1), metavar="PART/PARTS", help="of the studies")
    parser.add_argument("--join", type=Path, nargs="+", default=[], help="run nothing: add these files to --out")
    parser.add_argument("--out", type=Path, default=RESULTS / "demo_quality.csv", help="default: %(default)s")
    parser.add_argument("--progress", action="store_true", help="show what each search does")
    return parser.parse_args()


if __name__ == "__main__":
    main()
