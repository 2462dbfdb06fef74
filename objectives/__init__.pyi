from ._base import Contender, Objective, Protocol, TestResult
from .multi_dataset import SeveralObjective, make_objective
from .probes import Head, NeighbourProbe, Probe, RidgeHead, RidgeProbe, Score
from .registry import known_tasks, objective_named, register_objective
from .segmentation import SegmentationObjective
from .specification import (
    AnyTaskSpecification,
    ClassificationSpecification,
    CorrespondenceSpecification,
    DepthSpecification,
    ProbeSpecification,
    TaskSpecification,
)

__all__ = [
    "AnyTaskSpecification",
    "ClassificationSpecification",
    "Contender",
    "CorrespondenceSpecification",
    "DepthSpecification",
    "Head",
    "NeighbourProbe",
    "Objective",
    "Probe",
    "ProbeSpecification",
    "Protocol",
    "RidgeHead",
    "RidgeProbe",
    "Score",
    "SegmentationObjective",
    "SeveralObjective",
    "TaskSpecification",
    "TestResult",
    "known_tasks",
    "make_objective",
    "objective_named",
    "register_objective",
]
