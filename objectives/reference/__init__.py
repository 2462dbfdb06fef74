"""Reference probes: the slow heads of papers on full-resolution, uncompressed features."""

from ._building import reference_kinds, reference_probe
from ._conv import ConvolutionalHead, ConvolutionalProbe, Windows
from ._heads import LinearHead, LogisticHead, MlpEnsembleHead, Places, ReferenceHead
from ._maps import FeatureMaps
from ._matching import ExactMatchingProbe
from ._probe import Fold, PlacesProbe, ReferenceProbe

__all__ = [
    "ConvolutionalHead",
    "ConvolutionalProbe",
    "ExactMatchingProbe",
    "FeatureMaps",
    "Fold",
    "LinearHead",
    "LogisticHead",
    "MlpEnsembleHead",
    "Places",
    "PlacesProbe",
    "ReferenceHead",
    "ReferenceProbe",
    "Windows",
    "reference_kinds",
    "reference_probe",
]
