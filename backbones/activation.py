"""Activations: declarations of the internal tensors of a denoiser that can be captured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Kind = Literal[
    "input",
    "conv-in",
    "res-out",
    "res-increment",
    "self-q",
    "self-k",
    "self-v",
    "self-out",
    "self-map",
    "cross-q",
    "cross-out",
    "cross-map",
    "ffn-inner",
    "block-out",
    "vit-out",
    "downsampler-out",
    "upsampler-out",
]
Stage = Literal["in", "down", "mid", "up", "blocks"]
Layout = Literal["map", "map-last", "tokens", "tokens-first"]
Port = Literal["input", "output", "attention"]
Tokens = Literal["all", "first", "last"]


@dataclass(frozen=True)
class Activation:
    """The declaration of one tensor inside a denoiser.

    A backbone's catalogue (`Backbone.activations`) is a tuple of these. What is captured must agree with what is
    declared here, or capturing fails.

    Attributes:
        name: unique within the denoiser, in the paper's style (``up-level1-repeat0-vit-block0-cross-q``).
        kind: the role of the tensor.
        stage: part of the network: ``in``, ``down``, ``mid`` or ``up`` of a U-Net, ``blocks`` of a transformer.
        level: resolution level within the stage, counted from 0 in execution order; None outside down and up.
        depth: position in execution order over the whole denoiser, from 0.
        channels: values per location; of an attention map the locations or prompt tokens attended to, which are 0 until
            the image size and the prompt are known.
        stride: edge of one grid cell in cells of the denoiser's input (1 is the input's own resolution).
        layout: ``map`` is (batch, channels, height, width), ``map-last`` (batch, height, width, channels), ``tokens``
            (batch, tokens, channels), ``tokens-first`` (tokens, batch, channels).
        module: dotted path of the hooked module in the denoiser.
        port: whether the module's first input or its output is taken; ``attention`` is the attention weights that the
            module computes, averaged over heads.
        repeat: position among the residual blocks of its level, or among all blocks of a transformer; or None.
        repeats: how many of these there are, or None.
        item: index of the tensor where the module returns several.
        columns: first and one past the last channel within a fused projection; None takes all channels.
        tokens: position of the image's tokens in a sequence that holds text as well.
        unreadable: why it cannot be captured; empty where it can.
        parts: the activations that this one averages, on the finest of their grids; empty for all others.
        operations: share of a whole pass's multiply-adds at or before it, 0 to 1; None where not counted.
    """

    name: str
    kind: Kind
    stage: Stage
    level: int | None
    depth: int
    channels: int
    stride: int
    layout: Layout
    module: str
    port: Port = "output"
    repeat: int | None = None
    repeats: int | None = None
    item: int = 0
    columns: tuple[int, int] | None = None
    tokens: Tokens = "all"
    unreadable: str = ""
    parts: tuple[Activation, ...] = ()
    operations: float | None = None


ActivationsByTimestep = Mapping[int, Sequence[Activation]]
"""Activations to capture, by timestep: one pass of the denoiser for each timestep and noise draw."""
