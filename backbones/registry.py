"""Kinds of backbones: ours, those of entry points, and those registered from Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from diffsift.common.registry import Registry

if TYPE_CHECKING:
    from ._base import Backbone
    from .specification import ModelSpecification

DIFFUSERS = "diffusers"
"""The built-in kind: the denoiser of a diffusers pipeline."""


class BackboneKind(Protocol):
    """What is registered: called with the model's part of the specification and the name of the backbone."""

    def __call__(self, model: ModelSpecification, name: str, /) -> Backbone:
        """Load or build the backbone.

        Args:
            model: what the user asked for; `options` are this kind's own.
            name: what the backbone goes by within the study.

        Raises:
            ModelError: the backbone cannot be made, in the user's words.
        """


BACKBONES: Registry[BackboneKind] = Registry(
    "kind of backbone", "diffsift.backbones", {DIFFUSERS: "diffsift.backbones._loading:load_pipeline"}
)
"""By ``model.kind``."""


def register_backbone(kind: str, make: BackboneKind) -> None:
    """Make a kind of backbone known as ``model: {kind: ..., options: {...}}`` in this process.

    A package does the same with an entry point of the group ``diffsift.backbones``.

    Args:
        kind: its name; none of the names there are.
        make: a class or function that is called with a `ModelSpecification` and the backbone's name, and returns a
            `Backbone`. `diffsift.testing.BackboneContract` tests what it returns.

    Raises:
        SpecificationError: the name is taken.
    """
    BACKBONES.register(kind, make)
