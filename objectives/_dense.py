"""Outputs of fitted heads at every pixel of test images."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffsift.bank import all_locations
from diffsift.datasets import Sample
from diffsift.extraction import sample_map

from ._base import FittedSelection
from ._capturing import CapturedMaps
from .probes import Head

_SUMS_AT_ONCE = 16_000_000
"""Sums in memory while a map is enlarged, 4 bytes each."""


def head_of(fitted: FittedSelection) -> Head:
    """The head of a fitted selection.

    Args:
        fitted: of a task whose probe fits one.

    Returns:
        The head.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(fitted.head, Head):
        raise ValueError(f"{fitted.name} must have a fitted head, but has {fitted.head}.")
    return fitted.head


def dense_outputs(
    samples: Sequence[Sample], maps: CapturedMaps, fitted: Sequence[FittedSelection]
) -> dict[str, list[Float[Tensor, "outputs _ _"]]]:
    """The outputs of each head at every label pixel.

    A head's sums are linear, so they are formed on each activation's native grid, those on the same grid are added up,
    and only the result is enlarged: the same as from enlarged features, at a fraction of the time and memory.

    Args:
        samples: the images of a batch.
        maps: their feature maps, of every candidate that the selections hold.
        fitted: selections with their heads.

    Returns:
        By the selection's name, the outputs for each image, at the resolution of its label.
    """
    on_grid: dict[tuple[str, torch.Size], Tensor] = {}
    for candidate, feature_map in maps:
        grid = feature_map.shape[-2:]
        channels_last = feature_map.permute(0, 2, 3, 1)
        for entry in fitted:
            if candidate not in entry.standardisers:
                continue
            standardised = entry.standardisers[candidate].apply(channels_last)
            weights = torch.from_numpy(head_of(entry).weights[candidate])
            sums = (standardised @ weights).permute(0, 3, 1, 2)
            key = (entry.name, grid)
            on_grid[key] = on_grid[key] + sums if key in on_grid else sums
    outputs = {}
    shapes = [(sample.label.shape[0], sample.label.shape[1]) for sample in samples]
    for entry in fitted:
        own = [sums for (name, _), sums in on_grid.items() if name == entry.name]
        outputs[entry.name] = [
            _at_pixels(head_of(entry), [sums[index : index + 1] for sums in own], shape)
            for index, shape in enumerate(shapes)
        ]
    return outputs


def _at_pixels(
    head: Head, maps: Sequence[Float[Tensor, "1 sums _ _"]], shape: tuple[int, int]
) -> Float[Tensor, "outputs height width"]:
    """A head's outputs at the centers of an image's pixels, from its sums on several grids; some pixels at a time."""
    height, width = shape
    points = torch.from_numpy(all_locations(np.zeros(shape, np.uint8)).points)
    intercept = torch.from_numpy(head.intercept)
    outputs = []
    for chunk in torch.split(points, max(1, _SUMS_AT_ONCE // len(intercept))):
        sums = intercept + sum(sample_map(sums_map, chunk[None])[0] for sums_map in maps)
        outputs.append(torch.from_numpy(head.outputs(sums.numpy())))
    return torch.cat(outputs).T.reshape(-1, height, width)
