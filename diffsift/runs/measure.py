"""Properties of a model's activations, measured once per model and images and then read from the workspace."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict

import torch
from jaxtyping import Float
from torch import Tensor

from diffsift import __version__
from diffsift.backbones import Activation, Backbone
from diffsift.common.context import RunContext
from diffsift.common.files import digest, seal_holds, sealed, write_atomically
from diffsift.spaces import Candidate, Properties, measure_properties

MEASURED_IMAGES = 24
"""Images that properties are measured on, at most."""

SEEDS = (0, 1, 2, 3)
"""Of the noise that they are measured under."""


def measurable(activations: Sequence[Activation]) -> list[Activation]:
    """The activations that properties are measured of: all that can be captured, but for attention maps.

    Args:
        activations: a catalogue, or a part of one.

    Returns:
        Those of them, in the same order.
    """
    return [entry for entry in activations if entry.port != "attention" and not entry.unreadable]


def cached_properties(
    backbone: Backbone,
    activations: Sequence[Activation],
    timesteps: Sequence[int],
    images: Sequence[Float[Tensor, "3 _ _"]],
    context: RunContext,
) -> dict[Candidate, Properties]:
    """The properties of all activations but attention maps; what was measured before is read from the workspace.

    Args:
        backbone: that is run.
        activations: of the backbone.
        timesteps: noise levels.
        images: RGB in [0, 1].
        context: workspace, batch size and reporter are used.

    Returns:
        Properties by candidate: backbone, activation and timestep.
    """
    wanted = measurable(activations)
    pixels = b"".join((image * 255).round().to("cpu", torch.uint8).numpy().tobytes() for image in images)
    key = {
        "diffsift": __version__,
        "backbone": backbone.identity(),
        "activations": [entry.name for entry in wanted],
        "timesteps": list(timesteps),
        "seeds": list(SEEDS),
        "images": hashlib.sha256(pixels).hexdigest(),
    }
    file = context.workspace.properties / f"{digest(key, 32)}.json"
    # What is missing, of an older version or damaged is measured again.
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        stored = json.loads(file.read_text(encoding="utf-8"))
        if seal_holds(stored):
            return {
                Candidate(backbone.name, row.pop("activation"), row.pop("timestep")): Properties(**row)
                for row in stored["properties"]
            }
    found = measure_properties(
        backbone,
        images,
        dict.fromkeys(timesteps, wanted),
        seeds=SEEDS,
        batch_size=context.batch_size,
        reporter=context.reporter,
    )
    rows = [{"activation": c.activation, "timestep": c.timestep, **asdict(p)} for c, p in found.items()]
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, json.dumps(sealed({"properties": rows})))
    return found
