"""Reading: what is kept of a feature map while a pass is in it, so that no more than one is held whole at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from ._resizing import crop_content
from .activation import Activation
from .capture import as_map


@dataclass(frozen=True)
class FeatureMap:
    """The feature map of one activation for some images of a batch, as the denoiser made it.

    Attributes:
        activation: its declaration.
        timestep: of the pass.
        values: in the type of the denoiser, on its device; a view that does not outlive the reader's call.
        images: which images of the batch.
    """

    activation: Activation
    timestep: int
    values: Float[Tensor, "batch channels rows columns"]
    images: slice


Reader: TypeAlias = Callable[[FeatureMap], Tensor | Mapping[str, Tensor]]
"""Cuts a feature map down to what is needed: a tensor with one row per image, which does not share its memory.

It may return several by names of its own. Those of the same name are added up over the activations of the pass, so
that sums over many activations take the memory of one.

It is called inside the pass, on the device. Where several noise draws are averaged, the average is taken over what it
returns: that is what it would return for the averaged map only where it is affine in the values.
"""


def whole_map(feature_map: FeatureMap) -> Float[Tensor, "batch channels rows columns"]:
    """The reader that keeps everything, in float32.

    Args:
        feature_map: any.

    Returns:
        A copy of its values.
    """
    return feature_map.values.to(torch.float32, copy=True)


def on_cpu(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copy what a reader kept to the CPU in one transfer: the device is waited for once, not once for each.

    Args:
        found: tensors of one type, on one device.

    Returns:
        The same by name; the same tensors where they are on the CPU already.
    """
    if not found or next(iter(found.values())).device.type == "cpu":
        return dict(found)
    flat = torch.cat([tensor.flatten() for tensor in found.values()])
    host = torch.empty(flat.shape, dtype=flat.dtype, pin_memory=flat.device.type == "cuda").copy_(flat)
    parts = torch.split(host, [tensor.numel() for tensor in found.values()])
    return {name: part.view(found[name].shape) for name, part in zip(found, parts, strict=True)}


class PassReading:
    """Applies a reader to the activations of one pass, each as soon as the pass has reached it.

    Args:
        activations: what is wanted; the mean of several is read when its last part is there.
        read: the reader.
        timestep: of the pass.
        images: the images of the batch that are in it.
        boxes: where the images' content lies, as `resize_images` gives it for these images.

    Attributes:
        timestep: of the pass.
        sources: the activations to capture.
    """

    def __init__(
        self,
        activations: Sequence[Activation],
        read: Reader,
        *,
        timestep: int,
        images: slice,
        boxes: Float[Tensor, "batch 4"] | None,
    ) -> None:
        self._single = {entry.name for entry in activations if not entry.parts}
        self._means = [entry for entry in activations if entry.parts]
        self._read, self.timestep, self._images, self._boxes = read, timestep, images, boxes
        self._held: dict[str, Tensor] = {}
        self.sources = list(dict.fromkeys(part for entry in activations for part in entry.parts or (entry,)))
        self._found: dict[str, Tensor] = {}
        self._read_means: set[str] = set()

    def take(self, source: Activation, tensor: Tensor, input_size: tuple[int, int]) -> None:
        """Read what a captured tensor is wanted for.

        Args:
            source: one of `sources`.
            tensor: as captured.
            input_size: rows and columns of the denoiser's input.
        """
        values = as_map(tensor, source, input_size)
        if source.name in self._single:
            self._keep(source, values)
        for mean in self._means:
            names = {part.name for part in mean.parts}
            if source.name not in names:
                continue
            self._held[source.name] = values.to(torch.float32)
            if names <= set(self._held):
                self._keep(mean, _mean([self._held[part.name] for part in mean.parts]))
                self._read_means.add(mean.name)
        still = {part.name for mean in self._means if mean.name not in self._read_means for part in mean.parts}
        self._held = {name: held for name, held in self._held.items() if name in still}

    def finished(self) -> dict[str, Tensor]:
        """What the reader returned in the pass that ended, by the activation's name or its own; another may follow."""
        found, self._found = self._found, {}
        self._read_means.clear()
        return found

    def _keep(self, activation: Activation, values: Tensor) -> None:
        if self._boxes is not None:
            values = crop_content(values.to(torch.float32), self._boxes)
        read = self._read(FeatureMap(activation, self.timestep, values, self._images))
        for name, value in (read if isinstance(read, Mapping) else {activation.name: read}).items():
            self._found[name] = self._found[name] + value if name in self._found else value


def _mean(parts: Sequence[Tensor]) -> Float[Tensor, "batch channels rows columns"]:
    """The mean of maps on the finest of their grids."""
    finest = max((entry.shape[-2:] for entry in parts), key=math.prod)
    enlarged = [
        entry if entry.shape[-2:] == finest else functional.interpolate(entry, finest, mode="bilinear")
        for entry in parts
    ]
    return torch.stack(enlarged).mean(0)
