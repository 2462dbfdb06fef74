"""Outputs of fitted heads at every pixel of test images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from diffsift.backbones import FeatureMap
from diffsift.bank import all_locations
from diffsift.datasets import Sample
from diffsift.extraction import sample_map
from diffsift.spaces import Candidate

from ._base import FittedSelection, head_of
from ._capturing import CapturedMaps
from .probes import Head

_SUMS_AT_ONCE = 16_000_000
"""Sums in memory while a map is enlarged, 4 bytes each."""

_Take: TypeAlias = Callable[[Float32[Tensor, "images channels cells"]], Float32[Tensor, "images _ cells"]]

_VALUES_AT_ONCE = 16_000_000
"""Values of a map in half precision that are in float32 at once, 4 bytes each."""


def dense_outputs(
    samples: Sequence[Sample], maps: CapturedMaps, fitted: Sequence[FittedSelection]
) -> dict[str, list[Float[Tensor, "outputs _ _"]]]:
    """The outputs of each head at every label pixel.

    A head's sums are linear, so they are formed inside the pass on each activation's native grid, those on the same
    grid are added up, and only the result is copied to the CPU and enlarged: the same as from enlarged features, at a
    fraction of the time and memory.

    Args:
        samples: the images of a batch.
        maps: their feature maps, of every candidate that the selections hold.
        fitted: selections with their heads.

    Returns:
        By the selection's name, the outputs for each image, at the resolution of its label.
    """
    on_grid: dict[str, Tensor] = {}
    for found in maps.sums(partial(_sums, fitted)):
        for key, sums in found.items():
            on_grid[key] = on_grid[key] + sums if key in on_grid else sums
    outputs = {}
    shapes = [(sample.label.shape[0], sample.label.shape[1]) for sample in samples]
    for number, entry in enumerate(fitted):
        own = [sums for key, sums in on_grid.items() if key.startswith(f"{number} ")]
        outputs[entry.name] = [
            _at_pixels(head_of(entry), [sums[index : index + 1] for sums in own], shape)
            for index, shape in enumerate(shapes)
        ]
    return outputs


def _sums(
    fitted: Sequence[FittedSelection], candidate: Candidate, feature_map: FeatureMap
) -> dict[str, Float32[Tensor, "batch _ rows columns"]]:
    """A candidate's part of the sums of every selection that holds it, by the selection's position and the grid.

    Heads with fewer sums than features are folded into one matrix, side by side; those with a sum for each of many
    exemplars take standardised and projected features.
    """
    values = feature_map.values
    device, (rows, columns) = values.device, values.shape[2:]
    holding = [(number, entry) for number, entry in enumerate(fitted) if candidate in entry.standardisers]
    found: dict[str, Tensor] = {}
    for folds in (True, False):
        chosen = [(number, entry) for number, entry in holding if _folds(entry, candidate) == folds]
        if not chosen:
            continue
        entries = [entry for _, entry in chosen]
        take = (_folded if folds else _projected)(entries, candidate, device)
        sums = _applied(take, values).reshape(len(values), -1, rows, columns)
        parts = torch.split(sums, [_width(entry) for entry in entries], dim=1)
        found |= {f"{number} {rows}x{columns}": part for (number, _), part in zip(chosen, parts, strict=True)}
    return found


def _width(entry: FittedSelection) -> int:
    return len(head_of(entry).intercept)


def _folds(entry: FittedSelection, candidate: Candidate) -> bool:
    return _width(entry) <= entry.standardisers[candidate].channels


def _folded(entries: Sequence[FittedSelection], candidate: Candidate, device: torch.device) -> _Take:
    # The mean is no part of the product: beside large means the differences that matter would be rounded away.
    mean = entries[0].standardisers[candidate].mean.to(device)[:, None]
    matrix = torch.cat([entry.folded(candidate) for entry in entries], dim=1).to(device)
    return lambda values: matrix.T @ (values - mean)


def _projected(entries: Sequence[FittedSelection], candidate: Candidate, device: torch.device) -> _Take:
    standardiser = entries[0].standardisers[candidate].to(device)
    weights = [torch.from_numpy(head_of(entry).weights[candidate]) for entry in entries]
    matrix = torch.cat(weights, dim=1).to(device)
    return lambda values: (standardiser.apply(values.transpose(1, 2)) @ matrix).transpose(1, 2)


def _applied(take: _Take, values: Float[Tensor, "batch channels rows columns"]) -> Float32[Tensor, "batch _ cells"]:
    """What a function returns for a map, of which some values at a time are converted to float32."""
    flat = values.flatten(2)
    _, channels, cells = flat.shape
    images, together = max(1, _VALUES_AT_ONCE // (channels * cells)), max(1, _VALUES_AT_ONCE // channels)
    parts = [
        [take(part.to(torch.float32)) for part in torch.split(some, together, dim=2)]
        for some in torch.split(flat, images)
    ]
    return torch.cat([torch.cat(own, dim=2) for own in parts])


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
