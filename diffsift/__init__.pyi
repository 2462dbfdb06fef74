from . import errors
from .datasets import MappedDataset
from .extraction import FeatureExtractor
from .runs.select import resume, select
from .spaces import Candidate, Selection
from .specification import Specification
from .specification_file import load_specification

__version__: str

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
