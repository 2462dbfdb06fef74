from .front import front_costs, pareto_front
from .rerank import rerank, shortlist
from .samplers import ENCODINGS, SubsetGPSampler
from .space import SearchSpace, require_operations
from .specification import StudySpecification
from .study import SearchStudy, open_storage
from .warm_start import earlier_bests, require_warm_starts

__all__ = [
    "ENCODINGS",
    "SearchSpace",
    "SearchStudy",
    "StudySpecification",
    "SubsetGPSampler",
    "earlier_bests",
    "front_costs",
    "open_storage",
    "pareto_front",
    "require_operations",
    "require_warm_starts",
    "rerank",
    "shortlist",
]
