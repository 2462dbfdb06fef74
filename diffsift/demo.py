"""The built-in demo: a search on the pipeline and data that ship with diffsift."""

from __future__ import annotations

from pathlib import Path

from diffsift.specification import Specification

PIPELINE = Path(__file__).parent / "demo_pipeline"
"""A small Stable Diffusion, trained by ``examples/train_demo_pipeline.py``."""

TRIALS = 300


def demo_specification(*, seed: int = 0, trials: int | None = None) -> Specification:
    """The search that ``diffsift demo`` runs; `seed` draws the scenes and seeds the search.

    The structural rules are off: they were derived on models a thousand times larger, and on this one they cost score
    (best of 300 trials on validation scenes of a seed not used elsewhere: 0.14 with them, 0.16 without). Attention
    outputs are left out: what they add to a block's stream is in the block's output.
    """
    return Specification.parse(
        {
            "model": {"id": str(PIPELINE), "device": "cpu", "batch_size": 32},
            "data": {"kind": "digit-scenes", "seed": seed},
            "timesteps": [50, 200],
            "filters": {"rules": "none", "drop": ["unet-*", "*-self-out", "*-cross-out"]},
            "limits": {"activations": 6},
            "bank": {"max_channels": 96},
            "study": {"name": f"demo-{seed}", "trials": trials or TRIALS, "seed": seed},
        },
        source="demo",
    )
