"""The cost of each activation: the share of a pass's multiply-adds made before it is reached.

Torch's own counter counts matrix products, convolutions and attention; norms, sums and activation functions are
negligible beside them. Weights do not matter, so a network on the meta device will do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from diffsift.common.reporting import LOGGER

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
"""Attention on CPUs and on accelerators other than NVIDIA's, which torch's counter does not count by itself."""


def operation_counter() -> FlopCounterMode:
    """Torch's counter, with attention on every device."""
    return FlopCounterMode(display=False, custom_mapping=_FUSED_ATTENTION)


@torch.inference_mode()
def operations_of(run: Callable[[], Any]) -> int:
    """Count the operations of a function.

    Args:
        run: runs a network on any device, the meta device included.

    Returns:
        Two for each multiply-add; 0 where they cannot be counted.
    """
    try:
        with operation_counter() as counter:
            run()
    except RuntimeError:  # `operation_shares` says so
        return 0
    return int(counter.get_total_flops())


@torch.inference_mode()
def operation_shares(
    denoiser: nn.Module, run: Callable[[], Any], activations: Sequence[Activation]
) -> dict[str, float]:
    """The share of a whole pass's multiply-adds at or before each activation.

    Args:
        denoiser: the module that `run` runs.
        run: makes one whole forward pass.
        activations: the catalogue; entries without a module, and those not reached exactly once, are left out.

    Returns:
        Shares by name, each above 0 and at most 1. Empty where the network cannot be counted: it has no operation that
        the counter knows, or does not run under it (the logger ``diffsift`` warns then).
    """
    counter, attention = operation_counter(), AttentionCalls()
    reached: dict[str, list[int]] = {}

    def record(name: str) -> Callable[..., None]:
        return lambda *_: reached.setdefault(name, []).append(counter.get_total_flops())

    modules = dict(denoiser.named_modules())
    handles = []
    for entry in activations:
        if entry.parts or entry.unreadable or entry.module not in modules:
            continue
        module = modules[entry.module]
        if entry.port == "attention":
            handles += attention.watch(module, record(entry.name))
        else:
            handles.append(watch_port(module, entry.port, record(entry.name)))
    try:
        with ExitStack() as modes:
            if any(entry.port == "attention" for entry in activations):
                modes.enter_context(attention)
            modes.enter_context(counter)
            run()
    except RuntimeError as error:  # a tensor or an operation that goes through no dispatch of torch's
        LOGGER.warning("the operations of %s cannot be counted: %s", type(denoiser).__name__, error)
        return {}
    finally:
        for handle in handles:
            handle.remove()
    total = counter.get_total_flops()
    return {name: counts[0] / total for name, counts in reached.items() if len(counts) == 1} if total else {}
