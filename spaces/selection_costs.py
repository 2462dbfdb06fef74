"""What a selection costs beside its score, known before anything is extracted: channels, passes and operations."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from .selection import Candidate

Cost = Literal["channels", "passes", "operations"]
"""Channels of the fused feature; per image, passes, and operations in whole passes."""


@dataclass(frozen=True)
class SelectionCosts:
    """Computes what selections of a pool cost.

    Attributes:
        channels: channels that each candidate adds to the fused feature.
        operations: share of a whole pass that each candidate needs, 0 to 1; missing where it was not counted.
        noise_draws: noise draws that a backbone's features are averaged over, by its name; 1 where it is missing.
    """

    channels: Mapping[Candidate, int]
    operations: Mapping[Candidate, float] = field(default_factory=dict)
    noise_draws: Mapping[str, int] = field(default_factory=dict)

    def of(self, cost: Cost, candidates: Iterable[Candidate]) -> float:
        """One cost of a selection.

        Args:
            cost: which one.
            candidates: the selection's candidates.

        Returns:
            Channels, passes per image, or operations per image; infinite where operations are not known.
        """
        if cost == "channels":
            return float(sum(self.channels[candidate] for candidate in candidates))
        if cost == "passes":
            return float(passes_per_image(candidates, self.noise_draws))
        operations = operations_per_image(candidates, self.operations, self.noise_draws)
        return float("inf") if operations is None else operations


def passes_per_image(candidates: Iterable[Candidate], noise_draws: Mapping[str, int]) -> int:
    """How many passes an image takes: one for each distinct pair of backbone and timestep, and each noise draw.

    Args:
        candidates: the selection's candidates.
        noise_draws: noise draws that a backbone's features are averaged over, by its name; 1 where it is missing.

    Returns:
        Passes of all backbones together.
    """
    pairs = {(candidate.backbone, candidate.timestep) for candidate in candidates}
    return sum(noise_draws.get(backbone, 1) for backbone, _ in pairs)


def operations_per_image(
    candidates: Iterable[Candidate], shares: Mapping[Candidate, float], noise_draws: Mapping[str, int]
) -> float | None:
    """Operations per image: of each pass the share up to its deepest activation, summed over passes.

    Args:
        candidates: the selection's candidates.
        shares: share of a whole pass that each candidate needs, 0 to 1.
        noise_draws: noise draws that a backbone's features are averaged over, by its name; 1 where it is missing.

    Returns:
        The sum in whole passes; None where a candidate's share is not known.
    """
    deepest: dict[tuple[str, int], float] = {}
    for candidate in candidates:
        share = shares.get(candidate)
        if share is None:
            return None
        one_pass = (candidate.backbone, candidate.timestep)
        deepest[one_pass] = max(share, deepest.get(one_pass, 0.0))
    return sum(share * noise_draws.get(backbone, 1) for (backbone, _), share in deepest.items())
