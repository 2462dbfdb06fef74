"""Attention maps: recomputed from the queries and keys that a module passes to `scaled_dot_product_attention`.

Those are the model's own: split into heads, normalised and rotated as the model does it. A torch function mode reads
them without patching anything, and only while a module of interest runs. Attention that is computed in another way
(linear attention, sliced or xFormers processors) is not seen here, and is reported as such.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils.hooks import RemovableHandle

_Callback = Callable[[Tensor, Tensor, dict[str, Any]], None]


class AttentionCalls(TorchFunctionMode):
    """While entered, calls the callbacks of watched modules with the arguments of each of their attention calls.

    Args:
        switch_off: make every attention call return its queries, so that nothing flows from one token to another; it
            is still computed, so that its operations can be counted.
    """

    def __init__(self, *, switch_off: bool = False) -> None:
        super().__init__()
        self._switch_off = switch_off
        self._callbacks: dict[nn.Module, list[_Callback]] = {}
        self._running: list[nn.Module] = []

    def watch(self, module: nn.Module, callback: _Callback) -> list[RemovableHandle]:
        """Call `callback(query, key, options)` for each attention call that `module` makes; returns hooks to remove."""
        self._callbacks.setdefault(module, []).append(callback)
        if len(self._callbacks[module]) > 1:
            return []

        def enter(_: nn.Module, args: tuple[Any, ...]) -> None:
            self._running.append(module)

        def leave(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._running.pop()

        return [
            module.register_forward_pre_hook(enter),
            module.register_forward_hook(leave, always_call=True),
        ]

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if function is not functional.scaled_dot_product_attention:
            return function(*args, **kwargs)
        given = {**dict(zip(_PARAMETERS, args, strict=False)), **kwargs}
        if self._running:
            for callback in self._callbacks[self._running[-1]]:
                callback(given["query"], given["key"], given)
        found = function(*args, **kwargs)
        if self._switch_off:
            width = given["value"].shape[-1]
            return functional.pad(given["query"], (0, width - given["query"].shape[-1]))
        return found


_PARAMETERS = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")


def attention_map(
    query: Float[Tensor, "batch heads queries width"],
    key: Float[Tensor, "batch key_heads keys width"],
    options: dict[str, Any],
) -> Float[Tensor, "batch queries keys"]:
    """softmax(scale q k' + mask), averaged over heads, in float32; one head at a time, to bound memory.

    Args:
        query: after the model's own norms and rotary embedding.
        key: likewise; several heads of queries may share one of keys.
        options: the other arguments of `scaled_dot_product_attention` (`attn_mask`, `is_causal`, `scale`).
    """
    scale = options.get("scale") or query.shape[-1] ** -0.5
    mask = options.get("attn_mask")
    heads, shared = query.shape[1], query.shape[1] // key.shape[1]
    total = query.new_zeros((query.shape[0], query.shape[2], key.shape[2]), dtype=torch.float32)
    for head in range(heads):
        scores = query[:, head].float() @ key[:, head // shared].float().transpose(1, 2) * scale
        if mask is not None:
            part = mask.expand(query.shape[0], heads, *scores.shape[1:])[:, head]
            scores = scores.masked_fill(~part, -torch.inf) if part.dtype == torch.bool else scores + part.float()
        if options.get("is_causal"):
            scores = scores.masked_fill(torch.ones_like(scores[0], dtype=torch.bool).triu(1), -torch.inf)
        total += scores.softmax(-1)
    return total / heads
