"""The activations of a U-Net, read off its module tree by role.

Names, after Meng et al. (NeurIPS 2024): ``{down|up}-level{L}-repeat{R}-res-out``, ``...-res-increment``,
``...-vit-block{B}-{self-q|self-k|self-v|self-map|self-out|cross-q|cross-map|cross-out|ffn-inner|out}``,
``...-vit-out``,
``{down|up}-level{L}-{downsampler|upsampler}-out``, ``mid-repeat{R}-res-...``, ``mid-vit-...``, ``unet-in`` and
``unet-after-conv-in``. Attention without a transformer block around it: ``...-{self-q|self-k|self-v|attn-out}``.
Levels, repeats and blocks count from 0 in the order in which a forward pass reaches them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import nn

from .activation import Activation, Kind, Layout, Port, Stage


def is_unet(denoiser: nn.Module) -> bool:
    """Whether a module tree is that of a diffusers U-Net: residual levels down, in the middle and up.

    Args:
        denoiser: on any device, the meta device included.

    Returns:
        True where `read_unet` can read the tree; False for transformers and other networks.
    """
    parts = ("conv_in", "down_blocks", "mid_block", "up_blocks")
    if not all(hasattr(denoiser, part) for part in parts):
        return False
    tree: Any = denoiser
    blocks = [*tree.down_blocks, *tree.up_blocks]
    return all(hasattr(resnet, "conv2") for block in blocks for resnet in getattr(block, "resnets", [None]))


def read_unet(denoiser: nn.Module) -> tuple[Activation, ...]:
    """All activations of a U-Net in execution order, as its module tree declares them."""
    return tuple(_Walk(denoiser).activations())


@dataclass(frozen=True)
class _Position:
    """A position in the network, as the walk reaches it."""

    stage: Stage
    level: int | None
    stride: int
    repeat: int | None = None
    repeats: int | None = None

    @property
    def prefix(self) -> str:
        return self.stage if self.level is None else f"{self.stage}-level{self.level}"


@dataclass(frozen=True)
class _Source:
    """Which tensor of the network an activation is, and how it lies in memory."""

    module: str
    layout: Layout
    port: Port = "output"


class _Walk:
    def __init__(self, unet: Any) -> None:
        self._unet = unet
        self._depth = 0

    def activations(self) -> Iterator[Activation]:
        unet = self._unet
        entry = _Position("in", None, 1)
        yield self._declare("unet-in", "input", entry, unet.conv_in.in_channels, _Source("conv_in", "map", "input"))
        yield self._declare(
            "unet-after-conv-in", "conv-in", entry, unet.conv_in.out_channels, _Source("conv_in", "map")
        )
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
            position = _Position(stage, level, stride, repeat, len(resnets))
            prefix = f"{position.prefix}-repeat{repeat}"
            yield from self._resnet(resnet, f"{path}.resnets.{repeat}", prefix, position)
            if repeat < len(attentions) and attentions[repeat] is not None:
                yield from self._vit(attentions[repeat], f"{path}.attentions.{repeat}", prefix, position)
        for sampler, after in (("downsampler", stride * 2), ("upsampler", stride // 2)):
            for number, module in enumerate(_parts(block, f"{sampler}s")):
                position = _Position(stage, level, after)
                kind: Kind = "downsampler-out" if sampler == "downsampler" else "upsampler-out"
                channels = int(getattr(module, "out_channels", None) or resnets[-1].out_channels)
                name = f"{position.prefix}-{sampler}-out"
                yield self._declare(name, kind, position, channels, _Source(f"{path}.{sampler}s.{number}", "map"))

    def _mid(self, stride: int) -> Iterator[Activation]:
        block = self._unet.mid_block
        if block is None:
            return
        resnets, attentions = _parts(block, "resnets"), _parts(block, "attentions")
        for repeat, resnet in enumerate(resnets):  # one residual block more than attentions, which lie between them
            position = _Position("mid", None, stride, repeat, len(resnets))
            yield from self._resnet(resnet, f"mid_block.resnets.{repeat}", f"mid-repeat{repeat}", position)
            if repeat < len(attentions) and attentions[repeat] is not None:
                prefix = "mid" if len(attentions) == 1 else f"mid-repeat{repeat}"
                yield from self._vit(attentions[repeat], f"mid_block.attentions.{repeat}", prefix, position)

    def _resnet(self, resnet: Any, path: str, prefix: str, position: _Position) -> Iterator[Activation]:
        # The increment is what the block adds to its input: the output of its second convolution.
        yield self._declare(
            f"{prefix}-res-increment", "res-increment", position, resnet.out_channels, _Source(f"{path}.conv2", "map")
        )
        yield self._declare(f"{prefix}-res-out", "res-out", position, resnet.out_channels, _Source(path, "map"))

    def _vit(self, vit: Any, path: str, prefix: str, position: _Position) -> Iterator[Activation]:
        blocks = _parts(vit, "transformer_blocks")
        if not blocks:
            yield from self._attention(vit, path, prefix, position)
            return
        width = int(vit.inner_dim)
        for number, block in enumerate(blocks):
            here, inside = f"{prefix}-vit-block{number}", f"{path}.transformer_blocks.{number}"
            for kind, projection in _ATTENTION_TAPS:
                if kind.endswith("-map"):
                    if getattr(block, projection, None) is not None:
                        path_of_map = f"{inside}.{projection}"
                        yield self._declare(
                            f"{here}-{kind}", kind, position, 0, _Source(path_of_map, "tokens", "attention")
                        )
                    continue
                attention, _, linear = projection.partition(".")
                if getattr(block, attention, None) is not None:
                    module = getattr(block, attention).get_submodule(linear)
                    channels = int(module.out_features)
                    yield self._declare(
                        f"{here}-{kind}", kind, position, channels, _Source(f"{inside}.{projection}", "tokens")
                    )
            inner = block.ff.net[-1].in_features
            yield self._declare(
                f"{here}-ffn-inner", "ffn-inner", position, inner, _Source(f"{inside}.ff.net.0", "tokens")
            )
            yield self._declare(f"{here}-out", "block-out", position, width, _Source(inside, "tokens"))
        yield self._declare(f"{prefix}-vit-out", "vit-out", position, int(vit.out_channels), _Source(path, "map"))

    def _attention(self, attention: Any, path: str, prefix: str, position: _Position) -> Iterator[Activation]:
        """Self-attention without a transformer block around it, as in unconditional U-Nets."""
        for kind, projection in _OWN_TAPS:
            module = getattr(attention, projection, None)
            if isinstance(module, nn.Linear):
                width = module.out_features
                yield self._declare(
                    f"{prefix}-{kind}", kind, position, width, _Source(f"{path}.{projection}", "tokens")
                )
        if isinstance(getattr(attention, "to_out", None), nn.ModuleList):
            yield self._declare(f"{prefix}-self-map", "self-map", position, 0, _Source(path, "tokens", "attention"))
            width = attention.to_out[0].out_features
            yield self._declare(
                f"{prefix}-attn-out", "self-out", position, width, _Source(f"{path}.to_out.0", "tokens")
            )

    def _declare(self, name: str, kind: Kind, position: _Position, channels: int, source: _Source) -> Activation:
        activation = Activation(
            name=name,
            kind=kind,
            stage=position.stage,
            level=position.level,
            depth=self._depth,
            channels=channels,
            stride=position.stride,
            layout=source.layout,
            module=source.module,
            port=source.port,
            repeat=position.repeat,
            repeats=position.repeats,
        )
        self._depth += 1
        return activation


_OWN_TAPS: tuple[tuple[Kind, str], ...] = (("self-q", "to_q"), ("self-k", "to_k"), ("self-v", "to_v"))
_ATTENTION_TAPS: tuple[tuple[Kind, str], ...] = (
    ("self-q", "attn1.to_q"),
    ("self-k", "attn1.to_k"),
    ("self-v", "attn1.to_v"),
    ("self-map", "attn1"),
    ("self-out", "attn1.to_out.0"),
    ("cross-q", "attn2.to_q"),
    ("cross-map", "attn2"),
    ("cross-out", "attn2.to_out.0"),
)


def _parts(module: Any, name: str) -> list[Any]:
    return list(getattr(module, name, None) or [])
