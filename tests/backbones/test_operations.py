"""Shares of a pass: counted without a clock, exact for a pass that ends early, and refused where nothing is known."""

from __future__ import annotations

import pytest
import torch
from support import tiny
from torch import nn

from diffsift.backbones import (
    Capture,
    PipelineBackbone,
    is_unet,
    load_structure,
    operation_shares,
    read_activations,
    unet_pass,
    with_operations,
)
from diffsift.backbones.operations import operation_counter


def counted(backbone: PipelineBackbone, *names: str) -> int:
    """Operations of a pass that ends at the deepest of these activations; of a whole pass without any."""
    wanted = [entry for entry in backbone.activations() if entry.name in names]
    clean, noise = torch.randn(2, 1, 4, 8, 8).unbind(0)
    counter = operation_counter()
    with torch.inference_mode(), counter, Capture(backbone.denoiser, wanted, stop_early=bool(wanted)):
        backbone.denoise(clean, noise, 10, backbone.condition(1))
    return int(counter.get_total_flops())


@pytest.mark.parametrize(
    "name", ["unet-in", "down-level1-repeat0-vit-block0-cross-q", "mid-vit-out", "up-level1-repeat1-vit-block0-out"]
)
def test_a_share_is_what_a_pass_costs_that_ends_there(tiny_backbone: PipelineBackbone, name: str) -> None:
    entry = next(entry for entry in tiny_backbone.activations() if entry.name == name)
    assert entry.operations == pytest.approx(counted(tiny_backbone, name) / counted(tiny_backbone))


def test_attention_is_counted(tiny_backbone: PipelineBackbone) -> None:
    """Torch's own counter leaves out attention on a CPU."""
    share = {entry.name: entry.operations for entry in tiny_backbone.activations()}
    block = "mid-vit-block0"
    value, out = share[f"{block}-self-v"], share[f"{block}-self-out"]
    places, width = 4 * 4, 16
    attention, projection = 2 * 2 * places**2 * width, 2 * places * width**2
    assert value is not None
    assert out is not None
    assert (out - value) * counted(tiny_backbone) == pytest.approx(attention + projection)


def test_shares_grow_with_depth_and_no_hook_is_left(tiny_backbone: PipelineBackbone) -> None:
    shares = [entry.operations for entry in tiny_backbone.activations()]
    known = [share for share in shares if share is not None]
    assert len(known) == len(shares)
    assert known == sorted(known)
    assert known[-1] <= 1
    modules = tiny_backbone.denoiser.modules()
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules)


def test_a_mean_of_maps_costs_as_much_as_its_deepest_part(tiny_backbone: PipelineBackbone) -> None:
    means = [entry for entry in tiny_backbone.activations() if entry.parts]
    assert means
    for entry in means:
        assert entry.operations == max(part.operations or 0 for part in entry.parts)


def test_a_configuration_alone_gives_the_same_shares(tiny_backbone: PipelineBackbone, tiny_pipeline: str) -> None:
    """But for the longer text: 77 tokens that keys and values of cross-attention are made from."""
    structure = load_structure(str(tiny_pipeline))
    run = unet_pass(structure)
    assert run is not None
    assert is_unet(structure)
    known = read_activations(structure)
    shares = operation_shares(structure, run, known)
    loaded = {entry.name: entry.operations for entry in tiny_backbone.activations()}
    for entry in with_operations(known, shares):
        assert entry.operations == pytest.approx(loaded[entry.name], abs=0.05), entry.name


def test_a_structure_that_does_not_say_what_it_is_given_has_no_pass() -> None:
    with torch.device("meta"):
        assert unet_pass(tiny.unet(sample_size=None)) is None
        assert unet_pass(nn.Linear(1, 1)) is None


def test_a_network_that_cannot_be_counted_has_no_shares(
    tiny_backbone: PipelineBackbone, caplog: pytest.LogCaptureFixture
) -> None:
    known = tiny_backbone.activations()

    def fails() -> None:
        raise NotImplementedError("packed weights")

    assert operation_shares(tiny_backbone.denoiser, fails, known) == {}
    assert "cannot be counted: packed weights" in caplog.text
    assert operation_shares(tiny_backbone.denoiser, lambda: None, known) == {}
    assert all(entry.operations is None for entry in with_operations(known, {}))
