"""Measured properties are remembered, and measured again where what is remembered is damaged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from diffsift.backbones import PipelineBackbone
from diffsift.common.context import RunContext
from diffsift.common.workspace import Workspace
from diffsift.runs import measure


def test_a_damaged_memory_is_measured_again(
    tiny_backbone: PipelineBackbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = 0
    compute = measure.measure_properties

    def counted(*args: object, **options: object) -> object:
        nonlocal measured
        measured += 1
        return compute(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(measure, "measure_properties", counted)
    context = RunContext(Workspace(tmp_path))
    images = list(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)))
    activations = tiny_backbone.activations()[:3]

    def properties() -> object:
        return measure.cached_properties(tiny_backbone, activations, [100], images, context)

    first = properties()
    assert properties() == first
    assert measured == 1
    (file,) = context.workspace.properties.iterdir()
    whole = file.read_text()
    digit = next(place for place, sign in enumerate(whole) if sign in "3456789")
    for content in (whole[:digit] + "2" + whole[digit + 1 :], whole[:-20], "[]"):
        file.write_text(content)
        measured = 0
        assert properties() == first
        assert measured == 1
        assert file.read_text() == whole
