"""Measure a model's activations on a folder of images without labels, and draw them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor

from diffsift.backbones import Backbone, BackboneName, ModelSpecification, load
from diffsift.common.reporting import Reporter
from diffsift.datasets import image_tensors, read_image
from diffsift.errors import DataError
from diffsift.spaces import (
    Candidate,
    Decision,
    FilterSpecification,
    MeasuredFilter,
    Properties,
    apply_filters,
    measure_properties,
)

from .measure import MEASURED_IMAGES, SEEDS, measurable
from .pictures import principal_colors

_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclass(frozen=True)
class MeasuredModel:
    """The measurements of a model.

    Attributes:
        decisions: what the measured filter decides, one per activation.
        properties: measured properties by activation and timestep.
        timesteps: the timesteps that were measured at.
    """

    decisions: tuple[Decision, ...]
    properties: Mapping[Candidate, Properties]
    timesteps: tuple[int, ...]

    def of(self, activation: str, timestep: int) -> Properties:
        """The properties of an activation at a timestep.

        Args:
            activation: its name.
            timestep: one of `timesteps`.

        Returns:
            The properties, measured over all images.
        """
        return self.properties[Candidate(BackboneName.MAIN, activation, timestep)]


def measure_model(
    model: str, images: Path, timesteps: Sequence[int], *, device: str, out: Path | None, reporter: Reporter
) -> MeasuredModel:
    """Measure a model on the images of a folder, and write pictures where `out` names a folder.

    Args:
        model: hub id or folder of a pipeline.
        images: folder of PNG or JPEG images; the first 24 are used.
        timesteps: timesteps to measure at.
        device: device to run on: ``auto``, ``cpu``, ``cuda``, ...
        out: folder for ``properties.png`` and a picture of every activation; None: no pictures.
        reporter: receives the progress.

    Returns:
        Properties of every activation but attention maps, with the decisions of the measured filter.

    Raises:
        DataError: the folder holds fewer than two images.
        ModelError: the model cannot be used.
    """
    files = sorted(file for file in images.glob("*") if file.suffix.lower() in _SUFFIXES) if images.is_dir() else []
    if len(files) < 2:
        raise DataError(
            f"--images must be a folder with at least two PNG or JPEG images, but {images} has {len(files)}."
        )
    specification = ModelSpecification(id=model, device=device)
    backbone = load(specification)
    backbone.check_timesteps(timesteps)
    batch = image_tensors([read_image(file) for file in files[:MEASURED_IMAGES]])
    known = measurable(backbone.activations())
    wanted = dict.fromkeys(timesteps, known)
    size = specification.batch_size
    found = measure_properties(backbone, batch, wanted, seeds=SEEDS, batch_size=size, reporter=reporter)
    decisions = apply_filters(known, FilterSpecification(rules="measured"), MeasuredFilter(found))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        network_map(decisions, found, out / "properties.png")
        activation_pictures(backbone, decisions, timesteps[0], batch[:1], out)
    return MeasuredModel(tuple(decisions), found, tuple(timesteps))


def network_map(decisions: Sequence[Decision], found: Mapping[Candidate, Properties], file: Path) -> None:
    """A picture of the network for each property: depth from left to right, kinds as rows, kept ones with a ring.

    Args:
        decisions: one for each activation.
        found: properties by candidate; the mean over timesteps is drawn.
        file: path of the PNG.
    """
    kinds = list(dict.fromkeys(decision.activation.kind for decision in decisions))
    names = [field.name for field in fields(Properties)]
    figure = Figure(figsize=(11, 0.26 * (len(kinds) + 4) * len(names)), layout="constrained")
    plots = figure.subplots(len(names), 1)
    for axes, name in zip(plots, names, strict=True):
        values = [
            float(np.mean([getattr(p, name) for c, p in found.items() if c.activation == d.activation.name]))
            for d in decisions
        ]
        depth = [decision.activation.depth for decision in decisions]
        rows = [kinds.index(decision.activation.kind) for decision in decisions]
        edges = ["black" if decision.kept else "none" for decision in decisions]
        points = axes.scatter(depth, rows, c=values, edgecolors=edges, marker="s", s=36, cmap="viridis")
        axes.set_yticks(range(len(kinds)), kinds, fontsize=7)
        axes.invert_yaxis()
        axes.set_title(name.replace("_", " "), fontsize=9, loc="left")
        figure.colorbar(points, ax=axes, pad=0.01)
    plots[-1].set_xlabel("depth, in the order of a forward pass; kept activations have a black edge")
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png")


def activation_pictures(
    backbone: Backbone, decisions: Sequence[Decision], timestep: int, image: Sequence[Tensor], out: Path
) -> None:
    """Every activation of one image, its three leading principal components as colours, in a file each.

    Args:
        backbone: the network to run.
        decisions: the filters' decision on each activation, which also says into which folder its picture goes.
        timestep: the noise level, as a timestep of the backbone.
        image: one image, RGB in [0, 1].
        out: an existing folder; ``kept`` and ``dropped`` are made in it.
    """
    for folder in ("kept", "dropped"):
        (out / folder).mkdir(exist_ok=True)
    wanted = [decision.activation for decision in decisions]
    for _, maps in backbone.capture(image, {timestep: wanted}, seed=0):
        for decision in decisions:
            name = decision.activation.name
            picture = Image.fromarray(principal_colors(maps[name][0]))
            edge = max(1, 256 // max(picture.size))
            larger = picture.resize((picture.width * edge, picture.height * edge), Image.Resampling.NEAREST)
            larger.save(out / ("kept" if decision.kept else "dropped") / f"{name}.png")
