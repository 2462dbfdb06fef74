"""The catalogue: the published networks by count and name, and every declaration against real tensors."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from support.published import SD15, SDXL, activations_of
from support.tiny_pipelines import backbone_of, build
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from diffsift.backbones import (
    BackboneCache,
    Capture,
    LatentControl,
    ModelSpecification,
    PipelineBackbone,
    activation_named,
    grid_size,
    in_scope,
    read_activations,
)
from diffsift.errors import CaptureError, ModelError, SpecificationError

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


def passes_and_encoded(backbone: PipelineBackbone) -> tuple[int, list[tuple[int, ...]]]:
    """Passes that the catalogue takes, and sizes of the images that it encodes."""
    with (
        mock.patch.object(backbone, "denoise", side_effect=backbone.denoise) as denoise,
        mock.patch.object(backbone, "encode", side_effect=backbone.encode) as encode,
    ):
        assert backbone.activations() == backbone.activations()
    return denoise.call_count, [tuple(call.args[0].shape[2:]) for call in encode.call_args_list]


@pytest.mark.parametrize(("family", "passes"), [("SD 1.5", 1), ("SD 3", 2)])
def test_attention_maps_are_placed_only_on_demand(family: str, passes: int) -> None:
    pipeline = build(family)
    backbone = backbone_of(pipeline, image_size=(256, 128))
    assert passes_and_encoded(backbone) == (passes, [(64, 64)]), "no image of the full size"
    plain = {entry.name: entry for entry in backbone.activations()}
    maps = {name for name, entry in plain.items() if entry.port == "attention"}
    assert maps
    assert all("only where they are asked for (filters.attention_maps)" in plain[name].unreadable for name in maps)
    for name in maps:
        with pytest.raises(CaptureError, match=r"cannot be captured: .*\(filters\.attention_maps\)"):
            list(backbone.capture(torch.rand(1, 3, 8, 8), {9: [plain[name]]}, seed=0))

    backbone.place_attention_maps()
    assert passes_and_encoded(backbone) == (2, [(64, 64)])
    placed = {entry.name: entry for entry in backbone.activations()}
    assert not any(placed[name].unreadable for name in maps)
    for name in set(plain) - maps:
        assert replace(plain[name], depth=0) == replace(placed[name], depth=0)
    assert backbone.untrained().activations() == backbone.activations()
    wanted = [entry for entry in placed.values() if not entry.unreadable]
    ((_, found),) = backbone.capture(torch.rand(1, 3, 8, 8), {9: wanted}, seed=0)
    assert set(found) == {entry.name for entry in wanted}


def test_a_network_that_cannot_be_counted_is_still_placed(caplog: pytest.LogCaptureFixture) -> None:
    counted, backbone = (backbone_of(build("SD 3")) for _ in range(2))
    with mock.patch.object(FlopCounterMode, "__enter__", side_effect=NotImplementedError("packed weights")):
        assert passes_and_encoded(backbone) == (2, [(64, 64)])
    assert "cannot be counted: packed weights" in caplog.text
    expected = tuple(replace(entry, operations=None) for entry in counted.activations())
    assert backbone.activations() == expected


def test_a_model_that_is_loaded_again_has_its_attention_maps_again(tiny_pipeline: Path) -> None:
    models = {name: ModelSpecification(id=str(tiny_pipeline), device="cpu") for name in ("main", "other")}
    for wanted in (False, True):
        backbones = BackboneCache()
        backbones.add_models(models, attention_maps=wanted)
        for name in ("main", "other", "main"):
            found = activation_named("mid-vit-block0-self-map", backbones[name].activations())
            assert bool(found.unreadable) is not wanted


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
