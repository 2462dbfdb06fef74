"""The activations of a diffusion transformer, read off its module tree by role.

A block list is an `nn.ModuleList` whose entries hold attention: modules with projections to queries and keys, separate
or fused. Names are in the style of the U-Nets': ``block7-{q|k|v|map|cross-map|attn-out|ffn-inner|out}``, with
``self-`` and ``cross-`` before q, k, v, map and out where a block has both kinds of attention, and the list's own name
where there are several lists (``single3-out``). What belongs to the text (its projections, its feed-forward layers,
whole blocks) looks the same in the tree; running the network tells them apart (`place_image_tokens`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from .activation import Activation, Kind, Port

_QUERIES = ("to_q", "to_query", "q_proj", "wq")
_KEYS = ("to_k", "to_key", "k_proj", "wk")
_VALUES = ("to_v", "to_value", "v_proj", "wv")
_PROJECTIONS: tuple[tuple[str, Kind, tuple[str, ...]], ...] = (
    ("q", "self-q", _QUERIES),
    ("k", "self-k", _KEYS),
    ("v", "self-v", _VALUES),
)
_CROSS_PROJECTIONS: tuple[tuple[str, Kind, tuple[str, ...]], ...] = (("q", "cross-q", _QUERIES),)
_FUSED = ("to_qkv_mlp_proj", "to_qkv", "qkv_proj", "qkv", "img_qkv_proj", "img_attn_qkv")
_OUTPUTS = ("to_out", "out_layer", "out_proj", "o_proj", "wo", "proj", "img_attn_proj")
_FEED_FORWARD = ("ff", "mlp", "ffn", "feed_forward", "feedforward", "img_mlp")


def read_transformer(denoiser: nn.Module) -> tuple[Activation, ...]:
    """All activations of a network made of blocks with attention; empty where there are no such blocks."""
    lists = _block_lists(denoiser)
    prefixes = _prefixes([path for path, _ in lists])
    total = sum(len(blocks) for _, blocks in lists)
    stride = _patch_edge(denoiser)
    found: list[Activation] = []
    number = 0
    for path, blocks in lists:
        for index, block in enumerate(blocks):
            walked = _Block(f"{path}.{index}", f"{prefixes[path]}{index}", number, total, stride)
            for activation in walked.activations(block):
                found.append(replace(activation, depth=len(found)))
            number += 1
    return tuple(found)


def _block_lists(denoiser: nn.Module) -> list[tuple[str, nn.ModuleList]]:
    """Outermost module lists whose entries hold attention, in the order of the tree."""
    found: list[tuple[str, nn.ModuleList]] = []
    for path, module in denoiser.named_modules():
        inside = any(path.startswith(f"{outer}.") for outer, _ in found)
        if isinstance(module, nn.ModuleList) and not inside and any(_attentions(entry) for entry in module):
            if all(isinstance(entry, nn.ModuleList) for entry in module):
                continue  # a list of lists: its entries are the block lists
            found.append((path, module))
    return found


def _prefixes(paths: list[str]) -> dict[str, str]:
    """Short names of block lists: the distinctive words of their own names, or whole paths where those clash."""
    generic = {"transformer", "blocks", "block", "layers", "layer", "stream"}
    short = {}
    for path in paths:
        words = [word for word in path.rpartition(".")[2].split("_") if word not in generic]
        short[path] = "-".join(words) if words and not words[-1].isdigit() else "block"
    counts = list(short.values())
    return {
        path: name if counts.count(name) == 1 else path.replace(".", "-").replace("_", "-") + "-block"
        for path, name in short.items()
    }


def _attentions(module: nn.Module) -> list[tuple[str, nn.Module]]:
    """Attention modules inside a module with their paths, itself included."""
    return [
        (path, entry)
        for path, entry in module.named_modules()
        if (_child(entry, _QUERIES) and _child(entry, _KEYS)) or _child(entry, _FUSED)
    ]


def _child(module: nn.Module, names: tuple[str, ...]) -> tuple[str, nn.Module] | None:
    """The first child of one of these names that has parameters."""
    for name in names:
        child = getattr(module, name, None)
        if isinstance(child, nn.Module) and any(True for _ in child.parameters()):
            return name, child
    return None


def _patch_edge(denoiser: nn.Module) -> int:
    config: Any = getattr(denoiser, "config", {})
    edge = config.get("patch_size") or 1
    edge = edge[-1] if isinstance(edge, list | tuple) else edge
    return int(edge)


@dataclass(frozen=True)
class _Block:
    """One block of a list, as the walk reaches it."""

    path: str
    name: str
    number: int
    total: int
    stride: int

    def activations(self, block: nn.Module) -> Iterator[Activation]:
        attentions = _attentions(block)
        roles: list[str] = []
        for order, (path, attention) in enumerate(attentions):
            crosses = len(attentions) > 1 and _is_cross(attention, path, order)
            role = ("cross-" if crosses else "self-") if len(attentions) > 1 else ""
            roles.append(role)
            again = roles.count(role)
            yield from self._attention(path, attention, crosses, role if again == 1 else f"{role}{again}-")
        inner = _feed_forward(block, [path for path, _ in attentions])
        for order, (path, channels) in enumerate(inner):
            name = "ffn-inner" if order == 0 else f"ffn{order + 1}-inner"
            yield self._declare(name, "ffn-inner", channels, path, port="input")
        # A block returns its input, changed: as wide as the input of its projection to queries.
        entry = _child(attentions[0][1], (*_QUERIES, *_FUSED)) if attentions else None
        width = int(getattr(entry[1], "in_features", 0)) if entry else 0
        yield self._declare("out", "block-out", width, "")

    def _attention(self, path: str, attention: nn.Module, crosses: bool, role: str) -> Iterator[Activation]:
        """Activations of one attention module; `role` prefixes their names, and is empty in a block with one module."""
        fused = _child(attention, _FUSED)
        if fused is not None and not _child(attention, _QUERIES):
            width = _fused_width(attention, fused[1])
            for third, (letter, kind, _) in enumerate(_PROJECTIONS):
                part = (third * width, (third + 1) * width)
                yield self._declare(role + letter, kind, width, _join(path, fused[0]), columns=part)
        else:
            # Keys and values of cross-attention are the text's.
            for letter, kind, names in _CROSS_PROJECTIONS if crosses else _PROJECTIONS:
                projection = _child(attention, names)
                if projection is not None:
                    yield self._declare(role + letter, kind, _width(projection[1]), _join(path, projection[0]))
        if not crosses:
            yield self._declare(f"{role}map", "self-map", 0, path, port="attention")
        if crosses or not role:
            yield self._declare("cross-map" if not role else f"{role}map", "cross-map", 0, path, port="attention")
        output = _child(attention, _OUTPUTS)
        if output is not None:
            name = output[0] + (".0" if isinstance(output[1], nn.ModuleList | nn.Sequential) else "")
            last = output[1][0] if isinstance(output[1], nn.ModuleList | nn.Sequential) else output[1]
            out: Kind = "cross-out" if crosses else "self-out"
            yield self._declare(f"{role or 'attn-'}out", out, _width(last), _join(path, name))

    def _declare(
        self,
        name: str,
        kind: Kind,
        channels: int,
        path: str,
        *,
        port: Port = "output",
        columns: tuple[int, int] | None = None,
    ) -> Activation:
        return Activation(
            name=f"{self.name}-{name}",
            kind=kind,
            stage="blocks",
            level=None,
            depth=0,
            channels=channels,
            stride=self.stride,
            layout="tokens",
            module=_join(self.path, path),
            port=port,
            repeat=self.number,
            repeats=self.total,
            columns=columns,
        )


def _join(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def _is_cross(attention: nn.Module, path: str, order: int) -> bool:
    if "self" in path or "cross" in path:
        return "cross" in path
    declared = getattr(attention, "is_cross_attention", None)
    return declared if isinstance(declared, bool) else order == 1


def _width(linear: nn.Module) -> int:
    return int(getattr(linear, "out_features", 0) or getattr(linear, "out_channels", 0))


def _fused_width(attention: nn.Module, projection: nn.Module) -> int:
    inner = getattr(attention, "inner_dim", None)
    return int(inner) if isinstance(inner, int) and inner * 3 <= _width(projection) else _width(projection) // 3


def _feed_forward(block: nn.Module, attentions: list[str]) -> list[tuple[str, int]]:
    """Paths of the layers that narrow a feed-forward's inner width again, with that width; they receive it."""
    found: list[tuple[str, int]] = []
    for path, module in block.named_modules():
        parts = path.split(".")
        if any(path == entry or path.startswith(f"{entry}.") for entry in attentions if entry):
            continue
        if not any(part in _FEED_FORWARD or part.startswith("ff") for part in parts):
            continue
        if isinstance(module, nn.Linear) and module.in_features > module.out_features:
            found.append((path, module.in_features))
        elif isinstance(module, nn.Conv2d) and module.in_channels > module.out_channels and module.groups == 1:
            found.append((path, module.in_channels))
    return found
