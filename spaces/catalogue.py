"""The catalogue: every activation of a U-Net, read off its module tree by role.

Names, after Meng et al. (NeurIPS 2024): ``{down|up}-level{L}-repeat{R}-res-out``, ``...-res-increment``,
``...-vit-block{B}-{self-q|self-k|self-v|cross-q|ffn-inner|out}``, ``...-vit-out``,
``{down|up}-level{L}-{downsampler|upsampler}-out``, ``mid-repeat{R}-res-...``, ``mid-vit-...``, ``unet-in`` and
``unet-after-conv-in``. Levels, repeats and blocks count from 0 in the order in which a forward pass reaches them.
Nothing here needs weights: a module tree on the meta device is enough.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from diffsift.backbones import Activation, Backbone
from diffsift.backbones.activation import Kind, Layout, Port, Stage
from diffsift.errors import ModelError, SpecificationError, did_you_mean


def catalogue(backbone: Backbone) -> tuple[Activation, ...]:
    """All activations of a backbone in execution order."""
    return backbone.declared or read_activations(backbone.denoiser)


def read_activations(denoiser: nn.Module) -> tuple[Activation, ...]:
    """All activations of a U-Net in execution order.

    Args:
        denoiser: a `UNet2DConditionModel`, on any device, the meta device included.

    Raises:
        ModelError: the module tree is not that of a U-Net.
    """
    if not all(hasattr(denoiser, part) for part in ("conv_in", "down_blocks", "mid_block", "up_blocks")):
        raise ModelError(
            f"the denoiser must be a U-Net with down_blocks, mid_block and up_blocks, but {type(denoiser).__name__} "
            "is not: diffsift cannot list its activations yet."
        )
    return tuple(_Walk(denoiser).activations())


def activation_named(name: str, activations: tuple[Activation, ...]) -> Activation:
    """The activation of this name.

    Raises:
        SpecificationError: there is none; the closest names are offered.
    """
    for activation in activations:
        if activation.name == name:
            return activation
    raise SpecificationError(
        f"activation {name!r} does not exist in this model{did_you_mean(name, (entry.name for entry in activations))}"
    )


@dataclass(frozen=True)
class _Place:
    """Where in the network the walk is."""

    stage: Stage
    level: int | None
    stride: int
    repeat: int | None = None
    repeats: int | None = None

    @property
    def prefix(self) -> str:
        return self.stage if self.level is None else f"{self.stage}-level{self.level}"


class _Walk:
    def __init__(self, unet: Any) -> None:
        self._unet = unet
        self._depth = 0

    def activations(self) -> Iterator[Activation]:
        unet = self._unet
        entry = _Place("in", None, 1)
        yield self._declare("unet-in", "input", entry, unet.conv_in.in_channels, "map", "conv_in", "input")
        yield self._declare("unet-after-conv-in", "conv-in", entry, unet.conv_in.out_channels, "map", "conv_in")
        stride = 1
        for level, block in enumerate(unet.down_blocks):
            yield from self._level(block, f"down_blocks.{level}", "down", level, stride)
            if _parts(block, "downsamplers"):
                stride *= 2
        yield from self._mid(stride)
        for level, block in enumerate(unet.up_blocks):
            yield from self._level(block, f"up_blocks.{level}", "up", level, stride)
            if _parts(block, "upsamplers"):
                stride //= 2

    def _level(self, block: Any, path: str, stage: Stage, level: int, stride: int) -> Iterator[Activation]:
        resnets, attentions = _parts(block, "resnets"), _parts(block, "attentions")
        for repeat, resnet in enumerate(resnets):
            place = _Place(stage, level, stride, repeat, len(resnets))
            prefix = f"{place.prefix}-repeat{repeat}"
            yield from self._resnet(resnet, f"{path}.resnets.{repeat}", prefix, place)
            if repeat < len(attentions):
                yield from self._vit(attentions[repeat], f"{path}.attentions.{repeat}", prefix, place)
        for sampler, after in (("downsampler", stride * 2), ("upsampler", stride // 2)):
            for number, module in enumerate(_parts(block, f"{sampler}s")):
                place = _Place(stage, level, after)
                kind: Kind = "downsampler-out" if sampler == "downsampler" else "upsampler-out"
                channels = int(getattr(module, "out_channels", None) or resnets[-1].out_channels)
                name = f"{place.prefix}-{sampler}-out"
                yield self._declare(name, kind, place, channels, "map", f"{path}.{sampler}s.{number}")

    def _mid(self, stride: int) -> Iterator[Activation]:
        block = self._unet.mid_block
        if block is None:
            return
        resnets, attentions = _parts(block, "resnets"), _parts(block, "attentions")
        for repeat, resnet in enumerate(resnets):  # one residual block more than attentions, which lie between them
            place = _Place("mid", None, stride, repeat, len(resnets))
            yield from self._resnet(resnet, f"mid_block.resnets.{repeat}", f"mid-repeat{repeat}", place)
            if repeat < len(attentions):
                prefix = "mid" if len(attentions) == 1 else f"mid-repeat{repeat}"
                yield from self._vit(attentions[repeat], f"mid_block.attentions.{repeat}", prefix, place)

    def _resnet(self, resnet: Any, path: str, prefix: str, place: _Place) -> Iterator[Activation]:
        # The increment is what the block adds to its input: the output of its second convolution.
        yield self._declare(
            f"{prefix}-res-increment", "res-increment", place, resnet.out_channels, "map", f"{path}.conv2"
        )
        yield self._declare(f"{prefix}-res-out", "res-out", place, resnet.out_channels, "map", path)

    def _vit(self, vit: Any, path: str, prefix: str, place: _Place) -> Iterator[Activation]:
        blocks = _parts(vit, "transformer_blocks")
        if not blocks:
            return
        width = int(vit.inner_dim)
        for number, block in enumerate(blocks):
            here, inside = f"{prefix}-vit-block{number}", f"{path}.transformer_blocks.{number}"
            for kind, projection in _ATTENTION_TAPS:
                attention, linear = projection.split(".")
                module = getattr(getattr(block, attention, None), linear, None)
                if module is not None:
                    channels = int(module.out_features)
                    yield self._declare(f"{here}-{kind}", kind, place, channels, "tokens", f"{inside}.{projection}")
            inner = block.ff.net[-1].in_features
            yield self._declare(f"{here}-ffn-inner", "ffn-inner", place, inner, "tokens", f"{inside}.ff.net.0")
            yield self._declare(f"{here}-out", "block-out", place, width, "tokens", inside)
        yield self._declare(f"{prefix}-vit-out", "vit-out", place, int(vit.out_channels), "map", path)

    def _declare(
        self,
        name: str,
        kind: Kind,
        place: _Place,
        channels: int,
        layout: Layout,
        module: str,
        port: Port = "output",
    ) -> Activation:
        activation = Activation(
            name=name,
            kind=kind,
            stage=place.stage,
            level=place.level,
            depth=self._depth,
            channels=channels,
            stride=place.stride,
            layout=layout,
            module=module,
            port=port,
            repeat=place.repeat,
            repeats=place.repeats,
        )
        self._depth += 1
        return activation


_ATTENTION_TAPS: tuple[tuple[Kind, str], ...] = (
    ("self-q", "attn1.to_q"),
    ("self-k", "attn1.to_k"),
    ("self-v", "attn1.to_v"),
    ("cross-q", "attn2.to_q"),
)


def _parts(module: Any, name: str) -> list[Any]:
    return list(getattr(module, name, None) or [])
