from .filters import Decision, NamePatternFilter, PropertyFilter, StructuralFilter, apply_filters, rules_for
from .measured_filter import MeasuredFilter, capacity
from .model_space import ModelSpace
from .properties import Properties, measure_properties
from .published import PAPER_SELECTIONS, older_practice, paper_choice
from .selection import WEIGHT_STEP, Candidate, Selection, activations_by_timestep, passes_per_image
from .similarity import declared_similarity
from .specification import FilterSpecification, LimitsSpecification

__all__ = [
    "PAPER_SELECTIONS",
    "WEIGHT_STEP",
    "Candidate",
    "Decision",
    "FilterSpecification",
    "LimitsSpecification",
    "MeasuredFilter",
    "ModelSpace",
    "NamePatternFilter",
    "Properties",
    "PropertyFilter",
    "Selection",
    "StructuralFilter",
    "activations_by_timestep",
    "apply_filters",
    "capacity",
    "declared_similarity",
    "measure_properties",
    "older_practice",
    "paper_choice",
    "passes_per_image",
    "rules_for",
]
