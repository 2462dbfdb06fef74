"""diffsift: choose which activations of a diffusion model to use as features for a vision task.

The public names are loaded when they are first used, so that ``import diffsift`` costs no more than a few milliseconds.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from diffsift import errors

if TYPE_CHECKING:
    from diffsift.job import resume, select
    from diffsift.objectives.datasets import MappedDataset
    from diffsift.spaces.selection import Candidate, Selection
    from diffsift.specification import Specification, load_specification
    from diffsift.tracking.extractor import FeatureExtractor

__version__ = "0.1.0"

__all__ = [
    "Candidate",
    "FeatureExtractor",
    "MappedDataset",
    "Selection",
    "Specification",
    "__version__",
    "errors",
    "load_specification",
    "resume",
    "select",
]

_HOMES = {
    "Candidate": "diffsift.spaces.selection",
    "FeatureExtractor": "diffsift.tracking.extractor",
    "MappedDataset": "diffsift.objectives.datasets",
    "Selection": "diffsift.spaces.selection",
    "Specification": "diffsift.specification",
    "load_specification": "diffsift.specification",
    "resume": "diffsift.job",
    "select": "diffsift.job",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'diffsift' has no attribute {name!r}{errors.did_you_mean(name, __all__)}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access does not come here again
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
