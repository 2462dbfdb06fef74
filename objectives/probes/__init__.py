"""Probes: what scores a selection on the bank."""

from ._base import Head, HeadPerDataSet, Probe, RidgeHead, Score
from ._matching import MatchingProbe, nearest_places, pck_metric
from ._readout import ClassReadout, DepthReadout, Readout
from ._several import SeveralProbe
from .ridge import RidgeProbe

__all__ = [
    "ClassReadout",
    "DepthReadout",
    "Head",
    "HeadPerDataSet",
    "MatchingProbe",
    "Probe",
    "Readout",
    "RidgeHead",
    "RidgeProbe",
    "Score",
    "SeveralProbe",
    "nearest_places",
    "pck_metric",
]
