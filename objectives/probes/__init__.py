"""Probes: what scores a selection on the bank."""

from __future__ import annotations

from diffsift.bank import BankView

from ..registry import PROBES
from ..specification import ProbeSpecification
from ._base import Fitted, FoldedProbe, Head, HeadPerDataSet, Probe, RidgeHead, Score
from ._elimination import Elimination
from ._folds import FoldProbe
from ._matching import MatchingProbe, nearest_locations, pck_metric
from ._multi_dataset import MultiDatasetProbe
from ._readout import ClassReadout, DepthReadout, NormalsReadout, Readout, RegressionReadout
from .knn import NeighbourHead, NeighbourProbe
from .ridge import PENALTIES, RidgeProbe

__all__ = [
    "PENALTIES",
    "ClassReadout",
    "DepthReadout",
    "Elimination",
    "Fitted",
    "FoldProbe",
    "FoldedProbe",
    "Head",
    "HeadPerDataSet",
    "MatchingProbe",
    "MultiDatasetProbe",
    "NeighbourHead",
    "NeighbourProbe",
    "NormalsReadout",
    "Probe",
    "Readout",
    "RegressionReadout",
    "RidgeHead",
    "RidgeProbe",
    "Score",
    "fast_probe",
    "nearest_locations",
    "pck_metric",
]


def fast_probe(bank: BankView, specification: ProbeSpecification, readout: Readout | None = None) -> Probe:
    """The fast probe of ``probe.kind``.

    Args:
        bank: features of a development set.
        specification: the probe's part of the specification.
        readout: targets and metric; default: the classes of points, by mean IoU.

    Returns:
        The probe, with a cache of its own.

    Raises:
        SpecificationError: there is no such kind.
    """
    return PROBES[specification.kind](bank, specification, readout)
