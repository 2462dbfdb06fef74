"""Measuring: images stream through a backbone once per timestep and noise seed; activations are not stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from diffsift.backbones import Activation, ActivationsByTimestep, Backbone
from diffsift.common.reporting import NullReporter, Reporter
from diffsift.errors import SpecificationError

from ..selection import Candidate
from ._accumulate import Properties, Statistics
from ._reading import CHANNELS, WINDOW, PropertyReader

_HELD = 256_000_000
"""Bytes of one batch's readings, where one image under all seeds takes less."""


def measure_properties(
    backbone: Backbone,
    images: Float[Tensor, "images 3 height width"] | Sequence[Float[Tensor, "3 _ _"]],
    wanted: ActivationsByTimestep,
    *,
    seeds: Sequence[int] = (0, 1, 2, 3),
    batch_size: int = 16,
    reporter: Reporter | None = None,
) -> dict[Candidate, Properties]:
    """Measure the properties of activations at several timesteps, without labels.

    Of each feature map no more is kept than a window of some channels and the energy of every channel. One timestep is
    measured after the other, so that memory does not grow with their number, nor with that of the images.

    Args:
        backbone: the network to run.
        images: RGB in [0, 1], at least two; a few dozen are enough.
        wanted: activations by timestep; those that cannot be captured are left out.
        seeds: noise seeds, at least two; four (the default) give `locality` without a bias from noise.
        batch_size: images that run together at most, each under one seed.
        reporter: shows the progress, one step for each pass; by default it is not shown.

    Returns:
        Properties by candidate, for each activation at each timestep. Where the backbone averages over noise draws,
        they are those of the average, but for `outliers`, which is that of single draws.

    Raises:
        SpecificationError: there are fewer than two images or seeds.
    """
    if len(images) < 2 or len(set(seeds)) < 2:
        raise SpecificationError(
            f"properties must be measured on at least two images under two noise seeds, but got {len(images)} images "
            f"and {len(set(seeds))} seeds."
        )
    found: dict[Candidate, Properties] = {}
    with (reporter or NullReporter()).progress(len(images) * len(wanted) * len(seeds), "properties", "pass") as bar:
        for timestep, activations in wanted.items():
            measuring = _OneTimestep([entry for entry in activations if not entry.unreadable], len(seeds))
            pairs = [(image, seed) for image in images for seed in seeds]
            together = measuring.together(batch_size)
            for start in range(0, len(pairs), together):
                part = pairs[start : start + together]
                own = [seed for _, seed in part]
                for _, rows in backbone.capture(
                    [image for image, _ in part], {timestep: measuring.activations}, seed=own, read=measuring.read
                ):
                    measuring.add(rows)
                bar.update(len(part))
            found |= {Candidate(backbone.name, name, timestep): entry for name, entry in measuring.results().items()}
    return found


class _OneTimestep:
    """The statistics of activations at one timestep.

    Args:
        activations: to measure.
        seeds: number of noise seeds of each image.
    """

    def __init__(self, activations: Sequence[Activation], seeds: int) -> None:
        self.activations, self._seeds = activations, seeds
        self.read = PropertyReader()
        self._statistics = {entry.name: Statistics() for entry in activations}
        self._begun: dict[str, Tensor] = {}

    def together(self, most: int) -> int:
        """Images of a batch: as many as are asked for, or as few as leave no more held than one image's seeds."""
        row = 4 * sum(min(entry.channels, CHANNELS) * WINDOW**2 + entry.channels for entry in self.activations)
        whole = max(1, min(most, _HELD // max(1, row)) // self._seeds)
        return min(most, whole * self._seeds)

    def add(self, rows: Mapping[str, Float[Tensor, "batch values"]]) -> None:
        """Add what was read of a batch; an image counts when all of its seeds are there."""
        for name, new in rows.items():
            begun = self._begun.pop(name, None)
            for image in (new if begun is None else torch.cat([begun, new])).split(self._seeds):
                if len(image) == self._seeds:
                    self._statistics[name].add(*self.read.parts(name, image))
                else:
                    self._begun[name] = image

    def results(self) -> dict[str, Properties]:
        """The properties by the name of the activation."""
        return {name: statistics.result() for name, statistics in self._statistics.items()}
