"""Feature maps of some images: the backbones are run once for all candidates that are needed."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import TypeAlias

from jaxtyping import Float
from torch import Tensor

from diffsift.backbones import BackboneCache
from diffsift.datasets import Sample, image_tensors, prompts_of
from diffsift.spaces import Candidate, activations_by_timestep

CapturedMaps: TypeAlias = Iterator[tuple[Candidate, Float[Tensor, "batch channels rows columns"]]]
"""The feature maps of one candidate at a time, on the CPU; they can be iterated over once."""


def captured(
    samples: Sequence[Sample], needed: Collection[Candidate], backbones: BackboneCache, noise_seed: int
) -> CapturedMaps:
    """Run the backbones on a batch of images.

    Args:
        samples: the images that run together.
        needed: candidates of any backbones and timesteps.
        backbones: backbones by name.
        noise_seed: seed of the noise that is added to the images.

    Yields:
        Every needed candidate once, with its feature maps of all images.
    """
    for backbone, activations in backbones.each({candidate.backbone for candidate in needed}):
        wanted = activations_by_timestep(sorted(needed), backbone.name, activations)
        images = image_tensors([sample.image for sample in samples])
        for timestep, maps in backbone.capture(images, wanted, seed=noise_seed, prompts=prompts_of(samples)):
            for name, feature_map in maps.items():
                yield Candidate(backbone.name, name, timestep), feature_map.cpu()
