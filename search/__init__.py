"""How the choosing goes: search space, samplers, study, final confirmation."""

from .confirmation import Row, confirm
from .samplers import SiftSampler
from .space import SearchSpace
from .specification import StudySpecification
from .study import SearchStudy, open_storage

__all__ = ["Row", "SearchSpace", "SearchStudy", "SiftSampler", "StudySpecification", "confirm", "open_storage"]
