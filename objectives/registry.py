"""Which objectives there are: four of ours, those of entry points, and those registered from Python."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from diffsift.errors import SpecificationError, did_you_mean

ENTRY_POINTS = "diffsift.objectives"
_OURS = {
    "segmentation": ("diffsift.objectives.segmentation", "SegmentationObjective"),
    "depth": ("diffsift.objectives.depth", "DepthObjective"),
    "classification": ("diffsift.objectives.classification", "ClassificationObjective"),
    "correspondence": ("diffsift.objectives.correspondence", "CorrespondenceObjective"),
}
_registered: dict[str, Any] = {}


def register_objective(kind: str, objective: Any) -> None:
    """Make an `Objective` known as ``task: {kind: ..., options: {...}}``.

    A package does the same with an entry point of the group ``diffsift.objectives``.

    Args:
        kind: its name; none of the built-in ones.
        objective: the class, called as ``objective(data, task, bank, probe)`` with the parts of the specification.

    Raises:
        SpecificationError: the name is taken.
    """
    if kind in known_tasks() and _registered.get(kind) is not objective:
        raise SpecificationError(f"an objective must have a name of its own, but {kind!r} is taken.")
    _registered[kind] = objective


def known_tasks() -> list[str]:
    """The kinds of tasks that a specification may name."""
    return [*_OURS, *sorted({entry.name for entry in entry_points(group=ENTRY_POINTS)} | set(_registered))]


def objective_named(kind: str) -> Any:
    """The class of a kind.

    Raises:
        SpecificationError: there is none.
    """
    if kind in _OURS:
        module, name = _OURS[kind]
        return getattr(import_module(module), name)
    if kind in _registered:
        return _registered[kind]
    for entry in entry_points(group=ENTRY_POINTS):
        if entry.name == kind:
            return entry.load()
    raise SpecificationError(f"there is no objective {kind!r}{did_you_mean(kind, known_tasks())}")
