from ._stability import stability
from .final_test import FOUND, Row, confirm, decide_weights, on_backbones, settle, verdict

__all__ = [
    "FOUND",
    "Row",
    "confirm",
    "decide_weights",
    "on_backbones",
    "settle",
    "stability",
    "verdict",
]
