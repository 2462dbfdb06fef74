"""How should the attention maps of an image become one feature for classification?

On the demo's pipeline and scenes (the kind of the nearest solid) at timestep 50: every attention map alone, sampled on
a grid of 8 x 8 places and standardised with the statistics of 64 training scenes, is pooled over places by its mean,
its largest value or its standard deviation. Ridge regression on one-hot classes, fit on the training scenes, gives the
accuracy on as many other scenes. Printed per kind of map: the mean over its maps, and by how much each way is better
than the mean over places, with a paired 95 % bootstrap interval over scenes.

Noise that is left: one pipeline, one set of scenes; the accuracies are close to that of the most frequent class.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from _common import RESULTS, environment, print_table, write_csv
from sklearn.linear_model import Ridge
from torch import Tensor
from tqdm import tqdm

from diffsift.backbones import ModelSpecification, load
from diffsift.bank.locations import grid_points
from diffsift.datasets import RenderedScenes, image_tensors
from diffsift.demo import PIPELINE
from diffsift.extraction import Standardiser, sample_map
from diffsift.objectives.metrics import RatioMetric

SEED = 73
"""Of the scenes; used nowhere else."""
FIT = 64
PENALTIES = (1e-4, 1e-3, 1e-2)
WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda features: features.mean(1),
    "largest": lambda features: features.amax(1),
    "spread": lambda features: features.std(1, correction=0),
}


def main() -> None:
    options = _options()
    pooled, classes, kinds = _pooled(options.scenes)
    hits: dict[tuple[str, str, float], list[np.ndarray]] = {}
    for (name, way), features in pooled.items():
        for penalty in PENALTIES:
            found = _hits(torch.cat(features).numpy(), classes, penalty)
            hits.setdefault((kinds[name], way, penalty), []).append(found)
    rows, cells = [], []
    for (kind, way, penalty), found in hits.items():
        shares = np.stack([np.mean(found, axis=0), np.ones(options.scenes)], axis=1)
        baseline = np.stack([np.mean(hits[kind, "mean", penalty], axis=0), np.ones(options.scenes)], axis=1)
        gain = RatioMetric("accuracy").gain(shares, baseline)
        rows.append(
            {
                "kind": kind,
                "maps": len(found),
                "way": way,
                "penalty": penalty,
                "scenes": options.scenes,
                "accuracy": float(shares[:, 0].mean()),
                "gain": gain.difference,
                "gain_low": gain.low,
                "gain_high": gain.high,
                **environment(),
            }
        )
        interval = f"{gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
        cells.append((f"{len(found)} x {kind}, {way}", f"{penalty:g}", f"{shares[:, 0].mean():.4f}", interval))
    print(f"most frequent class: {np.bincount(classes[options.scenes :]).max() / options.scenes:.4f}")
    print_table(("maps, pooled by", "penalty", "accuracy", "gain over the mean"), cells)
    write_csv(options.out, rows)


def _pooled(scenes: int) -> tuple[dict[tuple[str, str], list[Tensor]], np.ndarray, dict[str, str]]:
    """Features (scenes, channels) in parts, by map and way; the classes; the kind of each map."""
    backbone = load(ModelSpecification(id=str(PIPELINE), device="cpu"))
    backbone.place_attention_maps()
    maps = [
        entry for entry in backbone.activations() if entry.kind in ("self-map", "cross-map") and not entry.unreadable
    ]
    data = RenderedScenes(train=scenes, validation=scenes, test=1, task="classification", seed=SEED)
    samples = [*data.split("train"), *data.split("validation")]
    grid = torch.from_numpy(grid_points(8))
    standardisers: dict[str, Standardiser] = {}
    pooled: dict[tuple[str, str], list[Tensor]] = {}
    for start in tqdm(range(0, len(samples), FIT), desc="scenes", unit="batch"):
        batch = image_tensors([sample.image for sample in samples[start : start + FIT]])
        for _, found in backbone.capture(batch, {50: maps}, seed=0):
            for name, feature_map in found.items():
                features = sample_map(feature_map, grid.expand(len(batch), -1, -1))
                if name not in standardisers:
                    standardisers[name] = Standardiser.fit(features.flatten(0, 1), max_channels=256)
                standardised = standardisers[name].apply(features)
                for way, pool in WAYS.items():
                    pooled.setdefault((name, way), []).append(pool(standardised))
    classes = np.array([int(sample.label) for sample in samples])
    return pooled, classes, {entry.name: entry.kind for entry in maps}


def _hits(features: np.ndarray, classes: np.ndarray, penalty: float) -> np.ndarray:
    """Per held-out scene (the second half), 1 where its class is predicted."""
    half = len(classes) // 2
    scaled = features.astype(np.float64) / features.shape[1] ** 0.5
    model = Ridge(alpha=penalty * half).fit(scaled[:half], np.eye(10)[classes[:half]])
    found: np.ndarray = (model.predict(scaled[half:]).argmax(1) == classes[half:]).astype(float)
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenes", type=int, default=1500, help="to fit on, and as many held out (%(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "map_pooling.csv", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
