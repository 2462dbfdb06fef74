"""Properties of a model's activations: measured once per model and images, shown as a table and pictures."""

from __future__ import annotations

import csv as csv_module
import hashlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from diffsift import __version__
from diffsift.backbones import Activation, ModelSpecification, PipelineBackbone, catalogue, load
from diffsift.datasets import image_tensors, read_image
from diffsift.errors import DataError
from diffsift.spaces import (
    Candidate,
    Decision,
    FilterSpecification,
    MeasuredFilter,
    Properties,
    apply_filters,
    capacity,
    measure_properties,
)

from .pictures import principal_colors

Say = Callable[[str], None]

MEASURED_IMAGES = 24
SEEDS = (0, 1, 2, 3)
_SUFFIXES = (".png", ".jpg", ".jpeg")
_COLUMNS = ("name", "timestep", *(field.name for field in fields(Properties)), "capacity", "kept", "reason")
_SHORT = ("name", "t", "noise", "gran", "over", "local", "pos", "incr", "outl", "cap", "kept")
"""Headings of the printed table: timestep, the properties in their order, capacity."""


def measured_once(
    folder: Path,
    backbone: PipelineBackbone,
    activations: Sequence[Activation],
    timesteps: Sequence[int],
    images: Sequence[Tensor],
    progress: bool,
) -> dict[Candidate, Properties]:
    """The properties of all activations but attention maps; what was measured before is read from `folder`."""
    wanted = [entry for entry in activations if entry.port != "attention" and not entry.unreadable]
    pixels = b"".join((image * 255).round().to("cpu", torch.uint8).numpy().tobytes() for image in images)
    key = {
        "diffsift": __version__,
        "backbone": backbone.identity(),
        "activations": [entry.name for entry in wanted],
        "timesteps": list(timesteps),
        "seeds": list(SEEDS),
        "images": hashlib.sha256(pixels).hexdigest(),
    }
    file = folder / f"{hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]}.json"
    if file.is_file():
        stored = json.loads(file.read_text(encoding="utf-8"))
        return {
            Candidate(backbone.name, row.pop("activation"), row.pop("timestep")): Properties(**row) for row in stored
        }
    found = measure_properties(backbone, wanted, timesteps, images, seeds=SEEDS, progress=progress)
    rows = [{"activation": c.activation, "timestep": c.timestep, **asdict(p)} for c, p in found.items()]
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(rows), encoding="utf-8")
    partial.replace(file)
    return found


def show_properties(
    model: str, images: Path, timesteps: Sequence[int], *, device: str, csv: bool, out: Path | None, say: Say
) -> None:
    """Measure a model on the images of a folder; print the table, and write pictures where `out` names a folder.

    Raises:
        DataError: the folder holds fewer than two images.
        ModelError: the model cannot be used.
    """
    files = sorted(file for file in images.glob("*") if file.suffix.lower() in _SUFFIXES) if images.is_dir() else []
    if len(files) < 2:
        raise DataError(
            f"--images must be a folder with at least two PNG or JPEG images, but {images} has {len(files)}."
        )
    backbone = load(ModelSpecification(id=model, device=device))
    backbone.check_timesteps(timesteps)
    batch = image_tensors([read_image(file) for file in files[:MEASURED_IMAGES]])
    known = [entry for entry in catalogue(backbone) if entry.port != "attention" and not entry.unreadable]
    found = measure_properties(backbone, known, timesteps, batch, seeds=SEEDS)
    decisions = apply_filters(known, FilterSpecification(rules="measured"), MeasuredFilter(found))
    rows = list(_rows(decisions, found, timesteps))
    if csv:
        writer = csv_module.writer(sys.stdout, lineterminator="\n")
        writer.writerow(_COLUMNS)
        writer.writerows(rows)
    else:
        # One line per candidate, also in 80 columns: reasons are in the CSV and, counted, below.
        title = f"{model}: {len(known)} activations, {sum(d.kept for d in decisions)} kept"
        table = Table(*_SHORT, title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
        for name, timestep, *numbers, kept, _ in rows:
            short = [f"{float(number):.2f}" for number in numbers[:-1]]
            cells = (name, timestep, *short, f"{float(numbers[-1]):.0f}", kept)
            table.add_row(*cells, style=None if kept == "yes" else "dim")
        Console().print(table)
        for reason, count in Counter(d.reason for d in decisions if not d.kept).most_common():
            say(f"{count:4d} dropped: {reason}")
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        network_map(decisions, found, out / "properties.png")
        colours(backbone, decisions, timesteps[0], batch[:1], out)
        say(f"pictures    {out}")


def _rows(
    decisions: Sequence[Decision], found: Mapping[Candidate, Properties], timesteps: Sequence[int]
) -> Iterator[tuple[str, ...]]:
    for decision in decisions:
        entry = decision.activation
        for timestep in timesteps:
            measured = found[Candidate("main", entry.name, timestep)]
            numbers = [*asdict(measured).values(), capacity(entry, measured)]
            kept = "yes" if decision.kept else "no"
            yield (entry.name, str(timestep), *(f"{number:.3f}" for number in numbers), kept, decision.reason)


def network_map(decisions: Sequence[Decision], found: Mapping[Candidate, Properties], file: Path) -> None:
    """A picture of the network for each property: depth from left to right, kinds as rows, kept ones with a ring."""
    kinds = list(dict.fromkeys(decision.activation.kind for decision in decisions))
    names = [field.name for field in fields(Properties)]
    figure = Figure(figsize=(11, 0.26 * (len(kinds) + 4) * len(names)), layout="constrained")
    rows_of_axes = figure.subplots(len(names), 1)
    for axes, name in zip(rows_of_axes, names, strict=True):
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
    rows_of_axes[-1].set_xlabel("depth, in the order of a forward pass; kept activations have a black edge")
    FigureCanvasAgg(figure)
    figure.savefig(file, format="png")


def colours(
    backbone: PipelineBackbone, decisions: Sequence[Decision], timestep: int, image: Sequence[Tensor], out: Path
) -> None:
    """Every activation of one image, its three leading principal components as colours, in a file each."""
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
