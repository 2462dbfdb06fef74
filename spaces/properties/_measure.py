"""Measuring: images stream through a backbone once per timestep and seed; no activation is kept."""

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
    images: Sequence[Float[Tensor, "3 _ _"]],
    *,
    seeds: Sequence[int] = (0, 1, 2, 3),
    reporter: Reporter | None = None,
) -> dict[Candidate, Properties]:
    """The properties of every activation at every timestep, without labels.

    Args:
        backbone: to run.
        activations: to measure; those that cannot be captured are left out.
        timesteps: noise levels.
        images: RGB in [0, 1]; a few dozen are enough.
        seeds: of the noise, two at least; four give `locality` without a bias from noise.
        reporter: told of each pass; default: nobody.

    Raises:
        SpecificationError: there are fewer than two images or seeds.
    """
    if len(images) < 2 or len(set(seeds)) < 2:
        raise SpecificationError(
            f"properties must be measured on at least two images under two noise seeds, but got {len(images)} images "
            f"and {len(set(seeds))} seeds."
        )
    readable = [activation for activation in activations if not activation.unreadable]
    found = {
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
                    found[Candidate(backbone.name, name, timestep)].add(torch.stack(seeds_of_one))
    return {candidate: statistics.result() for candidate, statistics in found.items()}
