"""Where activations come from: loading, encoding, noising, running, capturing."""

from ._base import Backbone
from ._controls import LatentControl, PixelControl, with_random_weights
from ._loading import load, load_structure, resolve_device, resolve_dtype
from ._pipeline import PipelineBackbone
from .activation import Activation
from .capture import Capture, as_map, grid_size
from .placing import place
from .specification import ModelSpecification

__all__ = [
    "Activation",
    "Backbone",
    "Capture",
    "LatentControl",
    "ModelSpecification",
    "PipelineBackbone",
    "PixelControl",
    "as_map",
    "grid_size",
    "load",
    "load_structure",
    "place",
    "resolve_device",
    "resolve_dtype",
    "with_random_weights",
]
