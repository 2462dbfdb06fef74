from ._bank import Bank
from ._entry import FORMAT
from ._folds import folds_by_group, pack_groups
from ._inventory import Removal, StoredEntry, clean, inventory, removals
from ._joined import join_development_sets
from ._part import BankPart, BankView
from ._pending_entries import Entry
from ._records import Features
from ._similarity import measured_similarity
from .development import (
    ALWAYS_FIT,
    DevelopmentSet,
    JoinedSamples,
    LazySamples,
    Matching,
    development_set,
    keypoints_of,
    pooling_side,
)
from .locations import Locations, all_locations, grid_points, sample_locations, sample_values, sampling_probabilities
from .specification import BankSpecification

__all__ = [
    "ALWAYS_FIT",
    "FORMAT",
    "Bank",
    "BankPart",
    "BankSpecification",
    "BankView",
    "DevelopmentSet",
    "Entry",
    "Features",
    "JoinedSamples",
    "LazySamples",
    "Locations",
    "Matching",
    "Removal",
    "StoredEntry",
    "all_locations",
    "clean",
    "development_set",
    "folds_by_group",
    "grid_points",
    "inventory",
    "join_development_sets",
    "keypoints_of",
    "measured_similarity",
    "pack_groups",
    "pooling_side",
    "removals",
    "sample_locations",
    "sample_values",
    "sampling_probabilities",
]
