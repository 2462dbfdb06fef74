"""The built-in demo: a search on the pipeline and data that ship with diffsift."""

from __future__ import annotations

from pathlib import Path

from diffsift.specification import Specification

PIPELINE = Path(__file__).parent / "demo_pipeline"
"""A small Stable Diffusion, trained by ``examples/train_demo_pipeline.py``."""

TRIALS = 300


def demo_specification(*, seed: int = 0, trials: int | None = None) -> Specification:
    """The search that ``diffsift demo`` runs; `seed` draws the scenes and seeds the search."""
    return Specification.parse(
        {
            "model": {"id": str(PIPELINE), "device": "cpu", "batch_size": 32},
            "data": {"kind": "digit-scenes", "seed": seed},
            "timesteps": [50, 150, 300],
            "study": {"name": f"demo-{seed}", "trials": trials or TRIALS, "seed": seed},
        },
        source="demo",
    )
