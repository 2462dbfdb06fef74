"""Names of the backbones of a study."""

from __future__ import annotations

from enum import StrEnum


class BackboneName(StrEnum):
    """The backbones that every study has; further models and variants have names of their own."""

    MAIN = "main"
    """The model of the specification."""
    PIXELS = "pixels"
    """Raw pixels, a control without a network."""
    LATENTS = "latents"
    """VAE latents, a control without a denoiser."""
    RANDOM = "random"
    """The main model with random weights; of another model ``random-NAME``."""


def untrained_name(model: str) -> str:
    """The name of a model's backbone with random weights.

    Args:
        model: name of the trained backbone.

    Returns:
        ``random`` for the main model, and ``random-NAME`` for a further one.
    """
    return BackboneName.RANDOM if model == BackboneName.MAIN else f"{BackboneName.RANDOM}-{model}"


def is_reserved(name: str) -> bool:
    """Whether a name belongs to a backbone that every study has, so that a further model may not use it.

    Args:
        name: of a further model.

    Returns:
        Whether it is one of `BackboneName`, or that of a backbone with random weights.
    """
    return name in set(BackboneName) or name.startswith(f"{BackboneName.RANDOM}-")
