"""Feature maps of some images: the backbones are run once for all candidates that are needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from typing import TypeAlias

from jaxtyping import Float, Float32
from torch import Tensor

from diffsift.backbones import BackboneCache, FeatureMap, on_cpu, whole_map
from diffsift.datasets import Sample, pixel_tensors, prompts_of
from diffsift.extraction import sample_map
from diffsift.spaces import Candidate, activations_by_timestep

from ._base import FittedSelection

CandidateReader: TypeAlias = Callable[[Candidate, FeatureMap], Tensor]
"""Cuts the feature map of a candidate down to what is needed; see `diffsift.backbones.Reader`."""

SumReader: TypeAlias = Callable[[Candidate, FeatureMap], Mapping[str, Tensor]]
"""Returns tensors by names of its own; those of one name are added up over the candidates of a pass."""


class CapturedMaps:
    """The feature maps of a batch of images. The backbones run when they are read; read them once.

    Iterating yields every candidate with its whole map, in float32 on the CPU: (batch, channels, rows, columns). That
    takes much memory, so read what you need with `read` or `sums`.

    Args:
        samples: the images that run together.
        needed: candidates of any backbones and timesteps.
        backbones: backbones by name.
        noise_seed: seed of the noise that is added to the images.
    """

    def __init__(
        self, samples: Sequence[Sample], needed: Collection[Candidate], backbones: BackboneCache, noise_seed: int
    ) -> None:
        self._samples, self._needed, self._backbones, self._seed = samples, needed, backbones, noise_seed

    def __iter__(self) -> Iterator[tuple[Candidate, Float[Tensor, "batch channels rows columns"]]]:
        return self.read(lambda _, feature_map: whole_map(feature_map))

    def read(self, read: CandidateReader) -> Iterator[tuple[Candidate, Tensor]]:
        """Run the backbones.

        Args:
            read: called inside the pass, on the device, with each candidate's feature map.

        Yields:
            Every needed candidate once, with what was read of all images, on the CPU.
        """
        for backbone, timestep, found in self._passes(read):
            for name in list(found):
                yield Candidate(backbone, name, timestep), found.pop(name)

    def sums(self, read: SumReader) -> Iterator[dict[str, Tensor]]:
        """Run the backbones, where only sums over candidates are needed.

        Args:
            read: called inside the pass, on the device, with each candidate's feature map.

        Yields:
            For each backbone and timestep the sums of all images by name, on the CPU.
        """
        for _, _, found in self._passes(read):
            yield found

    def _passes(self, read: CandidateReader | SumReader) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
        used = {candidate.backbone for candidate in self._needed}
        images, prompts = pixel_tensors([sample.image for sample in self._samples]), prompts_of(self._samples)

        def of_backbone(name: str, entry: FeatureMap) -> Tensor | Mapping[str, Tensor]:
            return read(Candidate(name, entry.activation.name, entry.timestep), entry)

        for backbone, activations in self._backbones.each(used):
            wanted = activations_by_timestep(sorted(self._needed), backbone.name, activations)
            reader = partial(of_backbone, backbone.name)
            for timestep, found in backbone.capture(images, wanted, seed=self._seed, prompts=prompts, read=reader):
                yield backbone.name, timestep, on_cpu(found)


def standardised_at(points: Float32[Tensor, "images points 2"], fitted: Sequence[FittedSelection]) -> CandidateReader:
    """A reader of standardised features at points of each image, projected where the bank projects them.

    Args:
        points: (x, y) in [0, 1] for each image of the batch.
        fitted: selections that are tested together.

    Returns:
        It returns float32 values (images, points, components).
    """
    standardisers = {candidate: own for entry in fitted for candidate, own in entry.standardisers.items()}

    def read(candidate: Candidate, feature_map: FeatureMap) -> Tensor:
        values = feature_map.values
        sampled = sample_map(values, points[feature_map.images].to(values.device))
        return standardisers[candidate].to(values.device).apply(sampled)

    return read
