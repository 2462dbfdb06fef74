"""Choices made without a search, as published: baselines for a selection.

Each gives names of activations; the caller chooses the timestep.
"""

from __future__ import annotations

from collections.abc import Sequence

from diffsift.backbones import Activation

PAPER_SELECTIONS: dict[str, tuple[str, ...]] = {
    "SD 1.5": (
        "up-level1-repeat1-vit-block0-cross-q",
        "up-level1-repeat2-res-out",
        "up-level2-repeat1-vit-block0-cross-q",
        "up-level3-repeat0-vit-block0-self-k",
    ),
    "SDXL": (
        "up-level0-repeat0-vit-block7-out",
        "up-level0-repeat0-vit-block5-out",
        "up-level1-repeat0-vit-block0-cross-q",
        "up-level1-repeat0-vit-block0-out",
    ),
}
"""Meng et al. (NeurIPS 2024), appendix B."""


def paper_choice(activations: Sequence[Activation]) -> tuple[str, ...]:
    """The paper's selection where its names exist in the model, otherwise the one at the same relative positions.

    The positions are those of SD 1.5: in the first up level with attention, the cross-attention queries of the middle
    repeat and the last residual output; in the next, the cross-attention queries of the middle repeat; in the last,
    the self-attention keys of the first repeat.

    Args:
        activations: the model's catalogue.

    Returns:
        Names of activations; empty when the model has no up-stage with attention.
    """
    names = {entry.name for entry in activations}
    for published in PAPER_SELECTIONS.values():
        if names.issuperset(published):
            return published
    with_attention = sorted(
        {e.level for e in activations if e.stage == "up" and e.kind == "cross-q" and e.level is not None}
    )
    if not with_attention:
        return ()
    first, second, last = with_attention[0], with_attention[min(1, len(with_attention) - 1)], with_attention[-1]
    middle = {
        e.level: (e.repeats or 1) // 2 for e in activations if e.stage == "up" and e.level is not None and e.repeats
    }
    final = {
        e.level: (e.repeats or 1) - 1 for e in activations if e.stage == "up" and e.level is not None and e.repeats
    }
    wanted = (
        f"up-level{first}-repeat{middle[first]}-vit-block0-cross-q",
        f"up-level{first}-repeat{final[first]}-res-out",
        f"up-level{second}-repeat{middle[second]}-vit-block0-cross-q",
        f"up-level{last}-repeat0-vit-block0-self-k",
    )
    return tuple(name for name in dict.fromkeys(wanted) if name in names)


def older_practice(activations: Sequence[Activation]) -> tuple[str, ...]:
    """The output of every up level: that of its upsampler, and in the last level that of its last block.

    Args:
        activations: the model's catalogue.

    Returns:
        Names of activations, one per level; empty when the model has no up-stage.
    """
    chosen: dict[int, Activation] = {}
    for entry in activations:
        if entry.stage == "up" and entry.level is not None and entry.kind in ("upsampler-out", "vit-out", "res-out"):
            chosen[entry.level] = entry  # in execution order, so the last of a level remains
    return tuple(entry.name for _, entry in sorted(chosen.items()))
