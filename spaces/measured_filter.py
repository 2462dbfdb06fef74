"""The measured filter: keeps the activations that can carry most about an image, as measured, whatever the network.

Of a candidate with C channels on a grid of R x L places, diffusion noise n, locality l and position p, all in [0, 1]:

    capacity = R L C x (1/2) log2(1 / n) x (1 - l) (1 - p)      bits per image

Each channel at each place is taken for a Gaussian channel whose signal-to-noise ratio is (1 - n) / n (Shannon, 1948),
less the shares of its content that follow from distance and from position, and so say nothing of what is shown.
Channels and places are not independent, so this is an upper bound, used only to rank the activations of one network at
one image size. The threshold is a quantile of the pool itself, so that it carries to models nobody has looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from diffsift.backbones import Activation

from .filters import PropertyFilter
from .properties import Properties
from .selection import Candidate

KEPT_SHARE = 0.3
_CLEANEST = 1e-3
"""Noise shares below this are not told apart: with a few dozen images they cannot be measured."""


def capacity(activation: Activation, properties: Properties) -> float:
    """Bits per image and place of the network's input, at most."""
    noise = min(max(properties.diffusion_noise, _CLEANEST), 1.0)
    bits = 0.5 * float(np.log2(1.0 / noise))
    places = 1.0 / activation.stride**2
    return activation.channels * places * bits * (1.0 - properties.locality) * (1.0 - properties.position)


class MeasuredFilter(PropertyFilter):
    """Drops all but the `share` of activations with the largest capacity, in the mean over measured timesteps.

    Args:
        properties: by candidate; an activation of which there are none is kept.
        share: of the measured activations to keep, in (0, 1].
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
        """What holds it back most, in the words of the paper; the same words for many, so that they can be counted."""
        mean = {
            field: float(np.mean([getattr(measured, field) for measured in self._properties[name]]))
            for field in ("diffusion_noise", "locality", "position")
        }
        kept = {
            "diffusion noise": 0.1 * float(np.log2(1.0 / max(mean["diffusion_noise"], _CLEANEST))),
            "locality": 1.0 - mean["locality"],
            "position": 1.0 - mean["position"],
        }
        worst, factor = min(kept.items(), key=lambda item: item[1])
        why = f", most of all for its {worst}" if factor < 0.5 else ": few channels or places"
        return f"low capacity as measured{why}"
