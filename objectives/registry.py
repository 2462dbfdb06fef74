"""Which objectives and fast probes there are: ours, those of entry points, and those registered from Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from diffsift.common.registry import Registry

if TYPE_CHECKING:
    from ._base import Objective
    from .probes import Probe

OBJECTIVES: Registry[Callable[..., Objective]] = Registry(
    "objective",
    "diffsift.objectives",
    {
        "segmentation": "diffsift.objectives.segmentation:SegmentationObjective",
        "depth": "diffsift.objectives.depth:DepthObjective",
        "normals": "diffsift.objectives.normals:NormalsObjective",
        "classification": "diffsift.objectives.classification:ClassificationObjective",
        "correspondence": "diffsift.objectives.correspondence:CorrespondenceObjective",
    },
)
"""By ``task.kind``; each is called as ``objective(data, task, bank, probe)`` with the parts of the specification."""

PROBES: Registry[Callable[..., Probe]] = Registry(
    "probe",
    "diffsift.probes",
    {
        "ridge": "diffsift.objectives.probes.ridge:RidgeProbe",
        "knn": "diffsift.objectives.probes.knn:NeighbourProbe",
    },
)
"""Fast probes by ``probe.kind``; each is called as ``probe(bank, specification, readout)``."""


def register_objective(kind: str, objective: Callable[..., Objective]) -> None:
    """Make an objective known as ``task: {kind: ..., options: {...}}``, in this process.

    A package does the same with an entry point of the group ``diffsift.objectives``.

    Args:
        kind: its name; none of the names there are.
        objective: a subclass of `Objective`, or a function that returns one; called as
            ``objective(data, task, bank, probe)`` with the parts of the specification.

    Raises:
        SpecificationError: the name is taken.
    """
    OBJECTIVES.register(kind, objective)


def register_probe(kind: str, probe: Callable[..., Probe]) -> None:
    """Make a fast probe known as ``probe: {kind: ..., options: {...}}``, in this process.

    A package does the same with an entry point of the group ``diffsift.probes``.

    Args:
        kind: its name; none of the names there are.
        probe: a subclass of `Probe`, or a function that returns one; called as ``probe(bank, specification, readout)``
            with the bank, the probe's part of the specification, and the task's targets and metric.

    Raises:
        SpecificationError: the name is taken.
    """
    PROBES.register(kind, probe)
