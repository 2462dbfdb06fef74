"""Draw what the demo found: test scenes, the selected activations, the labels, and what the features predict.

    diffsift demo --out selection-demo-0.json
    python examples/draw_demo.py selection-demo-0.json --out docs/images/demo.png

Predictions are those of scikit-learn's ridge classifier at every pixel, trained on the demo's training scenes: once on
the selected features, once on 5 x 5 pixels. Each activation is shown at the timestep at which it was selected, in the
colours of its three leading principal components over all scenes that are shown.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from draw_scenes import KIND_COLOURS
from matplotlib.colors import to_rgb
from sklearn.linear_model import RidgeClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.nn import functional

import diffsift
from diffsift.backbones import activation_named, load
from diffsift.datasets import RenderedScenes, image_tensors
from diffsift.datasets.rendered import CLASSES
from diffsift.extraction import read_selection
from diffsift.runs.pictures import principal_colors

SCENES = (3, 8, 14)
PIXELS = 60  # of each training scene


def features_of(extractor: diffsift.FeatureExtractor, images: torch.Tensor) -> torch.Tensor:
    """(batch, 3, height, width) to features at every pixel, (batch, channels, height, width)."""
    maps = torch.cat([extractor(part) for part in images.split(32)])
    return functional.interpolate(maps, images.shape[-2:], mode="bilinear")


def pixels_of(images: torch.Tensor) -> torch.Tensor:
    """(batch, 3, height, width) to the 5 x 5 pixels around each, (batch, 75, height, width)."""
    padded = functional.pad(images, (2, 2, 2, 2), mode="replicate")
    return functional.unfold(padded, 5).reshape(len(images), 75, *images.shape[-2:])


def predicted(train: torch.Tensor, labels: np.ndarray, test: torch.Tensor) -> np.ndarray:
    """Classes at every pixel of the test maps, by ridge regression on random pixels of the training maps."""
    rng = np.random.default_rng(0)
    chosen = np.stack([rng.choice(labels[0].size, PIXELS, replace=False) for _ in labels])
    columns = train.flatten(2).numpy()
    seen = np.concatenate([columns[image][:, pixels].T for image, pixels in enumerate(chosen)])
    classifier = make_pipeline(StandardScaler(), RidgeClassifier(alpha=10.0))
    classifier.fit(seen, np.take_along_axis(labels.reshape(len(labels), -1), chosen, axis=1).ravel())
    flat = test.permute(0, 2, 3, 1).flatten(0, 2).numpy()
    return np.asarray(classifier.predict(flat)).reshape(len(test), *test.shape[-2:])


def activation_pictures(file: Path, images: torch.Tensor) -> dict[str, list]:
    """Colours of every selected activation for each image."""
    selected = read_selection(file, device="cpu")
    backbones = {name: load(model, name=name) for name, model in selected.models.items()}
    shown = {}
    for candidate in selected.selection.candidates:
        backbone = backbones[candidate.backbone]
        known = backbone.activations()
        wanted = {candidate.timestep: [activation_named(candidate.activation, known)]}
        for _, maps in backbone.capture(images, wanted, seed=selected.noise_seed):
            side_by_side = torch.cat(list(maps[candidate.activation]), dim=-1)
            colours = principal_colors(side_by_side)
            shown[f"{candidate.activation}\nt = {candidate.timestep}"] = np.split(colours, len(images), axis=1)
    return shown


def draw(selection: Path, path: Path) -> None:
    from matplotlib import pyplot as plt

    data = RenderedScenes(train=300, validation=0, test=max(SCENES) + 1)
    train, tests = list(data.split("train")), [data.split("test")[number] for number in SCENES]
    seen, images = (torch.stack(image_tensors([sample.image for sample in samples])) for samples in (train, tests))
    labels = np.stack([sample.label for sample in train])
    extractor = diffsift.FeatureExtractor.from_selection(selection, device="cpu")
    kinds = np.array([to_rgb(colour) for colour in KIND_COLOURS[: len(CLASSES)]])
    columns: dict[str, list] = {"test scene": [sample.image for sample in tests]}
    columns |= activation_pictures(selection, images)
    features = features_of(extractor, seen), features_of(extractor, images)
    columns["kind, from pixels"] = list(kinds[predicted(pixels_of(seen), labels, pixels_of(images))])
    columns["kind, from\nselected features"] = list(kinds[predicted(features[0], labels, features[1])])
    columns["label"] = [kinds[sample.label] for sample in tests]
    figure, axes = plt.subplots(
        len(tests), len(columns), figsize=(len(columns) * 1.35, len(tests) * 1.3 + 0.5), layout="constrained"
    )
    for column, (title, pictures) in enumerate(columns.items()):
        axes[0, column].set_title(title.replace("-vit-", "-\nvit-").replace("-res-", "-\nres-"), fontsize=6.5)
        for row, picture in enumerate(pictures):
            axes[row, column].imshow(picture, interpolation="nearest")
            axes[row, column].set_axis_off()
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("selection", type=Path, help="as `diffsift demo` wrote it")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    mpl.use("agg")
    draw(arguments.selection, arguments.out)


if __name__ == "__main__":
    main()
