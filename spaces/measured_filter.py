"""The measured filter: keeps the activations that can carry the most information about an image, in any network.

For a candidate with C channels on a grid of R x L locations, with diffusion noise n, locality l and position p, all in
[0, 1]:

    capacity = R L C x (1/2) log2(1 / n) x (1 - l) (1 - p)      bits per image

Each channel at each location is treated as a Gaussian channel with signal-to-noise ratio (1 - n) / n (Shannon, 1948).
The shares of its content that follow from distance and from position are subtracted, since they say nothing about what
is shown. Channels and locations are not independent, so this is an upper bound, used only to rank the activations of
one network at one image size. The threshold is a quantile of the catalogue itself, so that it transfers to models that
nobody has studied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from diffsift.backbones import Activation

from .filters import PropertyFilter
from .properties import Properties
from .selection import Candidate

KEPT_SHARE = 0.3
"""Share of the measured activations that is kept."""

_CLEANEST = 1e-3
"""Noise shares below this count as equal: with a few dozen images they cannot be measured."""


def capacity(activation: Activation, properties: Properties) -> float:
    """The most information that a candidate can carry, per cell of the network's input.

    Args:
        activation: its declaration.
        properties: measured at one timestep.

    Returns:
        Bits, 0 or more, comparable between the activations of one network at one image size.
    """
    noise = min(max(properties.diffusion_noise, _CLEANEST), 1.0)
    bits = 0.5 * float(np.log2(1.0 / noise))
    cells = 1.0 / activation.stride**2
    return activation.channels * cells * bits * (1.0 - properties.locality) * (1.0 - properties.position)


class MeasuredFilter(PropertyFilter):
    """Keeps the activations with the largest capacity, averaged over the measured timesteps.

    Args:
        properties: by candidate; an activation that was not measured is kept.
        share: share of the measured activations to keep, in (0, 1]; 0.3 by default.
    """

    def __init__(self, properties: Mapping[Candidate, Properties], *, share: float = KEPT_SHARE) -> None:
        self._share = share
        self._properties: dict[str, list[Properties]] = {}
        for candidate, measured in properties.items():
            self._properties.setdefault(candidate.activation, []).append(measured)

    def reasons(self, activations: Sequence[Activation]) -> dict[str, str]:
        capacities = {
            entry.name: float(np.mean([capacity(entry, measured) for measured in self._properties[entry.name]]))
            for entry in activations
            if entry.name in self._properties
        }
        if not capacities:
            return {}
        count = max(1, int(len(capacities) * self._share))
        threshold = sorted(capacities.values(), reverse=True)[count - 1]
        return {name: self._reason(name) for name, value in capacities.items() if value < threshold}

    def _reason(self, name: str) -> str:
        """What limits its capacity most, in the terms of the paper; equal words for equal causes, to be counted."""
        mean = {
            field: float(np.mean([getattr(measured, field) for measured in self._properties[name]]))
            for field in ("diffusion_noise", "locality", "position")
        }
        factors = {
            "diffusion noise": 0.1 * float(np.log2(1.0 / max(mean["diffusion_noise"], _CLEANEST))),
            "locality": 1.0 - mean["locality"],
            "position": 1.0 - mean["position"],
        }
        worst, factor = min(factors.items(), key=lambda item: item[1])
        why = f", most of all for its {worst}" if factor < 0.5 else ": few channels or locations"
        return f"low capacity as measured{why}"
