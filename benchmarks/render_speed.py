"""How fast rendered scenes are drawn, and what is in them.

For every difficulty and size, scenes of the development part are drawn with both their answers and antialiasing, in
batches of 16, on one thread; what counts is processor time, so that other work on the machine hardly matters. Rounds
take the cells in turn, and each row is the median of its rounds. Beside the speed stands what the scenes hold: how
much of a picture is background, how many solids are seen, how many of the points that one camera sees the other does.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, get_args

import numpy as np
import torch
from _common import RESULTS, environment, load, print_table, write_csv

from diffsift.datasets.rendered import Difficulty, Renderer, draw_scene
from diffsift.datasets.rendered.keypoints import draw_keypoints

SIZES = (32, 64, 128, 256)
BATCH = 16
_POINTS = 50


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    cells = [(difficulty, size) for difficulty in get_args(Difficulty) for size in SIZES]
    load_before = load()
    speeds: dict[tuple[Difficulty, int], list[float]] = {cell: [] for cell in cells}
    for number in range(options.rounds + 1):  # the first round warms up
        for difficulty, size in cells:
            speed = measure(difficulty, size, first=number * BATCH)
            if number:
                speeds[difficulty, size].append(speed)
    contents = {difficulty: statistics(difficulty, options.scenes) for difficulty in get_args(Difficulty)}
    columns = {**environment(), "load_before": load_before, "load_after": load()}
    rows = [
        {
            "difficulty": difficulty,
            "size": size,
            "rounds": options.rounds,
            "scenes_per_cpu_s": median(speeds[difficulty, size]),
            "slowest": min(speeds[difficulty, size]),
            "fastest": max(speeds[difficulty, size]),
            "scenes": options.scenes,
            **contents[difficulty],
            **columns,
        }
        for difficulty, size in cells
    ]
    _print(rows)
    write_csv(options.out, rows)


def measure(difficulty: Difficulty, size: int, first: int) -> float:
    """Scenes in a second of processor time."""
    started = time.process_time()
    Renderer([draw_scene("development", 0, first + number, difficulty) for number in range(BATCH)]).render(size)
    return BATCH / (time.process_time() - started)


def statistics(difficulty: Difficulty, count: int) -> dict[str, float]:
    """What scenes hold, at 64 px: means over scenes."""
    rng = np.random.default_rng(0)
    background, seen, shared = [], [], []
    for first in range(0, count, BATCH):
        numbers = range(first, min(first + BATCH, count))
        renderer = Renderer([draw_scene("development", 0, number, difficulty) for number in numbers])
        drawn = renderer.render(64)
        background.append((drawn.label == 0).float().mean((1, 2)))
        for scene in range(len(numbers)):
            seen.append(len(drawn.visible_solids(scene)))
            points = draw_keypoints(renderer, drawn, scene, _POINTS, rng)
            if points is not None:
                shared.append(points.visible.mean())
    return {
        "background": torch.cat(background).mean().item(),
        "solids_seen": float(np.mean(seen)),
        "seen_by_both": float(np.mean(shared)),
    }


def _print(rows: Sequence[dict[str, Any]]) -> None:
    header = ("scenes", "size", "per CPU second", "range", "background", "solids seen", "points seen by both")
    print_table(
        header,
        [
            (
                row["difficulty"],
                str(row["size"]),
                f"{row['scenes_per_cpu_s']:.0f}",
                f"{row['slowest']:.0f}-{row['fastest']:.0f}",
                f"{row['background']:.3f}",
                f"{row['solids_seen']:.2f}",
                f"{row['seen_by_both']:.3f}",
            )
            for row in rows
        ],
    )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7, help="default: %(default)s")
    parser.add_argument("--scenes", type=int, default=320, help="for what they hold (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "render_speed.csv")
    return parser.parse_args()


if __name__ == "__main__":
    main()
