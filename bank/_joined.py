"""Development sets of several data sets as one, so that a bank holds them all and standardises them alike."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from diffsift.datasets import prompts_of
from diffsift.errors import DataError, SpecificationError

from .development import DevelopmentSet, JoinedSamples, Matching


def join_development_sets(parts: Mapping[str, DevelopmentSet]) -> DevelopmentSet:
    """The images of several data sets, one set after another.

    Args:
        parts: by name; all of one task.

    Raises:
        DataError: some have prompts for their images and others none.
        SpecificationError: they have different numbers of points per image.
    """
    _check_prompts(parts)
    if all(part.matching is not None for part in parts.values()):
        points = max(part.points.shape[1] for part in parts.values())
        parts = {name: _padded(part, points) for name, part in parts.items()}
    sets = tuple(parts.values())
    if len({(part.points.shape[1], part.pooled) for part in sets}) > 1:
        sizes = ", ".join(f"{name} {part.points.shape[1]}" for name, part in parts.items())
        raise SpecificationError(f"data sets of one search must have as many points per image each, but have {sizes}.")
    starts = np.cumsum([0, *(len(part.samples) for part in sets)])
    return DevelopmentSet(
        samples=JoinedSamples(*(part.samples for part in sets)),
        points=np.concatenate([part.points for part in sets]),
        labels=np.zeros((starts[-1], 0)),
        weights=np.concatenate([part.weights for part in sets]),
        fold=np.concatenate([part.fold for part in sets]),
        training=np.concatenate([part.training for part in sets]),
        groups=tuple(f"{name}: {group}" for name, part in parts.items() for group in part.groups),
        class_names=(),
        identity={"data sets": {name: part.identity for name, part in parts.items()}},
        matching=_joined_matching([part.matching for part in sets if part.matching is not None], starts),
        pooled=sets[0].pooled,
        notes=tuple(f"{name}: {note}" for name, part in parts.items() for note in part.notes),
        parts=sets,
    )


def _check_prompts(parts: Mapping[str, DevelopmentSet]) -> None:
    """Images of several data sets run in one batch, where a prompt for some alone would be left out."""
    told = {name: prompts_of([part.samples[0]]) is not None for name, part in parts.items()}
    if len(set(told.values())) > 1:
        having = ", ".join(name for name, has in told.items() if has)
        lacking = ", ".join(name for name, has in told.items() if not has)
        raise DataError(
            f"all data sets of one search must have prompts for their images or none, but {having} has them and "
            f"{lacking} has none: leave the prompts out (data.prompts, data.category_prompt: false) or add them."
        )


def _padded(part: DevelopmentSet, points: int) -> DevelopmentSet:
    """With more points per image: places in the middle that stand for no keypoint."""
    extra = ((0, 0), (0, points - part.points.shape[1]))
    matching = part.matching
    assert matching is not None
    return replace(
        part,
        points=np.pad(part.points, (*extra, (0, 0)), constant_values=0.5),
        weights=np.pad(part.weights, extra, constant_values=1.0),
        matching=replace(matching, rows=np.pad(matching.rows, extra, constant_values=-1)),
    )


def _joined_matching(found: list[Matching], starts: np.ndarray) -> Matching | None:
    if not found:
        return None
    return Matching(
        pairs=np.concatenate([entry.pairs + start for entry, start in zip(found, starts[:-1], strict=True)]),
        grid=found[0].grid,
        rows=np.concatenate([entry.rows for entry in found]),
        sizes=np.concatenate([entry.sizes for entry in found]),
        boxes=np.concatenate([entry.boxes for entry in found]),
    )
