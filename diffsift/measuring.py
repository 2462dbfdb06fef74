"""Properties of a model's activations: measured once per model and images, shown as a table and pictures."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from diffsift import __version__
from diffsift.backbones import Activation, PipelineBackbone
from diffsift.spaces import Candidate, Properties, measure_properties

MEASURED_IMAGES = 24
SEEDS = (0, 1, 2, 3)


def measured_once(
    folder: Path,
    backbone: PipelineBackbone,
    activations: Sequence[Activation],
    timesteps: Sequence[int],
    images: Tensor,
    progress: bool,
) -> dict[Candidate, Properties]:
    """The properties of all activations but attention maps; what was measured before is read from `folder`."""
    wanted = [entry for entry in activations if entry.port != "attention" and not entry.unreadable]
    pixels = (images * 255).round().to("cpu", torch.uint8).numpy().tobytes()
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
        return {Candidate(backbone.name, row.pop("activation"), row.pop("timestep")): Properties(**row) for row in stored}
    found = measure_properties(backbone, wanted, timesteps, images, seeds=SEEDS, progress=progress)
    rows = [{"activation": c.activation, "timestep": c.timestep, **asdict(p)} for c, p in found.items()]
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(rows), encoding="utf-8")
    partial.replace(file)
    return found
