"""Similarity of candidates by their names and timesteps alone. No model is run."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from .selection import Candidate

_PART = re.compile(r"([a-z]+)(\d*)")
_BREADTH = 0.25
"""Decay of similarity with the distance of timesteps, exp(-distance / breadth), as a share of the pool's range."""


def declared_similarity(pool: Sequence[Candidate]) -> Float[np.ndarray, "pool pool"]:
    """Similarity of every pair of candidates.

    A name is read as its parts (``up-level1-repeat0`` as up, level 1, repeat 0). A part that both names have counts
    exp(-difference) of its numbers; the sum is divided by the geometric mean of the numbers of parts. The result is
    multiplied by exp(-distance / 0.25) of the timesteps, and by 1/2 for different backbones.

    Args:
        pool: the candidates.

    Returns:
        A symmetric, positive semi-definite matrix with values in [0, 1] and 1 on the diagonal.
    """
    parts = [dict(_PART.findall(candidate.activation)) for candidate in pool]
    words = sorted({word for found in parts for word in found})
    alike = np.zeros((len(pool), len(pool)))
    for word in words:
        has = np.array([word in found for found in parts], dtype=float)
        number = np.array([float(found.get(word) or 0) for found in parts])
        alike += np.outer(has, has) * np.exp(-np.abs(np.subtract.outer(number, number)))
    counts = np.sqrt([float(len(found)) for found in parts])
    timesteps = np.array([float(candidate.timestep) for candidate in pool])
    extent = float(np.ptp(timesteps)) or 1.0
    near = np.exp(-np.abs(np.subtract.outer(timesteps, timesteps)) / extent / _BREADTH)
    backbones = np.array([candidate.backbone for candidate in pool])
    same = np.where(backbones[:, None] == backbones, 1.0, 0.5)
    return np.asarray(alike / np.outer(counts, counts) * near * same)
