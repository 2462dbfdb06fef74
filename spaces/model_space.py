"""The activations of one model of a study, and the filters' decisions on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffsift.backbones import Activation

from .filters import Decision


@dataclass(frozen=True)
class ModelSpace:
    """The activations of one model of a study.

    Attributes:
        name: name of its backbone.
        activations: the whole catalogue by name, in execution order.
        decisions: the filters' decisions, one per activation.
        published: names of the activations that rules of the literature choose, by the rule.
        identity: the backbone's identity, as JSON.
    """

    name: str
    activations: Mapping[str, Activation]
    decisions: tuple[Decision, ...]
    published: Mapping[str, tuple[str, ...]]
    identity: Mapping[str, Any]

    @property
    def kept(self) -> list[str]:
        """Names of the activations that the filters keep."""
        return [decision.activation.name for decision in self.decisions if decision.kept]
