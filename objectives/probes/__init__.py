"""Probes: what scores a selection on the bank."""

from __future__ import annotations

from diffsift.bank import BankView

from ..specification import ProbeSpecification
from ._base import Fitted, FoldedProbe, Head, HeadPerDataSet, Probe, RidgeHead, Score
from ._elimination import Elimination
from ._folds import FoldProbe
from ._matching import MatchingProbe, nearest_places, pck_metric
from ._multi_dataset import MultiDatasetProbe
from ._readout import ClassReadout, DepthReadout, Readout
from .knn import NeighbourHead, NeighbourProbe
from .ridge import PENALTIES, RidgeProbe

__all__ = [
    "PENALTIES",
    "ClassReadout",
    "DepthReadout",
    "Elimination",
    "Fitted",
    "FoldedProbe",
    "Head",
    "HeadPerDataSet",
    "MatchingProbe",
    "MultiDatasetProbe",
    "NeighbourHead",
    "NeighbourProbe",
    "Probe",
    "Readout",
    "RidgeHead",
    "RidgeProbe",
    "Score",
    "fast_probe",
    "nearest_places",
    "pck_metric",
]


def fast_probe(bank: BankView, specification: ProbeSpecification, readout: Readout | None = None) -> FoldProbe:
    """The probe of ``probe.kind``."""
    kinds: dict[str, type[FoldProbe]] = {"ridge": RidgeProbe, "knn": NeighbourProbe}
    return kinds[specification.kind](bank, specification, readout)
