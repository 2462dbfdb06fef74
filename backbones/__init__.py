"""Where activations come from: loading, encoding, noising, running, capturing."""

from ._base import Backbone
from ._controls import LatentControl, PixelControl, with_random_weights
from ._loading import load, load_structure, resolve_device, resolve_dtype
from ._pipeline import PipelineBackbone
from ._structure import unet_pass
from .activation import Activation
from .capture import Capture, as_map, grid_size
from .operations import operation_shares, operations_of
from .placing import place
from .specification import JointSpecification, ModelSpecification, differences, owner_of

__all__ = [
    "Activation",
    "Backbone",
    "Capture",
    "JointSpecification",
    "LatentControl",
    "ModelSpecification",
    "PipelineBackbone",
    "PixelControl",
    "as_map",
    "differences",
    "grid_size",
    "load",
    "load_structure",
    "operation_shares",
    "operations_of",
    "owner_of",
    "place",
    "resolve_device",
    "resolve_dtype",
    "unet_pass",
    "with_random_weights",
]
