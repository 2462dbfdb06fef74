"""Placing: image tokens are found wherever a network puts them, and what is not the image's is named."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from diffsift.backbones import Activation, Capture, as_map, place_image_tokens, record_pass

PLACES, WORDS, WIDTH = 12, 5, 8


class Joint(nn.Module):
    """One attention over text and image, in the order asked for."""

    def __init__(self, *, image_first: bool) -> None:
        super().__init__()
        self.image_first = image_first
        self.text, self.shared, self.tail = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.attention = Attention()
        self.split = Split()

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        text = self.text(text)
        joined = torch.cat([image, text] if self.image_first else [text, image], dim=1)
        mixed = self.tail(self.attention(self.shared(joined)))
        self.split(mixed[:, :PLACES], text)
        return mixed


class Attention(nn.Module):
    def forward(self, tokens: Tensor) -> Tensor:
        heads = tokens.unsqueeze(1)
        return functional.scaled_dot_product_attention(heads, heads, heads).squeeze(1)


class Split(nn.Module):
    def forward(self, image: Tensor, text: Tensor) -> tuple[Tensor, Tensor]:
        return text, image


def tap(module: str, **options: Any) -> Activation:
    base = Activation(module, "block-out", "blocks", None, 0, 0, 1, "tokens", module, repeat=0, repeats=1)
    return replace(base, **options)


def placed(image_first: bool, *activations: Activation) -> dict[str, Activation]:
    torch.manual_seed(0)
    network = Joint(image_first=image_first)
    images, text = torch.randn(2, 1, PLACES, WIDTH), torch.randn(1, WORDS, WIDTH)
    first, second = (record_pass(network, partial(network, image, text), activations) for image in images)
    found = place_image_tokens(activations, (first, second), (3, 4))
    assert all(not module._forward_hooks and not module._forward_pre_hooks for module in network.modules())
    return {entry.name: entry for entry in found}


@pytest.mark.parametrize("image_first", [True, False])
def test_image_tokens_are_found_in_a_joint_sequence(image_first: bool) -> None:
    found = placed(image_first, tap("tail"), tap("text"), tap("shared"))
    assert list(found) == ["text", "shared", "tail"], "in the order of the pass"
    assert [found[name].depth for name in found] == [0, 1, 2]
    for name in ("shared", "tail"):
        assert (found[name].tokens, found[name].channels, found[name].stride) == (
            "first" if image_first else "last",
            WIDTH,
            1,
        )
        assert not found[name].unreadable
    assert found["text"].unreadable == "does not depend on the image: text or conditioning"


def test_the_images_entry_of_a_tuple_is_found() -> None:
    found = placed(True, tap("split"))["split"]
    assert (found.item, found.tokens, found.unreadable) == (1, "all", "")


def test_maps_keep_the_images_rows_and_the_columns_of_their_kind() -> None:
    own, words = (tap("attention", name=kind, kind=kind, port="attention") for kind in ("self-map", "cross-map"))
    found = placed(False, own, words)
    assert (found["self-map"].columns, found["self-map"].channels) == ((WORDS, WORDS + PLACES), PLACES)
    assert (found["cross-map"].columns, found["cross-map"].channels) == ((0, WORDS), WORDS)
    assert found["self-map"].tokens == found["cross-map"].tokens == "last"


def test_what_never_runs_or_never_attends_is_named() -> None:
    found = placed(True, tap("split", port="attention", kind="self-map"))
    assert found["split"].unreadable == "its attention is not computed by scaled_dot_product_attention"


class TokensFirst(nn.Module):
    """Keeps the batch second, behind the tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Linear(WIDTH, WIDTH)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        return self.block(torch.cat([text, image], dim=1).transpose(0, 1))


def test_a_batch_behind_the_tokens_is_noticed() -> None:
    torch.manual_seed(0)
    network = TokensFirst()
    images, text = torch.randn(2, 2, PLACES, WIDTH), torch.randn(2, WORDS, WIDTH)
    first, second = (record_pass(network, partial(network, image, text), [tap("block")]) for image in images)
    (found,) = place_image_tokens([tap("block")], (first, second), (3, 4), batch=2)
    assert (found.layout, found.tokens, found.stride, found.unreadable) == ("tokens-first", "last", 1, "")
    with Capture(network, [found]) as captured:
        network(images[0], text)
    feature_map = as_map(captured.tensors["block"], found, (3, 4))
    assert torch.equal(feature_map, network.block(images[0]).transpose(1, 2).reshape(2, WIDTH, 3, 4))
