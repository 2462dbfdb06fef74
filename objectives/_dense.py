"""Running the backbones on test images, and the fast probes' heads at every pixel."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffsift.backbones import BackboneCache
from diffsift.bank.locations import all_locations
from diffsift.common.context import RunContext
from diffsift.datasets import Sample, image_tensors, prompts_of
from diffsift.extraction import sample_map
from diffsift.spaces import Candidate, activations_by_timestep

from ._base import FittedSelection
from .probes import Head

_SUMS_PER_PLACE = 4096
"""Of a head over all images of a batch, at most; one image always runs."""
_SUMS_AT_ONCE = 16_000_000
"""In memory while a map is enlarged, 4 bytes each."""


def batches(
    samples: Sequence[Sample], context: RunContext, contenders: Sequence[FittedSelection] = ()
) -> Iterator[list[Sample]]:
    """Test samples, a batch at a time; a smaller one where a contender's head takes very many sums at every place."""
    widest = max((len(head_of(contender).intercept) for contender in contenders), default=1)
    size = min(context.batch_size, max(1, _SUMS_PER_PLACE // widest))
    with context.reporter.progress(len(samples), "test split", "image") as bar:
        for start in range(0, len(samples), size):
            batch = [samples[index] for index in range(start, min(start + size, len(samples)))]
            yield batch
            bar.update(len(batch))


def head_of(contender: FittedSelection) -> Head:
    """The contender's fitted head."""
    if not isinstance(contender.head, Head):
        raise ValueError(f"{contender.name} must have a fitted head, but has {contender.head}.")
    return contender.head


def dense_outputs(
    batch: Sequence[Sample], contenders: Sequence[FittedSelection], backbones: BackboneCache, noise_seed: int
) -> dict[str, list[Float[Tensor, "outputs height width"]]]:
    """Outputs at every label pixel.

    A head's sums are linear, so they are formed on each activation's native grid, those on the same grid are added up,
    and only the result is enlarged: the same as from enlarged features, at a fraction of the time and memory.
    """
    on_grid: dict[tuple[str, torch.Size], Tensor] = {}
    for candidate, feature_map in captured(batch, needed_by(contenders), backbones, noise_seed):
        grid = feature_map.shape[-2:]
        channels_last = feature_map.permute(0, 2, 3, 1)
        for contender in contenders:
            if candidate not in contender.standardisers:
                continue
            standardised = contender.standardisers[candidate].apply(channels_last)
            weights = torch.from_numpy(head_of(contender).weights[candidate])
            sums = (standardised @ weights).permute(0, 3, 1, 2)
            key = (contender.name, grid)
            on_grid[key] = on_grid[key] + sums if key in on_grid else sums
    outputs = {}
    for contender in contenders:
        maps = [sums for (name, _), sums in on_grid.items() if name == contender.name]
        outputs[contender.name] = [
            _at_pixels(head_of(contender), [sums[index : index + 1] for sums in maps], sample.label.shape)
            for index, sample in enumerate(batch)
        ]
    return outputs


def _at_pixels(
    head: Head, maps: Sequence[Float[Tensor, "1 sums rows columns"]], shape: tuple[int, int]
) -> Float[Tensor, "outputs height width"]:
    """A head's outputs at the centers of an image's pixels, from its sums on several grids; some pixels at a time."""
    height, width = shape
    points = torch.from_numpy(all_locations(np.zeros(shape, np.uint8)).points)
    intercept = torch.from_numpy(head.intercept)
    found = []
    for chunk in torch.split(points, max(1, _SUMS_AT_ONCE // len(intercept))):
        sums = intercept + sum(sample_map(sums_map, chunk[None])[0] for sums_map in maps)
        found.append(torch.from_numpy(head.outputs(sums.numpy())))
    return torch.cat(found).T.reshape(-1, height, width)


def needed_by(contenders: Sequence[FittedSelection]) -> set[Candidate]:
    """The candidates that contenders are made of."""
    return {candidate for contender in contenders for candidate in contender.standardisers}


def captured(
    batch: Sequence[Sample], needed: Collection[Candidate], backbones: BackboneCache, noise_seed: int
) -> Iterator[tuple[Candidate, Float[Tensor, "batch channels rows columns"]]]:
    """The feature maps of every needed candidate, once, on the CPU."""
    for backbone, activations in backbones.each({candidate.backbone for candidate in needed}):
        wanted = activations_by_timestep(sorted(needed), backbone.name, activations)
        images = image_tensors([sample.image for sample in batch])
        for timestep, maps in backbone.capture(images, wanted, seed=noise_seed, prompts=prompts_of(batch)):
            for name, feature_map in maps.items():
                yield Candidate(backbone.name, name, timestep), feature_map.cpu()
