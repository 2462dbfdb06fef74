"""The catalogue: every activation of a denoiser, read off its module tree by role.

There is no list of model names: a network with residual levels is walked as a U-Net, any other as lists of blocks that
hold attention. Reading the tree needs no weights: a module tree on the meta device is enough. Completing the
declarations (`complete_by_running`) takes one or two passes of the real network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Literal

from torch import nn

from diffsift.errors import ModelError, SpecificationError, did_you_mean

from ._image_tokens import NOT_PLACED, PassRecord, place_image_tokens, record_pass
from ._transformer_catalogue import read_transformer
from ._unet_catalogue import is_unet, read_unet
from .activation import Activation
from .operations import operation_shares

Scope = Literal["all", "paper"]


def read_activations(denoiser: nn.Module) -> tuple[Activation, ...]:
    """All activations of a denoiser in execution order, as its module tree declares them.

    Args:
        denoiser: a U-Net or transformer of diffusers, on any device, the meta device included.

    Returns:
        Declarations without `operations`. For a transformer they are incomplete: where the image's tokens lie among
        text is known only once it has run (`Backbone.activations`).

    Raises:
        ModelError: there are neither residual levels nor blocks with attention.
    """
    activations = with_stage_means(read_unet(denoiser)) if is_unet(denoiser) else read_transformer(denoiser)
    if not activations:
        raise ModelError(
            f"the denoiser must have residual levels or blocks with attention, but {type(denoiser).__name__} has "
            "neither: diffsift finds no activations in it."
        )
    return activations


def in_scope(activations: tuple[Activation, ...], scope: Scope) -> tuple[Activation, ...]:
    """The activations of a scope: ``all``, or those that Meng et al. tried (``paper``).

    They left out the network's input, values, attention outputs and attention maps. Of a deep ViT (more than two
    blocks) they tried block 0 and those with odd numbers only: of ten blocks 0, 1, 3, 5, 7 and 9.

    Args:
        activations: the catalogue of a U-Net.
        scope: ``all`` or ``paper``.

    Returns:
        Those of the catalogue that are in the scope, in the same order.
    """
    if scope == "all":
        return activations
    depth = _vit_depths(activations)
    return tuple(entry for entry in activations if _in_paper(entry, depth))


def _vit_depths(activations: tuple[Activation, ...]) -> dict[str, int]:
    depths: dict[str, int] = {}
    for entry in activations:
        if match := _VIT_BLOCK.match(entry.name):
            depths[match[1]] = max(depths.get(match[1], 0), int(match[2]) + 1)
    return depths


_VIT_BLOCK = re.compile(r"(.*?)block(\d+)-")


def _in_paper(entry: Activation, depths: dict[str, int]) -> bool:
    if entry.kind in ("input", "conv-in", "self-v", "self-out", "cross-out", "self-map", "cross-map"):
        return False
    match = _VIT_BLOCK.match(entry.name)
    if match is None or depths[match[1]] <= 2:
        return True
    return int(match[2]) == 0 or int(match[2]) % 2 == 1


def complete_by_running(
    denoiser: nn.Module, run: Callable[[int], None], input_size: tuple[int, int], *, attention_maps: bool
) -> tuple[Activation, ...]:
    """A denoiser's declarations, completed by what only passes show.

    One pass counts the share of a pass's operations that each activation needs. A transformer, and a U-Net whose
    attention maps are wanted, runs once more: two passes show where the image's tokens lie, and how large maps are.

    Args:
        denoiser: with weights.
        run: makes one pass on one of two images, by number (0 or 1); all other arguments of the denoiser are equal.
        input_size: rows and columns of the denoiser's input.
        attention_maps: whether to place attention maps; otherwise they are declared as unreadable.

    Returns:
        All activations in the order in which a pass reaches them; those that cannot be captured give the reason in
        `unreadable`.

    Raises:
        ModelError: no activation lies on a grid over the image.
    """
    activations = tuple(entry for entry in read_activations(denoiser) if not entry.parts)
    open_ones = [e for e in activations if e.stage == "blocks" or (attention_maps and e.port == "attention")]
    passes: list[PassRecord] = []

    def record(image: int) -> None:
        passes.append(record_pass(denoiser, lambda: run(image), open_ones, maps=attention_maps))

    shares = operation_shares(denoiser, lambda: record(0) if open_ones else run(0), activations)
    if open_ones:
        for image in range(len(passes), 2):  # also the first, where it did not run while operations were counted
            record(image)
        located = place_image_tokens(open_ones, (passes[0], passes[1]), input_size)
        activations = _with_located(activations, located)
    elif not shares:
        run(0)  # was it the counting that failed, or does the network not run?
    readable = {entry.name for entry in activations if not entry.unreadable}
    found = with_stage_means(
        with_operations(activations, {name: share for name, share in shares.items() if name in readable})
    )
    if not attention_maps:
        found = tuple(_not_placed(entry) if entry.port == "attention" else entry for entry in found)
    if all(entry.unreadable for entry in found):
        reasons = "; ".join(sorted({entry.unreadable for entry in found}))
        raise ModelError(
            f"the denoiser must have activations on a grid over the image, but {type(denoiser).__name__} has none: "
            f"{reasons}."
        )
    return found


def _not_placed(entry: Activation) -> Activation:
    parts = tuple(_not_placed(part) for part in entry.parts)
    return replace(entry, parts=parts, unreadable=entry.unreadable or NOT_PLACED)


def _with_located(declared: tuple[Activation, ...], located: tuple[Activation, ...]) -> tuple[Activation, ...]:
    """Declarations with those that were located in place of their own; in the order of the pass where all were."""
    if len(located) == len(declared):
        return located
    known = {entry.name: entry for entry in located}
    return tuple(replace(known.get(entry.name, entry), depth=entry.depth) for entry in declared)


def with_operations(activations: Iterable[Activation], shares: Mapping[str, float]) -> tuple[Activation, ...]:
    """Add the share of a pass's operations to declarations.

    Args:
        activations: the catalogue.
        shares: by name, as `operation_shares` counts them.

    Returns:
        The activations with `operations`; the mean of several activations needs as much as its deepest part.
    """
    found = []
    for entry in activations:
        parts = with_operations(entry.parts, shares)
        known = [shares.get(part.name) for part in parts or (entry,)]
        counted = [share for share in known if share is not None]
        operations = max(counted) if len(counted) == len(known) else None
        found.append(replace(entry, parts=parts, operations=operations))
    return tuple(found)


def with_stage_means(activations: Iterable[Activation]) -> tuple[Activation, ...]:
    """Add the mean of each stage's cross-attention maps (``up-cross-map``), as SDXL-t of Meng et al. uses it.

    The mean follows the last of its parts; a stage with fewer than two maps has none.

    Args:
        activations: in execution order.
    """
    ordered = list(activations)
    for stage in dict.fromkeys(entry.stage for entry in ordered):
        parts = tuple(e for e in ordered if e.stage == stage and e.kind == "cross-map" and not e.unreadable)
        if len(parts) < 2 or len({part.channels for part in parts}) > 1:
            continue
        mean = replace(
            parts[-1],
            name=f"{stage}-cross-map",
            level=None,
            stride=min(part.stride for part in parts),
            layout="map",
            module="",
            repeat=None,
            repeats=None,
            parts=parts,
        )
        ordered.insert(ordered.index(parts[-1]) + 1, mean)
    return tuple(replace(entry, depth=depth) for depth, entry in enumerate(ordered))


def activation_named(name: str, activations: tuple[Activation, ...]) -> Activation:
    """The activation of a name.

    Args:
        name: the exact name.
        activations: the catalogue.

    Returns:
        Its declaration.

    Raises:
        SpecificationError: there is none; the closest names are offered.
    """
    for activation in activations:
        if activation.name == name:
            return activation
    raise SpecificationError(
        f"activation {name!r} does not exist in this model{did_you_mean(name, (entry.name for entry in activations))}"
    )
