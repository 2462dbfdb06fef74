"""Draw the loss curves of the two built-in denoisers, from the CSV files that training writes.

python examples/draw_losses.py --losses examples/losses --out docs/images/training_losses.png
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import matplotlib as mpl

NETWORKS = {"unet": "U-Net, v-prediction", "transformer": "transformer, flow matching"}


def draw(losses: Path, path: Path) -> None:
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(NETWORKS), figsize=(8, 2.6), layout="constrained")
    for axis, (name, title) in zip(axes, NETWORKS.items(), strict=True):
        with (losses / f"{name}-loss.csv").open(encoding="utf-8", newline="") as lines:
            rows = list(csv.DictReader(lines))
        validated = [row for row in rows if row["validation_loss"]]
        for chosen, column, style in ((rows, "loss", {"alpha": 0.5}), (validated, "validation_loss", {"marker": "."})):
            images = [int(row["images"]) / 1000 for row in chosen]
            axis.plot(images, [float(row[column]) for row in chosen], label=column.replace("_", " "), **style)
        low = min(float(row["loss"]) for row in rows)
        axis.set(title=title, xlabel="thousand images seen", ylabel="mean squared error", ylim=(0.9 * low, 2 * low))
        axis.legend(frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--losses", type=Path, required=True, help="folder of the CSV files: --work of the training")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    mpl.use("agg")
    draw(arguments.losses, arguments.out)


if __name__ == "__main__":
    main()
