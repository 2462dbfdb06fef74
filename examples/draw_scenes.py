"""Draw a contact sheet of rendered scenes: pictures, and the answers to each task.

python examples/draw_scenes.py --out docs/images/rendered_scenes.png
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb

from diffsift.datasets.rendered import CLASSES, Difficulty, Renderer, draw_scene
from diffsift.datasets.rendered.keypoints import Keypoints, draw_keypoints

ROWS = ("picture", "kind of solid", "depth", "normals", "second view, points of the first")
COLUMNS = 4  # of each difficulty
POINTS = 10
_FARTHEST = 12.0  # m, where the colours of depth end

KIND_COLOURS = ("#23272e", "#e4572e", "#4c9f50", "#3b7dd8", "#f2c14e", "#a45ad0", "#33b6c0", "#f08a3c")


def panels(difficulty: Difficulty, seed: int, size: int) -> tuple[list[np.ndarray], list[Keypoints | None]]:
    """One array (columns, size, size, 3) in [0, 1] for every row of `ROWS`."""
    renderer = Renderer([draw_scene("development", seed, index, difficulty) for index in range(COLUMNS)])
    first, second = renderer.render(size), renderer.render(size, view=1)
    kinds = np.array([to_rgb(colour) for colour in KIND_COLOURS[: len(CLASSES)]])
    depth = 1 - np.nan_to_num(first.depth.numpy() / _FARTHEST, nan=1.0).clip(0, 1)
    rng = np.random.default_rng(seed)
    points = [draw_keypoints(renderer, first, scene, POINTS, rng) for scene in range(COLUMNS)]
    rows = [
        first.image.numpy() / 255,
        kinds[first.label.numpy()],
        mpl.colormaps["magma"](depth)[..., :3],
        np.nan_to_num(first.normal.numpy() / 2 + 0.5, nan=0.5),
        second.image.numpy() / 255,
    ]
    return rows, points


def draw(path: Path, seed: int, size: int) -> None:
    from matplotlib import pyplot as plt

    levels = get_args(Difficulty)
    width = COLUMNS * len(levels)
    figure, axes = plt.subplots(
        len(ROWS),
        width,
        figsize=(width * 1.05 + 0.3, len(ROWS) * 1.05 + 0.4),
        gridspec_kw={"wspace": 0.04, "hspace": 0.04, "left": 0.03, "right": 0.995, "top": 0.94, "bottom": 0.005},
    )
    for block, level in enumerate(levels):
        rows, points = panels(level, seed, size)
        for row, pictures in enumerate(rows):
            for column, picture in enumerate(pictures):
                axis = axes[row, block * COLUMNS + column]
                axis.imshow(picture, interpolation="nearest", extent=(0, size, size, 0))
                axis.set(xticks=[], yticks=[], xlim=(0, size), ylim=(size, 0))
                axis.spines[:].set_visible(False)
                if row in (0, len(ROWS) - 1) and (keypoints := points[column]) is not None:
                    _mark(axis, keypoints, second=row > 0)
        axes[0, block * COLUMNS].set_title(level, loc="left", fontsize=9)
    for row, name in enumerate(ROWS):
        axes[row, 0].set_ylabel(name.replace(", ", ",\n"), fontsize=7)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _mark(axis: Axes, points: Keypoints, second: bool) -> None:
    shown = points.target[points.visible] if second else points.source
    hues = np.linspace(0, 1, POINTS, endpoint=False)
    hues = hues[points.visible] if second else hues
    axis.scatter(*shown.T, s=7, c=mpl.colormaps["hsv"](hues), edgecolors="white", linewidths=0.5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--size", type=int, default=128, help="edge of a picture in pixels (default: %(default)s)")
    arguments = parser.parse_args()
    mpl.use("agg")
    draw(arguments.out, arguments.seed, arguments.size)


if __name__ == "__main__":
    main()
