from .front import front_costs, pareto_front
from .rerank import confirmation_words, confirmed, shortlist
from .samplers import ENCODINGS, SiftSampler
from .space import SearchSpace, operations_per_image, require_operations
from .specification import StudySpecification
from .study import SearchStudy, open_storage
from .warm_start import earlier_bests, require_warm_starts

__all__ = [
    "ENCODINGS",
    "SearchSpace",
    "SearchStudy",
    "SiftSampler",
    "StudySpecification",
    "confirmation_words",
    "confirmed",
    "earlier_bests",
    "front_costs",
    "open_storage",
    "operations_per_image",
    "pareto_front",
    "require_operations",
    "require_warm_starts",
    "shortlist",
]
