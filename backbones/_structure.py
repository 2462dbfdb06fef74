"""A pass of a U-Net from its configuration alone: on the meta device, without weights or a pipeline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

_WORDS = 77
"""Text tokens of the CLIP encoders that U-Nets with cross-attention are conditioned on."""


def unet_pass(unet: nn.Module) -> Callable[[], Any] | None:
    """One pass of a U-Net on the meta device, at its own size.

    Args:
        unet: a U-Net of diffusers, from `load_structure`.

    Returns:
        A function that makes the pass, for `operation_shares`; None where the configuration does not say enough.
    """
    config: Any = getattr(unet, "config", {})
    size, channels = config.get("sample_size"), config.get("in_channels")
    if size is None or channels is None or config.get("class_embed_type") or config.get("encoder_hid_dim_type"):
        return None
    rows, columns = (size, size) if isinstance(size, int) else size
    arguments: dict[str, Any] = {"timestep": torch.zeros(1, device="meta")}
    width = config.get("cross_attention_dim")
    if isinstance(width, int):
        arguments["encoder_hidden_states"] = torch.zeros(1, _WORDS, width, device="meta")
    if config.get("addition_embed_type") == "text_time":
        sizes = 6
        pooled = config["projection_class_embeddings_input_dim"] - sizes * config["addition_time_embed_dim"]
        arguments["added_cond_kwargs"] = {
            "text_embeds": torch.zeros(1, pooled, device="meta"),
            "time_ids": torch.zeros(1, sizes, device="meta"),
        }
    elif config.get("addition_embed_type") is not None:
        return None
    if not isinstance(width, int) and "Cross" in "".join(config.get("down_block_types", ())):
        return None
    sample = torch.zeros(1, channels, rows, columns, device="meta")
    return lambda: unet(sample, **arguments)
