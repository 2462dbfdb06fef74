"""Measuring: images stream through a backbone once per timestep and noise seed; activations are not stored."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from diffsift.backbones import Activation, Backbone
from diffsift.common.reporting import NullReporter, Reporter
from diffsift.errors import SpecificationError

from ..selection import Candidate
from ._accumulate import Properties, Statistics


def measure_properties(
    backbone: Backbone,
    activations: Sequence[Activation],
    timesteps: Sequence[int],
    images: Float[Tensor, "images 3 height width"] | Sequence[Float[Tensor, "3 _ _"]],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3),
    reporter: Reporter | None = None,
) -> dict[Candidate, Properties]:
    """Measure the properties of activations at several timesteps, without labels.

    Args:
        backbone: the network to run.
        activations: activations to measure; those that cannot be captured are left out.
        timesteps: noise levels.
        images: RGB in [0, 1], at least two; a few dozen are enough.
        seeds: noise seeds, at least two; four (the default) give `locality` without a bias from noise.
        reporter: shows the progress, one step for each pass; by default it is not shown.

    Returns:
        Properties by candidate, for each activation at each timestep.

    Raises:
        SpecificationError: there are fewer than two images or seeds.
    """
    if len(images) < 2 or len(set(seeds)) < 2:
        raise SpecificationError(
            f"properties must be measured on at least two images under two noise seeds, but got {len(images)} images "
            f"and {len(set(seeds))} seeds."
        )
    readable = [activation for activation in activations if not activation.unreadable]
    statistics = {
        Candidate(backbone.name, activation.name, timestep): Statistics()
        for timestep in timesteps
        for activation in readable
    }
    steps = len(images) * len(timesteps) * len(seeds)
    with (reporter or NullReporter()).progress(steps, "properties", "pass") as bar:
        for image in images:
            for timestep in timesteps:
                held: dict[str, list[Tensor]] = {}
                for seed in seeds:
                    for _, maps in backbone.capture([image], {timestep: readable}, seed=seed):
                        for name, feature_map in maps.items():
                            held.setdefault(name, []).append(feature_map[0])
                    bar.update()
                for name, seeds_of_one in held.items():
                    statistics[Candidate(backbone.name, name, timestep)].add(torch.stack(seeds_of_one))
    return {candidate: accumulated.result() for candidate, accumulated in statistics.items()}
