"""Reference probes: the slow heads of papers on full-resolution, uncompressed features."""

from ._building import reference_kinds, reference_probe
from ._heads import LinearHead, LogisticHead, MlpEnsembleHead, Places, ReferenceHead
from ._maps import FeatureMaps
from ._matching import ExactMatchingProbe
from ._probe import Fold, ReferenceProbe

__all__ = [
    "ExactMatchingProbe",
    "FeatureMaps",
    "Fold",
    "LinearHead",
    "LogisticHead",
    "MlpEnsembleHead",
    "Places",
    "ReferenceHead",
    "ReferenceProbe",
    "reference_kinds",
    "reference_probe",
]
