"""What each activation costs: the share of a pass's multiply-adds that were made when it is reached.

Counted are matrix products, convolutions and attention, as torch's own counter knows them; norms, sums and activation
functions are next to nothing beside them. Weights do not matter, so a network on the meta device does as well.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from .activation import Activation
from .attention import AttentionCalls
from .capture import watch_port

_Shape = tuple[int, ...]


def _attention_operations(query: _Shape, key: _Shape, value: _Shape, *_: Any, **__: Any) -> int:
    count: Any = sdpa_flop_count
    return int(count(query, key, value))


_aten = torch.ops.aten
_FUSED_ATTENTION: dict[Any, Any] = dict.fromkeys(
    (
        _aten._scaled_dot_product_flash_attention_for_cpu,
        _aten._scaled_dot_product_fused_attention_overrideable,
        _aten._scaled_dot_product_attention_math_for_mps,
    ),
    _attention_operations,
)
"""Attention of CPUs and other accelerators than NVIDIA's, which torch's counter does not know by itself."""


def operation_counter() -> FlopCounterMode:
    """Torch's counter, with attention on every device."""
    return FlopCounterMode(display=False, custom_mapping=_FUSED_ATTENTION)


@torch.inference_mode()
def operations_of(run: Callable[[], Any]) -> int:
    """Multiply-adds of what `run` runs, with two operations each; 0 where they cannot be counted."""
    try:
        with operation_counter() as counter:
            run()
    except RuntimeError:  # `operation_shares` warns of it
        return 0
    return int(counter.get_total_flops())


@torch.inference_mode()
def operation_shares(
    denoiser: nn.Module, run: Callable[[], Any], activations: Sequence[Activation]
) -> dict[str, float]:
    """The share of a whole pass's multiply-adds at or before each activation, above 0 to 1, by name.

    Args:
        denoiser: the module that `run` runs.
        run: makes one whole forward pass.
        activations: what is asked for; those without a module, and those not reached once, are left out.

    Returns:
        Empty where the network cannot be counted: it has no operation that the counter knows, or does not run under
        it, which is warned of.
    """
    counter, attention = operation_counter(), AttentionCalls()
    reached: dict[str, list[int]] = {}

    def noting(name: str) -> Callable[..., None]:
        return lambda *_: reached.setdefault(name, []).append(counter.get_total_flops())

    modules = dict(denoiser.named_modules())
    handles = []
    for entry in activations:
        if entry.parts or entry.unreadable or entry.module not in modules:
            continue
        module = modules[entry.module]
        if entry.port == "attention":
            handles += attention.watch(module, noting(entry.name))
        else:
            handles.append(watch_port(module, entry.port, noting(entry.name)))
    try:
        with ExitStack() as modes:
            if any(entry.port == "attention" for entry in activations):
                modes.enter_context(attention)
            modes.enter_context(counter)
            run()
    except RuntimeError as error:  # a tensor or an operation that goes through no dispatch of torch's
        warnings.warn(f"the operations of {type(denoiser).__name__} cannot be counted: {error}", stacklevel=2)
        return {}
    finally:
        for handle in handles:
            handle.remove()
    total = counter.get_total_flops()
    return {name: counts[0] / total for name, counts in reached.items() if len(counts) == 1} if total else {}
