"""Capture: read declared activations off one forward pass, with forward hooks and nothing else.

Hooks are global state of a module: while a capture is open, *every* forward pass through the denoiser feeds it. They
live in a context manager that removes exactly its own, also when an exception is raised. `torch.compile` replaces the
forward that hooks hang on, so a compiled denoiser is refused.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from diffsift.errors import CaptureError, did_you_mean

from .activation import Activation, Port
from .attention import AttentionCalls, attention_map


class _EverythingCaptured(Exception):  # noqa: N818 - control flow, not an error
    """Ends a forward pass once nothing deeper is needed."""


class Capture:
    """Context manager that holds the declared activations of one forward pass.

    Args:
        denoiser: the module that runs inside the ``with`` block, once.
        activations: the tensors to take; their names must be unique.
        stop_early: end the forward pass as soon as the last of them is reached (the default). The ``with`` block then
            ends there too, without an exception.
        take: called inside the pass with each activation and its tensor, which is then not held; default: all are
            held in `tensors`.

    Attributes:
        tensors: after the block, by name, what each module received or returned, bit for bit, in the layout that
            `Activation.layout` declares; `as_map` makes a feature map of it. Empty where `take` is given.

    Raises:
        CaptureError: a module does not exist, the denoiser is compiled, a module returned no tensor, or a hook did not
            fire exactly once.
    """

    def __init__(
        self,
        denoiser: nn.Module,
        activations: Sequence[Activation],
        *,
        stop_early: bool = True,
        take: Callable[[Activation, Tensor], None] | None = None,
    ) -> None:
        if any(_is_compiled(module) for module in denoiser.modules()):
            raise CaptureError(
                "neither the denoiser nor a part of it may be compiled, because hooks do not run inside a compiled "
                "module: capture first, or pass the module before torch.compile."
            )
        self._denoiser = denoiser
        self._activations = tuple(activations)
        self._stop_early = stop_early
        self._handles: list[RemovableHandle] = []
        self._fired: Counter[str] = Counter()
        # Reading every torch call costs time: only where attention maps are wanted.
        self._attention = AttentionCalls() if any(entry.port == "attention" for entry in activations) else None
        self._modes = ExitStack()
        self.tensors: dict[str, Tensor] = {}
        self._keep = self._hold if take is None else take

    def __enter__(self) -> Capture:
        modules = dict(self._denoiser.named_modules())
        try:
            for activation in self._activations:
                if activation.unreadable:
                    raise CaptureError(f"{activation.name} cannot be captured: {activation.unreadable}.")
                if activation.module not in modules:
                    raise CaptureError(
                        f"{activation.name} is read off module {activation.module!r}, which the denoiser does not "
                        f"have{did_you_mean(activation.module, modules)}"
                    )
                self._handles += self._hook(modules[activation.module], activation)
        except BaseException:
            self._remove()
            raise
        if self._attention is not None:
            self._modes.enter_context(self._attention)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._modes.close()
        self._remove()
        stopped = isinstance(error, _EverythingCaptured)
        if error is None or stopped:
            self._check()
        return stopped

    def _hook(self, module: nn.Module, activation: Activation) -> list[RemovableHandle]:
        def on_attention(query: Tensor, key: Tensor, options: dict[str, Any]) -> None:
            self._take(activation, attention_map(query, key, options))

        if self._attention is not None and activation.port == "attention":
            return self._attention.watch(module, on_attention)
        return [watch_port(module, activation.port, lambda value: self._take(activation, value))]

    def _take(self, activation: Activation, value: Any) -> None:
        given = tensors_in(value)
        if activation.item >= len(given):
            raise CaptureError(
                f"{activation.name} must be tensor {activation.item} of the output of {activation.module}, which has "
                f"{len(given)} in a {type(value).__name__}."
            )
        value = given[activation.item]
        self._fired[activation.name] += 1
        self._keep(activation, value.detach())
        if self._stop_early and len(self._fired) == len(self._activations):
            raise _EverythingCaptured

    def _hold(self, activation: Activation, value: Tensor) -> None:
        self.tensors[activation.name] = value

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


def watch_port(module: nn.Module, port: Port, take: Callable[[Any], None]) -> RemovableHandle:
    """Call `take` with each first input (port ``input``) or output of a module; returns the hook to remove."""

    def on_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        take(args[0] if args else next(iter(kwargs.values()), None))

    def on_output(_: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        take(output)

    if port == "input":
        return module.register_forward_pre_hook(on_input, with_kwargs=True)
    return module.register_forward_hook(on_output)


def _is_compiled(module: nn.Module) -> bool:
    return hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors that a module received or returned, in order: alone, in a tuple or list, or in a model output."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, tuple | list):
        return [entry for entry in value if isinstance(entry, Tensor)]
    sample = getattr(value, "sample", None)
    return [] if sample is None else tensors_in(sample)


def grid_size(input_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Rows and columns of an activation's grid.

    Args:
        input_size: rows and columns of the denoiser's input.
        stride: of the activation, a power of two.

    Returns:
        Rows and columns, in cells.

    Examples:
        >>> grid_size((65, 64), 2), grid_size((65, 64), 8)
        ((33, 32), (9, 8))
    """
    rows, columns = input_size
    while stride > 1:  # each downsampler halves, rounding up
        rows, columns, stride = (rows + 1) // 2, (columns + 1) // 2, stride // 2
    return rows, columns


def as_map(
    tensor: Tensor, activation: Activation, input_size: tuple[int, int]
) -> Float[Tensor, "batch channels rows columns"]:
    """A captured tensor as a feature map; text tokens are cut off.

    Args:
        tensor: as captured, in the activation's layout.
        activation: its declaration.
        input_size: rows and columns of the denoiser's input.

    Returns:
        The feature map, in the type and on the device of the tensor, and where possible a view of it. Its grid is the
        input's divided by the activation's stride, rounded up.

    Raises:
        CaptureError: the tensor does not have the declared channels and grid.
    """
    rows, columns = grid_size(input_size, activation.stride)
    locations = rows * columns
    given = tuple(tensor.shape)
    if activation.layout == "tokens-first" and tensor.ndim == 3:
        tensor = tensor.transpose(0, 1)
    channel_axis = 1 if activation.layout == "map" else -1
    if activation.columns is not None and tensor.shape[channel_axis] >= activation.columns[1]:
        start, stop = activation.columns
        tensor = tensor.narrow(channel_axis, start, stop - start)
    if activation.layout in ("tokens", "tokens-first"):
        if tensor.ndim == 3 and activation.tokens != "all" and tensor.shape[1] > locations:
            tensor = tensor[:, :locations] if activation.tokens == "first" else tensor[:, -locations:]
        expected: tuple[int, ...] = (tensor.shape[0], locations, activation.channels)
    elif activation.layout == "map-last":
        expected = (tensor.shape[0], rows, columns, activation.channels)
    else:
        expected = (tensor.shape[0], activation.channels, rows, columns)
    if tuple(tensor.shape) != expected:
        raise CaptureError(f"{activation.name} is declared as {expected}, but {activation.module} gave {given}.")
    if activation.layout in ("tokens", "tokens-first"):
        tensor = tensor.transpose(1, 2).reshape(tensor.shape[0], activation.channels, rows, columns)
    elif activation.layout == "map-last":
        tensor = tensor.permute(0, 3, 1, 2)
    return tensor
