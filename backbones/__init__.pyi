from ._base import Backbone
from ._catalogue import Scope, activation_named, in_scope, read_activations, with_operations
from ._configuration import earlier_identity
from ._controls import LatentControl, PixelControl, controls_of
from ._image_tokens import place_image_tokens, record_pass
from ._loaded_pipeline import LoadedPipeline
from ._loading import check_model, load, load_pipeline, load_structure, resolve_device, resolve_dtype
from ._pipeline import PipelineBackbone
from ._structure import unet_pass
from ._unet_catalogue import is_unet
from ._weight_files import damaged_weights
from .activation import Activation, ActivationsByTimestep
from .cache import BackboneCache
from .capture import Capture, as_map, grid_size
from .names import BackboneName, is_reserved, untrained_name
from .operations import operation_shares, operations_of
from .reading import FeatureMap, Reader, on_cpu, whole_map
from .registry import BACKBONES, DIFFUSERS, BackboneKind, register_backbone
from .specification import JointSpecification, ModelSpecification, differences, owner_of
from .weights import DigestCache, digest_of

__all__ = [
    "BACKBONES",
    "DIFFUSERS",
    "Activation",
    "ActivationsByTimestep",
    "Backbone",
    "BackboneCache",
    "BackboneKind",
    "BackboneName",
    "Capture",
    "DigestCache",
    "FeatureMap",
    "JointSpecification",
    "LatentControl",
    "LoadedPipeline",
    "ModelSpecification",
    "PipelineBackbone",
    "PixelControl",
    "Reader",
    "Scope",
    "activation_named",
    "as_map",
    "check_model",
    "controls_of",
    "damaged_weights",
    "differences",
    "digest_of",
    "earlier_identity",
    "grid_size",
    "in_scope",
    "is_reserved",
    "is_unet",
    "load",
    "load_pipeline",
    "load_structure",
    "on_cpu",
    "operation_shares",
    "operations_of",
    "owner_of",
    "place_image_tokens",
    "read_activations",
    "record_pass",
    "register_backbone",
    "resolve_device",
    "resolve_dtype",
    "unet_pass",
    "untrained_name",
    "whole_map",
    "with_operations",
]
