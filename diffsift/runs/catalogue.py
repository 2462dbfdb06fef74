"""The activations of a model, from its configurations alone."""

from __future__ import annotations

from pathlib import Path

from diffsift.backbones import (
    Scope,
    damaged_weights,
    in_scope,
    is_unet,
    load_structure,
    operation_shares,
    read_activations,
    unet_pass,
    with_operations,
)
from diffsift.spaces import Decision, FilterSpecification, apply_filters


def weights_warning(model: str) -> str:
    """What is wrong with the weights beside the configurations: the catalogue needs none, but a search would refuse.

    Args:
        model: hub id or folder of a pipeline.

    Returns:
        A sentence; empty where nothing is wrong, there are no weights, or the model is on the hub.

    Raises:
        ModelError: the folder is no pipeline's.
    """
    folder = Path(model).expanduser()
    damage = damaged_weights(folder) if folder.is_dir() else ""
    return damage and f"its weights are not whole: {damage}"


def list_activations(model: str | Path, revision: str | None = None, *, scope: Scope = "all") -> tuple[Decision, ...]:
    """The catalogue of a model with the structural filter's decisions; no weights are needed.

    Args:
        model: hub id or folder of a pipeline.
        revision: branch, tag or commit on the hub.
        scope: ``all``, or ``paper`` for the activations that Meng et al. tried.

    Returns:
        One decision per activation. Operations are counted for U-Nets: a transformer's configuration does not say how
        many tokens a pass is given.

    Raises:
        ModelError: there is no such pipeline, or it has no denoiser that can be read.
    """
    denoiser = load_structure(str(model), revision=revision)
    every = read_activations(denoiser)
    run = unet_pass(denoiser) if is_unet(denoiser) else None
    known = in_scope(every if run is None else with_operations(every, operation_shares(denoiser, run, every)), scope)
    return apply_filters(known, FilterSpecification(rules="structural"))
