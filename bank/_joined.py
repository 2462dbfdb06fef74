"""Development sets of several data sets as one, so that a bank holds them all and standardises them alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from jaxtyping import Int

from diffsift.errors import DataError, SpecificationError

from .development import DevelopmentSet, JoinedSamples, Matching


def join_development_sets(members: Mapping[str, DevelopmentSet]) -> DevelopmentSet:
    """The images of several data sets, one set after another.

    Args:
        members: by name of the data set; all of one task.

    Returns:
        The development set of all images, without labels of its own: these are in its `members`.

    Raises:
        DataError: some have prompts for their images and others none.
        SpecificationError: they have different numbers of points per image.
    """
    _check_prompts(members)
    if all(member.matching is not None for member in members.values()):
        points = max(member.points.shape[1] for member in members.values())
        members = {name: _padded(member, points) for name, member in members.items()}
    sets = tuple(members.values())
    if len({(member.points.shape[1], member.pooled) for member in sets}) > 1:
        sizes = ", ".join(f"{name} {member.points.shape[1]}" for name, member in members.items())
        raise SpecificationError(f"data sets of one search must have as many points per image each, but have {sizes}.")
    starts = np.cumsum([0, *(len(member.samples) for member in sets)])
    return DevelopmentSet(
        samples=JoinedSamples(*(member.samples for member in sets)),
        points=np.concatenate([member.points for member in sets]),
        labels=np.zeros((starts[-1], 0)),
        weights=np.concatenate([member.weights for member in sets]),
        fold=np.concatenate([member.fold for member in sets]),
        training=np.concatenate([member.training for member in sets]),
        groups=tuple(f"{name}: {group}" for name, member in members.items() for group in member.groups),
        class_names=(),
        identity={"data sets": {name: member.identity for name, member in members.items()}},
        matching=_joined_matching([member.matching for member in sets if member.matching is not None], starts),
        pooled=sets[0].pooled,
        notes=tuple(f"{name}: {note}" for name, member in members.items() for note in member.notes),
        summaries=tuple(
            replace(summary, name=name) for name, member in members.items() for summary in member.summaries
        ),
        members=sets,
        has_prompts=sets[0].has_prompts,
        digests=tuple(digest for member in sets for digest in member.digests) if all(m.digests for m in sets) else (),
    )


def _check_prompts(members: Mapping[str, DevelopmentSet]) -> None:
    """Refuse prompts for some data sets alone: their images run in one batch, which has prompts for all or none."""
    having = ", ".join(name for name, member in members.items() if member.has_prompts)
    lacking = ", ".join(name for name, member in members.items() if not member.has_prompts)
    if having and lacking:
        raise DataError(
            f"all data sets of one search must have prompts for their images or none, but {having} has them and "
            f"{lacking} has none: leave the prompts out (data.prompts, data.category_prompt: false) or add them."
        )


def _padded(member: DevelopmentSet, points: int) -> DevelopmentSet:
    """A development set with more points per image: ones in the middle that stand for no keypoint."""
    extra = ((0, 0), (0, points - member.points.shape[1]))
    matching = member.matching
    assert matching is not None
    return replace(
        member,
        digests=(),  # they are of the points too
        points=np.pad(member.points, (*extra, (0, 0)), constant_values=0.5),
        weights=np.pad(member.weights, extra, constant_values=1.0),
        matching=replace(matching, rows=np.pad(matching.rows, extra, constant_values=-1)),
    )


def _joined_matching(found: list[Matching], starts: Int[np.ndarray, "sets"]) -> Matching | None:
    if not found:
        return None
    return Matching(
        pairs=np.concatenate([entry.pairs + start for entry, start in zip(found, starts[:-1], strict=True)]),
        grid=found[0].grid,
        rows=np.concatenate([entry.rows for entry in found]),
        sizes=np.concatenate([entry.sizes for entry in found]),
        boxes=np.concatenate([entry.boxes for entry in found]),
    )
