from .extractor import FeatureExtractor
from .fusion import Fusion, Standardiser, block_scale, pool, pooling, resample_map, sample_map
from .selection_file import SelectionFile, read_selection, save_selection

__all__ = [
    "FeatureExtractor",
    "Fusion",
    "SelectionFile",
    "Standardiser",
    "block_scale",
    "pool",
    "pooling",
    "read_selection",
    "resample_map",
    "sample_map",
    "save_selection",
]
