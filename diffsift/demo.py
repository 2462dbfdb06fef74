"""The built-in demo: a search on the pipelines and the scenes that ship with diffsift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffsift.errors import SpecificationError
from diffsift.specification import Specification

PIPELINES = {name: Path(__file__).parent / "demo_pipelines" / name for name in ("unet", "transformer")}
"""Small pipelines of the kinds of Stable Diffusion and Stable Diffusion 3, trained by ``examples/train_*.py``."""

PIPELINE = PIPELINES["unet"]
"""The one that examples use."""

_DROPPED = {"unet": ["unet-*", "*-self-out", "*-cross-out"], "transformer": ["*-attn-out"]}
"""Attention outputs are left out: what they add to a block's stream is in the block's output."""

TRIALS = {"segmentation": 300, "depth": 80, "normals": 80, "correspondence": 80, "classification": 80}
"""Trials of each task's demo; the figures in the README were measured with them."""


def demo_specification(
    *, task: str = "segmentation", model: str = "unet", seed: int = 0, trials: int | None = None
) -> Specification:
    """The specification that ``diffsift demo`` runs.

    Args:
        task: ``segmentation``, ``depth``, ``normals``, ``correspondence`` or ``classification``.
        model: ``unet``, ``transformer``, or ``both``: the activations of the two in one search.
        seed: seed of the scenes and of the search.
        trials: distinct selections to evaluate; default: `TRIALS` of the task.

    Returns:
        The specification; its study is named ``demo-SEED``, with the model and the task between the two where they are
        not the default ones.

    Raises:
        SpecificationError: the demo has no such task or model.
    """
    _check("task", task, tuple(TRIALS))
    _check("model", model, (*PIPELINES, "both"))
    models = [{"id": str(PIPELINES[name]), "device": "cpu", "batch_size": 32} for name in PIPELINES]
    main = models[0] if model == "both" else models[list(PIPELINES).index(model)]
    used = tuple(PIPELINES) if model == "both" else (model,)
    names = [part for part, default in ((model, "unet"), (task, "segmentation")) if part != default]
    fields: dict[str, Any] = {
        "model": main,
        "further_models": {"transformer": models[1]} if model == "both" else {},
        "data": {"kind": "rendered-scenes", "seed": seed},
        "task": {"kind": task},
        "timesteps": [50, 200],
        "filters": {"rules": "none", "drop": [pattern for name in used for pattern in _DROPPED[name]]},
        "study": {"name": "-".join(["demo", *names, str(seed)]), "trials": trials or TRIALS[task], "seed": seed},
    }
    if task == "segmentation":
        fields |= {"limits": {"activations": 6}, "bank": {"max_channels": 96}}
    return Specification.parse(fields, source="demo")


def _check(field: str, value: str, valid: tuple[str, ...]) -> None:
    if value not in valid:
        raise SpecificationError(f"the demo's {field} must be one of {', '.join(valid)}, but got {value!r}.")
