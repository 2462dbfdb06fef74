"""Probes: what scores a selection on the bank."""

from ._base import Probe, RidgeHead, Score
from ._matching import MatchingProbe, nearest_places, pck_metric
from ._readout import ClassReadout, DepthReadout, Readout
from .ridge import PENALTIES, RidgeProbe

__all__ = [
    "PENALTIES",
    "ClassReadout",
    "DepthReadout",
    "MatchingProbe",
    "Probe",
    "Readout",
    "RidgeHead",
    "RidgeProbe",
    "Score",
    "nearest_places",
    "pck_metric",
]
