"""What may be chosen: activation catalogue, filters, selections, fusion."""

from ._unet import is_unet
from .catalogue import activation_named, catalogue, in_passes_of, in_scope, read_activations, with_operations
from .filters import Decision, NamePatternFilter, PropertyFilter, StructuralFilter, apply_filters, rules_for
from .fusion import Standardiser, block_scale, pool, pooling, resample_map, sample_map
from .measured import MeasuredFilter, capacity
from .properties import Properties, measure_properties
from .rules import PAPER_SELECTIONS, older_practice, paper_choice
from .selection import WEIGHT_STEP, Candidate, Selection, passes_per_image
from .shelf import Shelf
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
    "NamePatternFilter",
    "Properties",
    "PropertyFilter",
    "Selection",
    "Shelf",
    "Standardiser",
    "StructuralFilter",
    "activation_named",
    "apply_filters",
    "block_scale",
    "capacity",
    "catalogue",
    "declared_similarity",
    "in_passes_of",
    "in_scope",
    "is_unet",
    "measure_properties",
    "older_practice",
    "paper_choice",
    "passes_per_image",
    "pool",
    "pooling",
    "read_activations",
    "resample_map",
    "rules_for",
    "sample_map",
    "with_operations",
]
