"""How a choice is scored: tasks, data set readers, feature bank, probes, metrics."""

from ._base import Contender, Objective, TestResult
from .bank import Bank
from .development import DevelopmentSet
from .probes import RidgeHead, RidgeProbe, Score
from .segmentation import SegmentationObjective
from .specification import BankSpecification, DataSpecification, ProbeSpecification, TaskSpecification

__all__ = [
    "Bank",
    "BankSpecification",
    "Contender",
    "DataSpecification",
    "DevelopmentSet",
    "Objective",
    "ProbeSpecification",
    "RidgeHead",
    "RidgeProbe",
    "Score",
    "SegmentationObjective",
    "TaskSpecification",
    "TestResult",
]
