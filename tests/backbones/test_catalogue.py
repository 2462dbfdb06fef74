"""The catalogue: the published networks by count and name, and every declaration against real tensors."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
import torch
from support.published import SD15, SDXL, activations_of
from torch import nn

from diffsift.backbones import (
    Capture,
    LatentControl,
    PipelineBackbone,
    activation_named,
    grid_size,
    in_scope,
    read_activations,
)
from diffsift.errors import ModelError, SpecificationError

IN_EVERY_BLOCK = ("self-q", "self-k", "cross-q", "ffn-inner", "block-out")


def test_sdxl_has_the_279_activations_of_the_paper() -> None:
    found = in_scope(activations_of(SDXL), "paper")
    assert len(found) == 279
    counts = Counter((entry.kind, entry.stage) for entry in found)
    expected = {"res-out": (6, 2, 9), "res-increment": (6, 2, 9), "vit-out": (4, 1, 6)}
    expected |= dict.fromkeys(IN_EVERY_BLOCK, (16, 6, 24))
    expected |= {"downsampler-out": (2, 0, 0), "upsampler-out": (0, 0, 2)}
    assert {kind: tuple(counts[kind, stage] for stage in ("down", "mid", "up")) for kind in expected} == expected


def test_sd15_has_its_known_places() -> None:
    found = {entry.name: entry for entry in activations_of(SD15)}
    keys = found["up-level3-repeat0-vit-block0-self-k"]
    assert (keys.channels, keys.stride, keys.layout, keys.level, keys.repeat, keys.repeats) == (
        320,
        1,
        "tokens",
        3,
        0,
        3,
    )
    inner = found["down-level2-repeat1-vit-block0-ffn-inner"]
    assert (inner.channels, inner.stride) == (4 * 1280, 4)
    assert found["mid-repeat1-res-out"].stride == 8
    assert found["up-level0-upsampler-out"].stride == 4
    assert found["down-level0-downsampler-out"].stride == 2
    assert "up-level3-upsampler-out" not in found
    assert "up-level0-repeat0-vit-out" not in found


@pytest.mark.parametrize("config", [SD15, SDXL], ids=["SD 1.5", "SDXL"])
def test_names_and_places_are_unique_and_in_execution_order(config: dict[str, Any]) -> None:
    found = activations_of(config)
    assert len({entry.name for entry in found}) == len(found)
    own = [entry for entry in found if not entry.parts]
    assert len({(entry.module, entry.port, entry.kind) for entry in own}) == len(own)
    assert {entry.name for entry in found if entry.parts} <= {"down-cross-map", "mid-cross-map", "up-cross-map"}
    assert [entry.depth for entry in found] == list(range(len(found)))


def test_every_declaration_holds_for_the_tensor_it_declares(tiny_backbone: PipelineBackbone) -> None:
    known = [entry for entry in tiny_backbone.activations() if entry.kind != "self-map" and not entry.parts]
    clean, noise = torch.randn(2, 3, 4, 9, 7).unbind(0)  # odd, so that strides round
    with torch.inference_mode(), Capture(tiny_backbone.denoiser, known, stop_early=False) as captured:
        tiny_backbone.denoise(clean, noise, 10, tiny_backbone.condition(3))
    for entry in known:
        rows, columns = grid_size((9, 7), entry.stride)
        maps, tokens = (3, entry.channels, rows, columns), (3, rows * columns, entry.channels)
        expected = maps if entry.layout == "map" else tokens
        assert tuple(captured.tensors[entry.name].shape) == expected, entry.name


def test_depth_is_the_order_in_which_a_pass_reaches_them(tiny_backbone: PipelineBackbone) -> None:
    known = tuple(entry for entry in tiny_backbone.activations() if not entry.parts)
    clean, noise = torch.randn(2, 1, 4, 8, 8).unbind(0)
    with torch.inference_mode(), Capture(tiny_backbone.denoiser, known, stop_early=False) as captured:
        tiny_backbone.denoise(clean, noise, 10, tiny_backbone.condition(1))
    reached = list(captured.tensors)
    for before, after in pairwise(reached):
        assert activation_named(before, known).depth < activation_named(after, known).depth, (before, after)


def test_a_backbone_may_declare_its_own(tiny_backbone: PipelineBackbone) -> None:
    control = LatentControl(tiny_backbone)
    assert control.activations() == control.activations()


def test_an_unknown_name_offers_the_closest(tiny_backbone: PipelineBackbone) -> None:
    known = tuple(entry for entry in tiny_backbone.activations() if not entry.parts)
    assert activation_named("mid-vit-out", known).kind == "vit-out"
    with pytest.raises(SpecificationError, match=r"'mid-vit-uot' does not exist .* did you mean 'mid-vit-out'"):
        activation_named("mid-vit-uot", known)


def test_what_is_no_unet_is_refused() -> None:
    with pytest.raises(ModelError, match=r"must have residual levels or blocks with attention, but Linear has neither"):
        read_activations(nn.Linear(1, 1))
