"""Kinds of backbones: ours, those of entry points, and those registered from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from diffsift.common.registry import Registry

if TYPE_CHECKING:
    from ._base import Backbone
    from .specification import ModelSpecification

    BackboneKind = Callable[[ModelSpecification, str], Backbone]
else:
    BackboneKind = Callable  # the classes themselves need torch, which a specification does without

DIFFUSERS = "diffusers"
"""The built-in kind: the denoiser of a diffusers pipeline."""

BACKBONES: Registry[BackboneKind] = Registry(
    "kind of backbone", "diffsift.backbones", {DIFFUSERS: "diffsift.backbones._loading:load_pipeline"}
)
"""By ``model.kind``."""


def register_backbone(kind: str, make: BackboneKind) -> None:
    """Make a kind of backbone known as ``model: {kind: ..., options: {...}}`` in this process.

    A package does the same with an entry point of the group ``diffsift.backbones``.

    Args:
        kind: its name; none of the names there are.
        make: a class or function that is called with the `ModelSpecification` and the backbone's name, and returns a
            `Backbone`; it raises `ModelError` where the backbone cannot be made.
            `diffsift.testing.backbone.BackboneContract` tests what it returns.

    Raises:
        SpecificationError: the name is taken.
    """
    BACKBONES.register(kind, make)
