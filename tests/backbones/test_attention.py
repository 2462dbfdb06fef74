"""Attention maps: equal to what the model's own projections give, and to what its attention returns."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diffsift.backbones import Capture, PipelineBackbone, activation_named, as_map
from diffsift.backbones.attention import AttentionCalls, attention_map


def test_a_map_times_the_values_is_what_attention_returns() -> None:
    query, key, value = torch.randn(3, 2, 1, 5, 8).unbind(0)
    for options in ({}, {"scale": 0.3}, {"is_causal": True}, {"attn_mask": torch.rand(2, 1, 5, 5) > 0.2}):
        expected = functional.scaled_dot_product_attention(query, key, value, **options)
        assert torch.allclose(attention_map(query, key, options) @ value[:, 0], expected[:, 0], atol=1e-6)


def test_heads_are_averaged_and_may_share_keys() -> None:
    query, key = torch.randn(1, 4, 6, 8), torch.randn(1, 2, 3, 8)
    single = [attention_map(query[:, h : h + 1], key[:, h // 2 : h // 2 + 1], {}) for h in range(4)]
    assert torch.allclose(attention_map(query, key, {}), torch.stack(single).mean(0), atol=1e-6)


def test_the_maps_of_a_unet_are_those_of_its_own_projections(tiny_backbone: PipelineBackbone) -> None:
    known = tiny_backbone.activations()
    block = "up-level0-repeat0-vit-block0"
    attention = activation_named(f"{block}-self-map", known)
    words = activation_named(f"{block}-cross-map", known)
    queries, keys = (activation_named(f"{block}-self-{letter}", known) for letter in "qk")
    clean, noise = torch.randn(2, 2, 4, 8, 8).unbind(0)
    with (
        torch.inference_mode(),
        Capture(tiny_backbone.denoiser, [attention, queries, keys, words], stop_early=False) as captured,
    ):
        tiny_backbone.denoise(clean, noise, 10, tiny_backbone.condition(2))
    heads = tiny_backbone.denoiser.get_submodule(attention.module).heads

    def split(tokens: Tensor) -> Tensor:
        return tokens.unflatten(2, (heads, -1)).transpose(1, 2)

    q, k = (split(captured.tensors[entry.name]) for entry in (queries, keys))
    expected = (q @ k.transpose(2, 3) / q.shape[-1] ** 0.5).softmax(-1).mean(1)
    assert torch.allclose(captured.tensors[attention.name], expected, atol=1e-6)
    assert as_map(captured.tensors[attention.name], attention, (8, 8)).shape[1] == attention.channels
    prompt = as_map(captured.tensors[words.name], words, (8, 8))
    assert torch.allclose(prompt.sum(1), torch.ones(()), atol=1e-5)


def test_nothing_flows_between_tokens_when_attention_is_switched_off() -> None:
    one = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(0))
    other = one.clone()
    other[:, 2] += 1

    def run(tokens: Tensor) -> Tensor:
        heads = tokens.unflatten(2, (2, 4)).transpose(1, 2)
        return functional.scaled_dot_product_attention(heads, heads, heads)

    assert (run(one) != run(other)).any(-1).all()
    with AttentionCalls(switch_off=True):
        changed = (run(one) != run(other)).any(-1).any(1)
    assert changed.nonzero()[:, 1].tolist() == [2]


def test_the_mode_is_left_when_an_exception_passes_through(tiny_backbone: PipelineBackbone) -> None:
    wanted = [activation_named("mid-vit-block0-self-map", tiny_backbone.activations())]
    with pytest.raises(ValueError, match="stop"), Capture(tiny_backbone.denoiser, wanted):
        raise ValueError("stop")
    assert torch.overrides._get_current_function_mode_stack() == []
