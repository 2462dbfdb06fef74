from ._base import EvaluationProtocol, FittedSelection, ImageTargets, Objective, SplitResults, head_of
from ._capturing import CapturedMaps
from ._dense import dense_outputs
from ._test_loop import Batch, Evaluation
from .multi_dataset import MultiDatasetObjective, make_objective
from .probes import Head, NeighbourProbe, Probe, RidgeHead, RidgeProbe, Score
from .registry import OBJECTIVES, PROBES, register_objective, register_probe
from .segmentation import SegmentationObjective
from .single_dataset import SingleDatasetObjective
from .specification import (
    AnyTaskSpecification,
    ClassificationSpecification,
    CorrespondenceSpecification,
    DepthSpecification,
    NormalsSpecification,
    OtherTaskSpecification,
    ProbeSpecification,
    TaskSpecification,
)

__all__ = [
    "OBJECTIVES",
    "PROBES",
    "AnyTaskSpecification",
    "Batch",
    "CapturedMaps",
    "ClassificationSpecification",
    "CorrespondenceSpecification",
    "DepthSpecification",
    "Evaluation",
    "EvaluationProtocol",
    "FittedSelection",
    "Head",
    "ImageTargets",
    "MultiDatasetObjective",
    "NeighbourProbe",
    "NormalsSpecification",
    "Objective",
    "OtherTaskSpecification",
    "Probe",
    "ProbeSpecification",
    "RidgeHead",
    "RidgeProbe",
    "Score",
    "SegmentationObjective",
    "SingleDatasetObjective",
    "SplitResults",
    "TaskSpecification",
    "dense_outputs",
    "head_of",
    "make_objective",
    "register_objective",
    "register_probe",
]
