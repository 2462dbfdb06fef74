"""Pictures of activations, also of those with a single location."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from support import tiny
from support.commands import done, write

from diffsift.runs.pictures import principal_colors


def test_colours_are_principal_components_over_their_range() -> None:
    ramp = torch.linspace(0, 1, 16).reshape(1, 4, 4)
    colours = principal_colors(torch.cat([ramp, 3 * ramp, -ramp]))
    red = colours[..., 0].astype(int)
    assert {red.min(), red.max()} == {0, 255}
    steps = np.diff(red.ravel())
    assert (steps >= 0).all() or (steps <= 0).all()


@pytest.mark.parametrize("channels", [1, 7])
def test_one_location_has_a_colour(channels: int) -> None:
    assert principal_colors(torch.randn(channels, 1, 1)).shape == (1, 1, 3)


def test_a_search_and_its_report_take_grids_of_one_location(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    pipeline = tiny.pipeline()
    pipeline.unet = tiny.unet(
        block_out_channels=(8, 8, 8),
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
    )
    pipeline.save_pretrained(tmp_path / "model")
    specification = tiny.specification(
        tmp_path / "model",
        tiny_data,
        model={"image_size": [8, 8]},
        filters={"rules": "none", "keep": ["mid-*"]},
        study={"trials": 2},
    )
    done("search", write(tmp_path / "search.yaml", specification))
    assert (tmp_path / "report-tiny.html").is_file()
