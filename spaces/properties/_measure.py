"""Measuring: images stream through a backbone once per timestep and noise seed; activations are not stored."""

from __future__ import annotations

from collections.abc import Sequence

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
"""Bytes that a batch may take where one image does not take more: for its readings, and for its widest maps."""

_MAPS_OF_A_PASS = 2
"""Of its widest maps, a pass holds so many at a time."""


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
    pairs = [(image, seed) for image in images for seed in seeds]
    read = PropertyReader()
    with (reporter or NullReporter()).progress(len(pairs) * len(wanted), "properties", "pass") as bar:
        for timestep, activations in wanted.items():
            measuring = _OneTimestep([entry for entry in activations if not entry.unreadable], len(seeds), read)
            start = 0
            while start < len(pairs):
                part = pairs[start : start + measuring.together(batch_size)]
                own = [seed for _, seed in part]
                for _, rows in backbone.capture(
                    [image for image, _ in part], {timestep: measuring.activations}, seed=own, read=read
                ):
                    measuring.add(rows)
                start += len(part)
                bar.update(len(part))
            found |= {Candidate(backbone.name, name, timestep): entry for name, entry in measuring.results().items()}
    return found


class _OneTimestep:
    """The statistics of activations at one timestep.

    Args:
        activations: to measure.
        seeds: number of noise seeds of each image.
        read: what reads the maps.
    """

    def __init__(self, activations: Sequence[Activation], seeds: int, read: PropertyReader) -> None:
        self.activations, self._seeds, self._read = activations, seeds, read
        self._statistics = {entry.name: Statistics() for entry in activations}
        self._begun: dict[str, Tensor] = {}

    def together(self, most: int) -> int:
        """Images of the next batch: as many as are asked for, unless their readings or maps are large.

        One alone comes first, to see how large maps are. The readings of an image are held until all of its seeds have
        run, so running these together takes no more; several large maps do, and are no faster than one.
        """
        if not self._read.widest:
            return 1
        row = 4 * sum(min(entry.channels, CHANNELS) * WINDOW**2 + entry.channels for entry in self.activations)
        maps = _HELD // (_MAPS_OF_A_PASS * self._read.widest)
        return max(1, min(most, maps, max(self._seeds, _HELD // row)))

    def add(self, rows: dict[str, Tensor]) -> None:
        """Add what was read of a batch, and let go of it; an image counts when all of its seeds are there."""
        while rows:
            name, new = rows.popitem()
            begun = self._begun.pop(name, None)
            for image in torch.split(new if begun is None else torch.cat([begun, new]), self._seeds):
                if len(image) == self._seeds:
                    self._statistics[name].add(*self._read.parts(name, image))
                else:
                    self._begun[name] = image

    def results(self) -> dict[str, Properties]:
        """The properties by the name of the activation."""
        return {name: statistics.result() for name, statistics in self._statistics.items()}
