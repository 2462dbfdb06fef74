"""The measured properties and filter, as `filters.py` needs them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from _filters_scoring import Network

from diffsift.datasets import image_tensors
from diffsift.spaces import Candidate, MeasuredFilter, measure_properties

IMAGES = 24  # unlabelled; a few noise seeds each
SEEDS = (0, 1, 2, 3)


@dataclass(frozen=True)
class Measured:
    """Properties by candidate, and the names that the measured filter drops; None where it does not exist."""

    values: Mapping[Candidate, Mapping[str, float]]
    dropped: set[str] | None


def measure(network: Network) -> Measured:
    """Measure all candidates on the first training images, without their labels, and apply the filter."""
    samples = network.bank.development.samples
    images = image_tensors([samples[index].image for index in range(min(IMAGES, len(samples)))])
    found = measure_properties(
        network.backbone, images, dict.fromkeys(network.timesteps, network.activations), seeds=SEEDS
    )
    values = {candidate: _numbers(properties) for candidate, properties in found.items()}
    return Measured(values, set(MeasuredFilter(found).reasons(network.activations)))


def _numbers(properties: Any) -> dict[str, float]:
    values = {field.name: getattr(properties, field.name) for field in fields(properties)}
    return {name: float(value) for name, value in values.items() if isinstance(value, int | float | np.number)}
