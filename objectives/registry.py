"""Which objectives there are: four of ours, those of entry points, and those registered from Python."""

from __future__ import annotations

from typing import Any

from diffsift.common.registry import Registry

OBJECTIVES: Registry[Any] = Registry(
    "objective",
    "diffsift.objectives",
    {
        "segmentation": "diffsift.objectives.segmentation:SegmentationObjective",
        "depth": "diffsift.objectives.depth:DepthObjective",
        "classification": "diffsift.objectives.classification:ClassificationObjective",
        "correspondence": "diffsift.objectives.correspondence:CorrespondenceObjective",
    },
)
"""By ``task.kind``; each is called as ``objective(data, task, bank, probe)`` with the parts of the specification."""


def register_objective(kind: str, objective: Any) -> None:
    """Make an `Objective` known as ``task: {kind: ..., options: {...}}``.

    A package does the same with an entry point of the group ``diffsift.objectives``.

    Args:
        kind: its name; none of the built-in ones.
        objective: the class, called as ``objective(data, task, bank, probe)`` with the parts of the specification.

    Raises:
        SpecificationError: the name is taken.
    """
    OBJECTIVES.register(kind, objective)
