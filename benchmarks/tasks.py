"""Depth, classification and correspondence on the built-in scenes: what a search finds, beside the simpler choices.

For each task the final table of a search of 80 trials on the demo's pipeline and scenes (300 training, 300 validation
and 400 test scenes of one seed; timesteps 50 and 200, four activations at most, no rules): the score on the sealed test
split of every row, and the gain of the selection found over it with its paired 95 % bootstrap interval.

Noise that is left: one seed of scenes and search, one pipeline; the intervals cover the test scenes alone.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Any

from _common import RESULTS, environment, print_table, write_csv

import diffsift
from diffsift.demo import demo_specification

TASKS = ("depth", "classification", "correspondence")


def main() -> None:
    options = _options()
    rows: list[dict[str, Any]] = []
    for task in options.tasks:
        with tempfile.TemporaryDirectory(prefix="diffsift-tasks-") as temporary:
            result = diffsift.select(
                demo_specification(task=task, trials=options.trials),
                workspace=temporary,
                out=Path(temporary) / "selection.json",
            )
        outcome = result.outcome
        print(f"\n{task}: {outcome.metric}\n{outcome.verdict}\n")
        cells = []
        for row in outcome.table:
            gain = "" if row.gain is None else f"{row.gain:+.3f} [{row.gain_low:+.3f}, {row.gain_high:+.3f}]"
            cells.append((row.name, f"{row.score:.3f}", gain, str(row.channels)))
            rows.append(
                {
                    "task": task,
                    "metric": outcome.metric,
                    "trials": options.trials,
                    "row": row.name,
                    "score": row.score,
                    "low": row.low,
                    "high": row.high,
                    "gain": row.gain,
                    "gain_low": row.gain_low,
                    "gain_high": row.gain_high,
                    "channels": row.channels,
                    **environment(),
                }
            )
        print_table(("features", "score", "gain of the selection found", "channels"), cells)
    write_csv(options.out, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="default: all")
    parser.add_argument("--trials", type=int, default=80, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "tasks.csv", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
