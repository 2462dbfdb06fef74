"""Every image transformer of the installed diffusers has a catalogue, read off its default configuration."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers.models import transformers

from diffsift.backbones import read_activations

NO_DEFAULTS = {  # cannot be made without a configuration
    "DreamLiteTransformer2DModel",
    "DualTransformer2DModel",
    "HiDreamImageTransformer2DModel",
    "OmniGenTransformer2DModel",
    "Transformer2DModel",
}
NAMES = sorted(name for name in vars(transformers) if name.endswith("Transformer2DModel"))


def test_diffusers_still_has_them() -> None:
    assert len(NAMES) >= 25
    assert set(NAMES) >= NO_DEFAULTS


@pytest.mark.parametrize("name", sorted(set(NAMES) - NO_DEFAULTS))
def test_its_blocks_are_found(name: str) -> None:
    make: Any = getattr(transformers, name)
    with torch.device("meta"):
        network = make()
    found = read_activations(network)
    assert len({entry.name for entry in found}) == len(found)
    kinds = {entry.kind for entry in found}
    assert kinds >= {"self-q", "self-k", "self-v", "self-map", "block-out"}
    modules = dict(network.named_modules())
    assert all(entry.module in modules for entry in found)
    assert all(entry.channels > 0 for entry in found if entry.port != "attention")
