"""What can be captured: one declaration per internal tensor of a denoiser."""

from __future__ import annotations

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
    "cross-q",
    "ffn-inner",
    "block-out",
    "vit-out",
    "downsampler-out",
    "upsampler-out",
]
Stage = Literal["in", "down", "mid", "up"]
Layout = Literal["map", "tokens"]
Port = Literal["input", "output"]


@dataclass(frozen=True)
class Activation:
    """One tensor inside a denoiser, as declared by the catalogue.

    Attributes:
        name: unique within the denoiser, in the paper's style (``up-level1-repeat0-vit-block0-cross-q``).
        kind: the role of the tensor.
        stage: part of the network: ``in``, ``down``, ``mid`` or ``up``.
        level: resolution level within the stage, counted from 0 in execution order; None outside down and up.
        depth: position in execution order over the whole denoiser, from 0.
        channels: features per place.
        stride: edge of one place in units of the denoiser's input grid (1 is the input's own resolution).
        layout: ``map`` is (batch, channels, height, width), ``tokens`` is (batch, height * width, channels).
        module: dotted path of the hooked module in the denoiser.
        port: whether the module's first input or its output is taken.
        repeat: position among the residual blocks of its level, or None.
        repeats: how many residual blocks its level has, or None.
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
