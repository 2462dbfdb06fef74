"""How the choosing goes: search space, samplers, study, final confirmation."""

from .confirmation import Row, confirm
from .front import front_costs, pareto_front
from .samplers import ENCODINGS, SiftSampler
from .space import SearchSpace
from .specification import StudySpecification
from .study import SearchStudy, open_storage

__all__ = [
    "ENCODINGS",
    "Row",
    "SearchSpace",
    "SearchStudy",
    "SiftSampler",
    "StudySpecification",
    "confirm",
    "front_costs",
    "open_storage",
    "pareto_front",
]
