"""Candidates and selections: what a trial proposes, and what the user gets."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from diffsift.backbones.activation import Activation
from diffsift.backbones.names import BackboneName
from diffsift.errors import SelectionError, SpecificationError, did_you_mean

WEIGHT_STEP = 0.05
"""Weights are quantised to multiples of this, so that selections that hardly differ count as one."""


@dataclass(frozen=True, order=True)
class Candidate:
    """An activation of a backbone at a timestep: the unit of choice.

    Attributes:
        backbone: name of the backbone within the study.
        activation: name of the activation within the backbone.
        timestep: noise level, counted from 0 (clean).
    """

    backbone: str
    activation: str
    timestep: int

    def __str__(self) -> str:
        prefix = "" if self.backbone == BackboneName.MAIN else f"{self.backbone}:"
        return f"{prefix}{self.activation}@{self.timestep}"


@dataclass(frozen=True)
class Selection:
    """One or more candidates with a fusion weight each, in canonical form.

    In the canonical form the members are sorted, and weights are divided by the largest and quantised to multiples of
    `WEIGHT_STEP`. Two selections are equal exactly when they yield the same fused feature up to a global factor.

    Args:
        members: pairs of a candidate and its weight above 0, in any order.

    Attributes:
        members: the same in canonical form; the largest weight is 1.

    Raises:
        SelectionError: there is no candidate, a candidate is there twice, or a weight is not positive and finite.

    Examples:
        >>> a, b = Candidate("main", "mid-vit-out", 50), Candidate("main", "mid-vit-out", 200)
        >>> print(Selection.of({b: 1.0, a: 2.0}))
        mid-vit-out@50 + 0.5 mid-vit-out@200
    """

    members: tuple[tuple[Candidate, float], ...]

    def __post_init__(self) -> None:
        candidates = [candidate for candidate, _ in self.members]
        if not candidates:
            raise SelectionError("a selection must hold at least one candidate, but got none.")
        if len(set(candidates)) < len(candidates):
            twice = next(candidate for candidate in candidates if candidates.count(candidate) > 1)
            raise SelectionError(f"a selection must hold each candidate once, but got {twice} twice.")
        weights = [weight for _, weight in self.members]
        if not all(0 < weight < float("inf") for weight in weights):
            raise SelectionError(f"weights must be positive and finite, but got {str(weights)[:100]}.")
        largest = max(weights)
        quantised = [max(1, round(weight / largest / WEIGHT_STEP)) * WEIGHT_STEP for weight in weights]
        pairs = zip(candidates, (round(weight, 4) for weight in quantised), strict=True)
        object.__setattr__(self, "members", tuple(sorted(pairs)))

    @classmethod
    def of(cls, weights: dict[Candidate, float] | Iterable[Candidate]) -> Selection:
        """Make a selection.

        Args:
            weights: weights by candidate, or candidates alone, which get equal weights.

        Returns:
            The selection in canonical form: sorted, weights quantised, the largest 1.

        Raises:
            SelectionError: as in the constructor.
        """
        if not isinstance(weights, dict):
            return cls(tuple((candidate, 1.0) for candidate in weights))
        return cls(tuple(weights.items()))

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """The candidates, sorted."""
        return tuple(candidate for candidate, _ in self.members)

    @property
    def has_attention_maps(self) -> bool:
        """Whether a candidate is an attention map: their names end in ``-map`` in every network."""
        return any(candidate.activation.endswith("-map") for candidate in self.candidates)

    @cached_property
    def key(self) -> str:
        """Sixteen hexadecimal digits that identify this selection in databases."""
        return hashlib.sha256(json.dumps(self.to_json()).encode()).hexdigest()[:16]

    def to_json(self) -> list[dict[str, Any]]:
        """The members as JSON objects with backbone, activation, timestep and weight."""
        return [
            {
                "backbone": candidate.backbone,
                "activation": candidate.activation,
                "timestep": candidate.timestep,
                "weight": weight,
            }
            for candidate, weight in self.members
        ]

    @classmethod
    def from_json(cls, members: list[Any]) -> Selection:
        """Read a selection from JSON, the inverse of `to_json`.

        Args:
            members: objects with backbone, activation, timestep and weight.

        Returns:
            The selection in canonical form.

        Raises:
            SelectionError: a field is missing or of the wrong type.
        """
        try:
            return cls(
                tuple(
                    (
                        Candidate(str(member["backbone"]), str(member["activation"]), int(member["timestep"])),
                        float(member["weight"]),
                    )
                    for member in members
                )
            )
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            if isinstance(error, SelectionError):
                raise
            raise SelectionError(
                f"each member must have backbone, activation, timestep and weight, but got {str(members)[:100]} "
                f"({str(error)[:100]})."
            ) from error

    def __str__(self) -> str:
        return " + ".join(
            (f"{weight:g} " if weight != 1.0 else "") + str(candidate) for candidate, weight in self.members
        )


def activations_by_timestep(
    candidates: Iterable[Candidate], backbone: str, activations: Mapping[str, Activation]
) -> dict[int, list[Activation]]:
    """The candidates of one backbone in the form that `Backbone.capture` takes.

    Args:
        candidates: candidates of any backbones.
        backbone: name of the backbone.
        activations: that backbone's activations by name.

    Returns:
        Activations by timestep, in the order of the candidates; empty where no candidate is of this backbone.

    Raises:
        SpecificationError: a candidate's activation does not exist in that backbone; the closest names are offered.
    """
    wanted: dict[int, list[Activation]] = {}
    for candidate in candidates:
        if candidate.backbone != backbone:
            continue
        name = candidate.activation
        if name not in activations:
            raise SpecificationError(
                f"activation {name!r} does not exist in this model{did_you_mean(name, activations)}"
            )
        wanted.setdefault(candidate.timestep, []).append(activations[name])
    return wanted
