from ._base import EvaluationProtocol, FittedSelection, Objective, SplitResults
from .multi_dataset import MultiDatasetObjective, make_objective
from .probes import Head, NeighbourProbe, Probe, RidgeHead, RidgeProbe, Score
from .registry import OBJECTIVES, register_objective
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
    "OBJECTIVES",
    "AnyTaskSpecification",
    "ClassificationSpecification",
    "CorrespondenceSpecification",
    "DepthSpecification",
    "EvaluationProtocol",
    "FittedSelection",
    "Head",
    "MultiDatasetObjective",
    "NeighbourProbe",
    "Objective",
    "Probe",
    "ProbeSpecification",
    "RidgeHead",
    "RidgeProbe",
    "Score",
    "SegmentationObjective",
    "SplitResults",
    "TaskSpecification",
    "make_objective",
    "register_objective",
]
