from ._stability import selection_stability
from .final_test import FinalTest, best_alternatives
from .rows import Baselines, Row, RowName
from .verdict import verdict_on
from .weights import decide_weights

__all__ = [
    "Baselines",
    "FinalTest",
    "Row",
    "RowName",
    "best_alternatives",
    "decide_weights",
    "selection_stability",
    "verdict_on",
]
