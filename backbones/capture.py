"""Capture: read declared activations off one forward pass, with forward hooks and nothing else.

Hooks are global state of a module: while a capture is open, *every* forward pass through the denoiser feeds it. They
live in a context manager that removes exactly its own, also when an exception passes through. `torch.compile` replaces
the forward that hooks hang on, so a compiled denoiser is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffsift.errors import CaptureError, did_you_mean

from .activation import Activation


class _EverythingCaptured(Exception):  # noqa: N818 - control flow, not an error
    """Ends a forward pass once nothing deeper is needed."""


class Capture:
    """Context manager that holds the declared activations of one forward pass.

    Args:
        denoiser: the module that runs inside the ``with`` block.
        activations: what to take; names must be unique.
        stop_early: end the forward pass as soon as the last of them was reached. The ``with`` block then ends there
            too, without an exception.

    After the block, `tensors` maps each name to what the module received or returned, bit for bit.

    Raises:
        CaptureError: a module does not exist, the denoiser is compiled, a module returned no tensor, or a hook did not
            fire exactly once.
    """

    def __init__(self, denoiser: nn.Module, activations: Sequence[Activation], *, stop_early: bool = True) -> None:
        if hasattr(denoiser, "_orig_mod") or getattr(denoiser, "_compiled_call_impl", None) is not None:
            raise CaptureError(
                "the denoiser must not be compiled, because hooks never fire inside a compiled module: "
                "capture first, or pass the module that torch.compile was given."
            )
        self._denoiser = denoiser
        self._activations = tuple(activations)
        self._stop_early = stop_early
        self._handles: list[RemovableHandle] = []
        self._fired: Counter[str] = Counter()
        self.tensors: dict[str, Tensor] = {}

    def __enter__(self) -> Self:
        modules = dict(self._denoiser.named_modules())
        try:
            for activation in self._activations:
                if activation.module not in modules:
                    raise CaptureError(
                        f"{activation.name} is read off module {activation.module!r}, which the denoiser does not "
                        f"have{did_you_mean(activation.module, modules)}"
                    )
                self._handles.append(self._hook(modules[activation.module], activation))
        except BaseException:
            self._remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._remove()
        stopped = isinstance(error, _EverythingCaptured)
        if error is None or stopped:
            self._check()
        return stopped

    def _hook(self, module: nn.Module, activation: Activation) -> RemovableHandle:
        def on_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            self._take(activation, args[0] if args else next(iter(kwargs.values()), None))

        def on_output(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
            self._take(activation, output)

        if activation.port == "input":
            return module.register_forward_pre_hook(on_input, with_kwargs=True)
        return module.register_forward_hook(on_output)

    def _take(self, activation: Activation, value: Any) -> None:
        if isinstance(value, tuple):
            value = value[0]
        value = getattr(value, "sample", value)
        if not isinstance(value, Tensor):
            raise CaptureError(
                f"{activation.name} must be a tensor, but {activation.module} gave a {type(value).__name__}."
            )
        self._fired[activation.name] += 1
        self.tensors[activation.name] = value.detach()
        if self._stop_early and len(self._fired) == len(self._activations):
            raise _EverythingCaptured

    def _check(self) -> None:
        for activation in self._activations:
            times = self._fired[activation.name]
            if times != 1:
                raise CaptureError(
                    f"{activation.name} must be reached once in a forward pass, but its module {activation.module} "
                    f"ran {times} times: it cannot be used as a feature of this model."
                )

    def _remove(self) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def grid_size(input_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of an activation, from the denoiser's input grid and the activation's stride.

    Examples:
        >>> grid_size((65, 64), 2), grid_size((65, 64), 8)
        ((33, 32), (9, 8))
    """
    rows, columns = input_size
    while stride > 1:  # each downsampler halves, rounding up
        rows, columns, stride = (rows + 1) // 2, (columns + 1) // 2, stride // 2
    return rows, columns


def as_map(tensor: Tensor, activation: Activation, input_size: tuple[int, int]) -> Tensor:
    """A captured tensor as a float32 feature map (batch, channels, rows, columns).

    Raises:
        CaptureError: the tensor does not have the declared channels and grid.
    """
    rows, columns = grid_size(input_size, activation.stride)
    expected: tuple[int, ...]
    if activation.layout == "tokens":
        expected = (tensor.shape[0], rows * columns, activation.channels)
    else:
        expected = (tensor.shape[0], activation.channels, rows, columns)
    if tuple(tensor.shape) != expected:
        raise CaptureError(
            f"{activation.name} is declared as {expected}, but {activation.module} gave {tuple(tensor.shape)}."
        )
    if activation.layout == "tokens":
        tensor = tensor.transpose(1, 2).reshape(tensor.shape[0], activation.channels, rows, columns)
    return tensor.to(torch.float32)
