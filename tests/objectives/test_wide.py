"""The final table on a network with very wide activations takes little memory beyond a pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support import wide
from support.allocations import counted
from support.tiny_pipelines import backbone_of

from diffsift.backbones import BackboneCache, PipelineBackbone
from diffsift.bank import BankSpecification
from diffsift.common.context import RunContext
from diffsift.datasets import RenderedScenesSpecification
from diffsift.extraction import Standardiser
from diffsift.objectives import (
    OBJECTIVES,
    ClassificationSpecification,
    CorrespondenceSpecification,
    FittedSelection,
    ProbeSpecification,
    RidgeHead,
    TaskSpecification,
)
from diffsift.spaces import Candidate, Selection

SCENES = RenderedScenesSpecification(size=32, train=4, validation=4, test=2)
IMAGES = 2


@pytest.fixture(scope="module")
def backbone() -> PipelineBackbone:
    return backbone_of(wide.pipeline())


def standardiser(channels: int, generator: torch.Generator) -> Standardiser:
    projection = torch.randn(channels, 256, generator=generator) / channels**0.5 if channels > 256 else None
    return Standardiser(torch.randn(channels, generator=generator), torch.ones(channels), projection)


@pytest.mark.parametrize(
    "task",
    [
        TaskSpecification(),
        ClassificationSpecification(kind="classification"),
        CorrespondenceSpecification(kind="correspondence"),
    ],
    ids=["sums", "pooled", "matched"],
)
def test_a_pass_with_all_rows_takes_hardly_more_than_itself(task: Any, backbone: PipelineBackbone) -> None:
    objective = OBJECTIVES[task.kind](SCENES, task, BankSpecification(), ProbeSpecification())
    channels = {
        Candidate("main", entry.name, 50): entry.channels for entry in backbone.activations() if not entry.unreadable
    }
    assert max(channels.values()) == wide.CHANNELS
    generator, width = torch.Generator().manual_seed(0), len(objective.class_names) or 1
    standardisers = {candidate: standardiser(wide_by, generator) for candidate, wide_by in channels.items()}

    def row(name: str, chosen: list[Candidate]) -> FittedSelection:
        weights = {entry: np.ones((standardisers[entry].channels, width), np.float32) for entry in chosen}
        head = None if task.kind == "correspondence" else RidgeHead(weights, np.zeros(width, np.float32))
        return FittedSelection(name, Selection.of(chosen), head, {entry: standardisers[entry] for entry in chosen})

    candidates = list(channels)
    rows = [row("all", candidates), row("found", candidates[-3:]), row("single", candidates[:1])]
    backbones = BackboneCache()
    backbones.add("main", lambda: backbone)
    with counted() as found:
        objective.test(rows, backbones, RunContext(batch_size=IMAGES))
    # The pass itself holds what goes into an activation and what comes out of it.
    assert found.largest <= IMAGES * wide.MAP_BYTES
    assert found.peak <= 2 * IMAGES * wide.MAP_BYTES + 64_000_000
