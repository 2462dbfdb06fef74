from .filters import (
    Decision,
    NamePatternFilter,
    PropertyFilter,
    StructuralFilter,
    UsableFilter,
    apply_filters,
    check_patterns,
    count_reasons,
    rules_for,
)
from .measured_filter import MeasuredFilter, capacity
from .model_space import ModelSpace
from .properties import Properties, measure_properties
from .published import PAPER_SELECTIONS, older_practice, paper_choice
from .registry import FILTERS, register_filter
from .selection import WEIGHT_STEP, Candidate, Selection, activations_by_timestep
from .selection_costs import Cost, SelectionCosts, operations_per_image, passes_per_image
from .similarity import declared_similarity
from .specification import FilterSpecification, LimitsSpecification

__all__ = [
    "FILTERS",
    "PAPER_SELECTIONS",
    "WEIGHT_STEP",
    "Candidate",
    "Cost",
    "Decision",
    "FilterSpecification",
    "LimitsSpecification",
    "MeasuredFilter",
    "ModelSpace",
    "NamePatternFilter",
    "Properties",
    "PropertyFilter",
    "Selection",
    "SelectionCosts",
    "StructuralFilter",
    "UsableFilter",
    "activations_by_timestep",
    "apply_filters",
    "capacity",
    "check_patterns",
    "count_reasons",
    "declared_similarity",
    "measure_properties",
    "older_practice",
    "operations_per_image",
    "paper_choice",
    "passes_per_image",
    "register_filter",
    "rules_for",
]
