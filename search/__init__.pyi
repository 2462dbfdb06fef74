from .front import front_costs, pareto_front
from .loop import SearchLoop, SelectionScorer
from .rerank import rerank, shortlist
from .sampler_registry import SAMPLERS, SamplerKind, SamplerSetup, register_sampler
from .samplers import SubsetGPOptions, SubsetGPSampler
from .space import SearchSpace, require_operations
from .specification import StudySpecification
from .trial_store import TrialStore, open_storage, study_uid
from .warm_start import earlier_bests, require_warm_starts

__all__ = [
    "SAMPLERS",
    "SamplerKind",
    "SamplerSetup",
    "SearchLoop",
    "SearchSpace",
    "SelectionScorer",
    "StudySpecification",
    "SubsetGPOptions",
    "SubsetGPSampler",
    "TrialStore",
    "earlier_bests",
    "front_costs",
    "open_storage",
    "pareto_front",
    "register_sampler",
    "require_operations",
    "require_warm_starts",
    "rerank",
    "shortlist",
    "study_uid",
]
