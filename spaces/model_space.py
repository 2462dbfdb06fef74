"""What one model of a study offers, and what was decided about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from diffsift.backbones import Activation

from .filters import Decision


@dataclass(frozen=True)
class ModelSpace:
    """One model of a study.

    Attributes:
        name: of its backbone.
        activations: all of them by name, in execution order.
        decisions: of the filters, one per activation.
        published: names of the activations that rules of the literature choose, by the rule.
        identity: of the backbone, as JSON.
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
