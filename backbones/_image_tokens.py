"""Locates the image's tokens in what a transformer's modules return, from two passes.

A module tree does not show whether a sequence holds text before the image, after it or not at all, which entry of a
tuple is the image's, or how often a module runs. Two passes show it. They differ in the image alone, and attention is
switched off in both, so that nothing flows from one token to another: a token whose value differs is the image's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from .activation import Activation, Port, Tokens
from .attention import AttentionCalls
from .capture import grid_size, tensors_in, watch_port

_Source = tuple[str, Port]
"""A module's path, and which of its tensors is meant."""

_STRIDES = (1, 2, 4, 8, 16, 32)

_AT_ONCE = 4_000_000
"""Values of a tensor that are summed at once: a copy of the whole in float64 is never made."""

NOT_PLACED = "attention maps are placed only where they are asked for (filters.attention_maps)"
"""Why an attention map cannot be captured that was not placed."""


@dataclass(frozen=True)
class _Fingerprint:
    """One tensor of a module in one pass: its shape, and for 3-D tensors two numbers per token."""

    shape: tuple[int, ...]
    tokens: Tensor
    transposed: bool = False


PassRecord = dict[_Source, list[list[_Fingerprint]]]
"""What the modules of one pass received or returned: calls by source, and the tensors of each call."""


class _Recorder:
    """Fingerprints of what some modules receive or return in one pass; the tensors themselves are dropped."""

    def __init__(self, denoiser: nn.Module, activations: Sequence[Activation], *, maps: bool) -> None:
        self.calls: PassRecord = {}
        self._maps = maps
        self._handles: list[RemovableHandle] = []
        self._denoiser = denoiser
        self._attention = AttentionCalls(switch_off=True)
        self._modes = ExitStack()
        self._sources: list[_Source] = list(dict.fromkeys((entry.module, entry.port) for entry in activations))

    def __enter__(self) -> _Recorder:
        modules = dict(self._denoiser.named_modules())
        for source in self._sources:
            self._handles += self._hook(modules[source[0]], source)
        self._modes.enter_context(self._attention)
        return self

    def __exit__(self, *_: object) -> None:
        self._modes.close()
        for handle in self._handles:
            handle.remove()

    def _hook(self, module: nn.Module, source: _Source) -> list[RemovableHandle]:
        def on_attention(query: Tensor, key: Tensor, _: dict[str, Any]) -> None:
            heads = (query, key) if self._maps else ()
            self._record(source, [entry.transpose(1, 2).flatten(2) for entry in heads])

        if source[1] == "attention":
            return self._attention.watch(module, on_attention)
        return [watch_port(module, source[1], lambda value: self._record(source, value))]

    def _record(self, source: _Source, value: Any) -> None:
        self.calls.setdefault(source, []).append([_fingerprint_of(tensor) for tensor in tensors_in(value)])


def _fingerprint_of(tensor: Tensor) -> _Fingerprint:
    if tensor.ndim != 3:
        return _Fingerprint(tuple(tensor.shape), torch.empty(0))
    # Two sums over channels: equal values give equal sums, bit for bit, and others practically never do.
    values = tensor.detach()
    values = values.cpu() if values.device.type == "mps" else values  # has no float64
    ramp = torch.arange(1, values.shape[-1] + 1, dtype=torch.float64, device=values.device)
    step = max(1, _AT_ONCE // max(1, values[:, :1].numel()))
    sums = []
    for part in torch.split(values, step, dim=1):
        wide = part.double()
        sums.append(torch.stack([wide.sum(-1), (wide * ramp).sum(-1)]))
    return _Fingerprint(tuple(tensor.shape), torch.cat(sums, dim=2).cpu())


def _batch_first(given: _Fingerprint, batch: int) -> _Fingerprint:
    """As it is, or with tokens and batch swapped where a network has the batch second."""
    if len(given.shape) != 3 or given.shape[0] == batch or given.shape[1] != batch:
        return given
    tokens, _, channels = given.shape
    return _Fingerprint((batch, tokens, channels), given.tokens.transpose(1, 2), transposed=True)


@torch.inference_mode()
def record_pass(
    denoiser: nn.Module, run: Callable[[], Any], activations: Sequence[Activation], *, maps: bool = True
) -> PassRecord:
    """Run a denoiser once, with attention switched off, and record what tells the image's tokens from others.

    Args:
        denoiser: the module that `run` runs.
        run: makes one forward pass.
        activations: as read off the module tree.
        maps: whether to record what places attention maps, which is much; otherwise only that they are reached.

    Returns:
        One of the two records that `place_image_tokens` needs.
    """
    with _Recorder(denoiser, activations, maps=maps) as recorder:
        run()
    return recorder.calls


def place_image_tokens(
    activations: Sequence[Activation],
    passes: tuple[PassRecord, PassRecord],
    input_size: tuple[int, int],
    *,
    batch: int = 1,
) -> tuple[Activation, ...]:
    """Complete declarations of a transformer's activations by what two passes showed.

    Args:
        activations: as read off the module tree.
        passes: records of two passes on different images (or batches of images); all other arguments of the denoiser
            must have been equal in both.
        input_size: rows and columns of the denoiser's input.
        batch: images in a batch, 1 by default.

    Returns:
        All activations in the order in which a pass reaches them, with the layout, stride, channels, tokens, item and
        depth that were observed; those that cannot be captured give the reason in `unreadable`, as do attention maps
        that were not recorded.
    """
    order = {source: position for position, source in enumerate(passes[0])}
    located = []
    for activation in activations:
        source = (activation.module, activation.port)
        first, second = (
            [[_batch_first(tensor, batch) for tensor in call] for call in calls.get(source, [])] for calls in passes
        )
        located.append(_located(activation, first, second, input_size))
    located.sort(key=lambda entry: order.get((entry.module, entry.port), len(order)))
    return tuple(replace(entry, depth=depth) for depth, entry in enumerate(located))


def _located(
    activation: Activation,
    first: list[list[_Fingerprint]],
    second: list[list[_Fingerprint]],
    input_size: tuple[int, int],
) -> Activation:
    if activation.port == "attention" and not first:
        return replace(activation, unreadable="its attention is not computed by scaled_dot_product_attention")
    if len(first) != 1 or len(second) != 1:
        return replace(activation, unreadable=f"its module runs {len(first)} times in a pass, not once")
    if activation.port == "attention":
        return (
            replace(activation, unreadable=NOT_PLACED)
            if not first[0]
            else _located_map(activation, first[0], second[0], input_size)
        )
    reason = "its module gives no tensor"
    for item, (one, other) in enumerate(zip(first[0], second[0], strict=True)):
        found = _image_part(activation, one, other, input_size)
        if isinstance(found, Activation):
            return replace(found, item=item)
        reason = found
    return replace(activation, unreadable=reason)


def _located_map(
    activation: Activation, first: list[_Fingerprint], second: list[_Fingerprint], input_size: tuple[int, int]
) -> Activation:
    """An attention map: a row for each query, a column for each key; the image's rows, and columns by kind."""
    rows = _image_part(activation, first[0], second[0], input_size)
    if isinstance(rows, str):
        return replace(activation, unreadable=rows)
    length = first[1].shape[1]
    image = _changed(first[1], second[1])
    if len(image) == length:
        start, stop = (0, length) if activation.kind == "self-map" else (0, 0)
    elif not image:
        start, stop = (0, length) if activation.kind == "cross-map" else (0, 0)
    elif activation.kind == "self-map":
        start, stop = image[0], image[-1] + 1
    else:
        start, stop = (0, image[0]) if image[0] else (image[-1] + 1, length)
    if start == stop:
        return replace(activation, unreadable=f"attends to no {'text' if activation.kind == 'cross-map' else 'image'}")
    return replace(rows, columns=(start, stop), channels=stop - start)


def _changed(one: _Fingerprint, other: _Fingerprint) -> list[int]:
    """Positions of the tokens that differ."""
    positions: list[int] = (one.tokens != other.tokens).any(0).any(0).nonzero().flatten().tolist()
    return positions


def _image_part(
    activation: Activation, one: _Fingerprint, other: _Fingerprint, input_size: tuple[int, int]
) -> Activation | str:
    grids = {stride: grid_size(input_size, stride) for stride in _STRIDES}
    if one.shape != other.shape:
        return f"its shape depends on the image's content: {one.shape} and {other.shape}"
    if len(one.shape) == 4:
        for stride, grid in grids.items():
            if one.shape[2:] == grid and one.shape[1] == _width(activation, one.shape[1]):
                return _with(activation, stride, one.shape[1], layout="map")
            if one.shape[1:3] == grid:
                return _with(activation, stride, one.shape[3], layout="map-last")
    if len(one.shape) != 3:
        return f"a tensor of shape {one.shape} is no map and no sequence of tokens"
    changed = _changed(one, other)
    if not changed:
        return "does not depend on the image: text or conditioning"
    length, count = one.shape[1], changed[-1] - changed[0] + 1
    for stride, (rows, columns) in grids.items():
        locations = rows * columns
        if locations != count or len(changed) != count:
            continue
        layout = "tokens-first" if one.transposed else "tokens"
        if length == locations:
            return _with(activation, stride, one.shape[2], layout=layout)
        if changed[0] == 0 or changed[-1] == length - 1:
            tokens: Tokens = "first" if changed[0] == 0 else "last"
            return _with(activation, stride, one.shape[2], layout=layout, tokens=tokens)
    return f"{len(changed)} of its {length} tokens depend on the image, which has no such grid"


def _width(activation: Activation, given: int) -> int:
    """The channels that a module must give: those declared, unless none are or several activations share them."""
    return given if activation.columns is not None or not activation.channels else activation.channels


def _with(
    activation: Activation, stride: int, channels: int, *, layout: Any = "tokens", tokens: Tokens = "all"
) -> Activation:
    if activation.columns is not None:
        channels = activation.columns[1] - activation.columns[0]
    return replace(activation, stride=stride, channels=channels, layout=layout, tokens=tokens)
