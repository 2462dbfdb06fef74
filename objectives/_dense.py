"""Running the backbones on test images, and ridge heads at every pixel."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from diffsift.backbones import Activation
from diffsift.spaces import Candidate, Shelf, resample_map

from ._base import Contender
from .bank import image_tensors, prompts_of
from .datasets import Sample
from .probes import RidgeHead


def batches(samples: Sequence[Sample], size: int, progress: bool) -> Iterator[list[Sample]]:
    """Test samples, `size` at a time."""
    for start in tqdm(range(0, len(samples), size), desc="test split", unit="batch", disable=not progress):
        yield [samples[index] for index in range(start, min(start + size, len(samples)))]


def head_of(contender: Contender) -> RidgeHead:
    """The contender's fitted head."""
    if not isinstance(contender.head, RidgeHead):
        raise ValueError(f"{contender.name} must have a fitted head, but has {contender.head}.")
    return contender.head


def dense_outputs(
    batch: Sequence[Sample], contenders: Sequence[Contender], shelf: Shelf, noise_seed: int
) -> dict[str, list[Float[Tensor, "outputs height width"]]]:
    """Outputs at every label pixel.

    The head is linear, so it is applied on each activation's native grid, outputs on the same grid are added up, and
    only their sum is enlarged: the same result as from enlarged features, at a fraction of the time and memory.
    """
    on_grid: dict[tuple[str, torch.Size], Tensor] = {}
    for candidate, feature_map in captured(batch, needed_by(contenders), shelf, noise_seed):
        grid = feature_map.shape[-2:]
        channels_last = feature_map.permute(0, 2, 3, 1)
        for contender in contenders:
            if candidate not in contender.standardisers:
                continue
            standardised = contender.standardisers[candidate].apply(channels_last)
            weights = torch.from_numpy(head_of(contender).weights[candidate])
            scores = (standardised @ weights).permute(0, 3, 1, 2)
            key = (contender.name, grid)
            on_grid[key] = on_grid[key] + scores if key in on_grid else scores
    outputs = {}
    for contender in contenders:
        maps = [scores for (name, _), scores in on_grid.items() if name == contender.name]
        intercept = torch.from_numpy(head_of(contender).intercept)[:, None, None]
        outputs[contender.name] = [
            intercept + sum(resample_map(scores[index : index + 1], sample.label.shape)[0] for scores in maps)
            for index, sample in enumerate(batch)
        ]
    return outputs


def needed_by(contenders: Sequence[Contender]) -> set[Candidate]:
    """The candidates that contenders are made of."""
    return {candidate for contender in contenders for candidate in contender.standardisers}


def captured(
    batch: Sequence[Sample], needed: Collection[Candidate], shelf: Shelf, noise_seed: int
) -> Iterator[tuple[Candidate, Float[Tensor, "batch channels rows columns"]]]:
    """The feature maps of every needed candidate, once, on the CPU."""
    for backbone, activations in shelf.each({candidate.backbone for candidate in needed}):
        wanted: dict[int, list[Activation]] = {}
        for candidate in sorted(needed):
            if candidate.backbone == backbone.name:
                wanted.setdefault(candidate.timestep, []).append(activations[candidate.activation])
        images = image_tensors([sample.image for sample in batch])
        for timestep, maps in backbone.capture(images, wanted, seed=noise_seed, prompts=prompts_of(batch)):
            for name, feature_map in maps.items():
                yield Candidate(backbone.name, name, timestep), feature_map.cpu()
