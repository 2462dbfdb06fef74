"""How a choice is scored: tasks, data set readers, feature bank, probes, metrics."""

from ._base import Contender, Objective, Protocol, TestResult
from .bank import Bank
from .development import DevelopmentSet
from .probes import Head, NeighbourProbe, Probe, RidgeHead, RidgeProbe, Score
from .registry import known_tasks, objective_named, register_objective
from .segmentation import SegmentationObjective
from .several import SeveralObjective, make_objective
from .specification import (
    AnyTaskSpecification,
    BankSpecification,
    ClassificationSpecification,
    CorrespondenceSpecification,
    DataSpecification,
    DepthSpecification,
    ProbeSpecification,
    TaskSpecification,
)

__all__ = [
    "AnyTaskSpecification",
    "Bank",
    "BankSpecification",
    "ClassificationSpecification",
    "Contender",
    "CorrespondenceSpecification",
    "DataSpecification",
    "DepthSpecification",
    "DevelopmentSet",
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
