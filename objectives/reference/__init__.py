"""Reference probes: the slow heads of papers on full-resolution, uncompressed features."""

from ._conv import ConvolutionalHead, ConvolutionalProbe, Windows
from ._factory import ReferenceProbeFactory, reference_kinds
from ._heads import LinearHead, LogisticHead, MlpEnsembleHead, ReferenceHead, TrainingLocations
from ._maps import FeatureMaps, SelectionFeatures
from ._matching import ExactMatchingProbe
from ._probe import Fold, LocationProbe, ReferenceProbe

__all__ = [
    "ConvolutionalHead",
    "ConvolutionalProbe",
    "ExactMatchingProbe",
    "FeatureMaps",
    "Fold",
    "LinearHead",
    "LocationProbe",
    "LogisticHead",
    "MlpEnsembleHead",
    "ReferenceHead",
    "ReferenceProbe",
    "ReferenceProbeFactory",
    "SelectionFeatures",
    "TrainingLocations",
    "Windows",
    "reference_kinds",
]
