"""The parts of a pipeline, loaded one by one: an error names the part, and a network's weights fit it exactly.

Diffusers and transformers load a network also where some of its weights are not in the file, or the file holds others:
they warn, and leave random values. Here that is an error. Networks are first built without memory, within what their
weight files can fill, because a configuration may ask for anything.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import ModelMixin, SchedulerMixin
from torch import nn
from torch.nn.modules import module as torch_module
from transformers import (
    FeatureExtractionMixin,
    ImageProcessingMixin,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from diffsift.errors import ModelError, first_line

from ._tokenizers import check_tokenizer_files
from ._weight_files import WeightFiles, find_weights
from .specification import ModelSpecification

_OTHERS = (SchedulerMixin, PreTrainedTokenizerBase, FeatureExtractionMixin, ImageProcessingMixin, ProcessorMixin)
_STEMS = {
    ModelMixin: {"safetensors": "diffusion_pytorch_model", "bin": "diffusion_pytorch_model"},
    PreTrainedModel: {"safetensors": "model", "bin": "pytorch_model"},
}
"""Names of weight files, as the two libraries write them."""

MOST_REGISTRATIONS = 15_000
"""Most modules and tensors of a network that is built without weight files: several times those of the largest."""

_HARMLESS = ("position_ids", "inv_freq")
"""Tensors that old files hold and networks compute today."""


def class_of(library: str, name: str) -> Any:
    """The class of a part, where it is one of diffusers or transformers that loads itself.

    Args:
        library: as ``model_index.json`` names it.
        name: of the class.

    Returns:
        The class; None where it is none of these, and diffusers decides whether it may be loaded.
    """
    if library not in ("diffusers", "transformers"):
        return None
    found = getattr(importlib.import_module(library), name, None)
    return found if isinstance(found, type) and issubclass(found, (*_STEMS, *_OTHERS)) else None


def load_part(folder: Path, kind: Any, model: ModelSpecification, dtype: torch.dtype) -> Any:
    """Load one part of a pipeline.

    Args:
        folder: of the part.
        kind: its class, from `class_of`.
        model: the file variant, and whether pickles may be loaded.
        dtype: type of a network's weights.

    Returns:
        The network, scheduler, tokenizer or processor.

    Raises:
        ModelError: naming the part and the file: weights that are not there, not whole or not the network's; a
            configuration that cannot be built.
    """
    configured = "scheduler_config.json" if issubclass(kind, SchedulerMixin) else "config.json"
    if issubclass(kind, (*_STEMS, SchedulerMixin)) and not (folder / configured).is_file():
        raise ModelError(
            f"{folder} must hold {configured}, but does not: it was not wholly downloaded or copied; download "
            f"{folder.name} again."
        )
    family = next((family for family in _STEMS if issubclass(kind, family)), None)
    if family is not None:
        weights = find_weights(folder, _STEMS[family], variant=model.variant, allow_pickle=model.allow_pickle)
        return _load_network(folder, kind, weights, dtype)
    if issubclass(kind, PreTrainedTokenizerBase):
        check_tokenizer_files(folder, kind)
    with _named(folder, kind):
        return kind.from_pretrained(str(folder))


def published_dtype(folder: Path, kind: Any, model: ModelSpecification) -> torch.dtype | None:
    """The type in which a network's weights were published.

    Args:
        folder: of the network.
        kind: its class, from `class_of`.
        model: the file variant, and whether pickles may be loaded.

    Returns:
        The type of the weights in the files; None where they do not say it.

    Raises:
        ModelError: the weights are not there or not whole.
    """
    stems = next(stems for family, stems in _STEMS.items() if issubclass(kind, family))
    return find_weights(folder, stems, variant=model.variant, allow_pickle=model.allow_pickle).dtype


def _load_network(folder: Path, kind: Any, weights: WeightFiles, dtype: torch.dtype) -> nn.Module:
    most = MOST_REGISTRATIONS if weights.tensors is None else 4 * weights.tensors + 1000
    with bounded(folder, most, 2 * weights.size + 10**8):
        build_empty(kind, folder)
    of_diffusers = issubclass(kind, ModelMixin)
    with _named(folder, kind):
        network, info = kind.from_pretrained(
            str(folder),
            variant=weights.variant,
            use_safetensors=weights.files[0].suffix == ".safetensors",
            output_loading_info=True,
            # Transformers only names the tensors whose shapes differ where it is told to go on.
            **({"torch_dtype": dtype} if of_diffusers else {"dtype": dtype, "ignore_mismatched_sizes": True}),
        )
    _check_fit(network, info, folder, weights)
    loaded: nn.Module = network
    return loaded


def build_empty(kind: Any, folder: Path) -> None:
    """Build a network on the meta device, to see whether it stays within bounds; other errors are left for loading."""
    builder: Any = kind
    try:
        with torch.device("meta"):
            if issubclass(kind, ModelMixin):
                builder.from_config(builder.load_config(str(folder)))
            else:
                builder(builder.config_class.from_pretrained(str(folder)))
    except ModelError:
        raise
    except Exception:  # some networks compute with values while they are built
        return


@contextmanager
def bounded(folder: Path, registrations: int, values: int | None = None) -> Iterator[None]:
    """Stop building a network that is larger than it can be.

    Args:
        folder: of the network, for the message.
        registrations: most modules, parameters and buffers.
        values: most numbers in parameters and buffers; None for any.

    Raises:
        ModelError: when it is exceeded.
    """
    counted = {"parts": 0, "values": 0}

    def count(_: nn.Module, name: str, entry: Any) -> None:
        counted["parts"] += 1
        counted["values"] += entry.numel() if isinstance(entry, torch.Tensor) else 0
        if counted["parts"] > registrations or (values is not None and counted["values"] > values):
            raise ModelError(
                f"{folder / 'config.json'} must describe a network of the size of its weights, but asks for one that "
                "is many times larger: the two do not belong together; download the folder again."
            )

    hooks = [
        torch_module.register_module_parameter_registration_hook(count),
        torch_module.register_module_buffer_registration_hook(count),
        torch_module.register_module_module_registration_hook(count),
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def _named(folder: Path, kind: Any) -> Iterator[None]:
    """Whatever third-party code says of a part's files, as an error that names the part."""
    default = torch.get_default_dtype()
    try:
        yield
    except Exception as error:
        raise ModelError(
            f"{folder.name} of {folder.parent} cannot be loaded as {kind.__name__} ({first_line(error)}): download "
            f"{folder.name} again, or mend its configuration."
        ) from error
    finally:
        torch.set_default_dtype(default)  # diffusers leaves its own behind where building fails


def _check_fit(network: nn.Module, info: dict[str, Any], folder: Path, weights: WeightFiles) -> None:
    """Refuse weights that are not exactly those of the network."""
    file = weights.files[0].name if len(weights.files) == 1 else f"its {len(weights.files)} shards"
    empty = [name for name, tensor in network.state_dict().items() if tensor.is_meta]
    missing = sorted({*info["missing_keys"], *empty})
    other = sorted(str(entry[0]) for entry in info["mismatched_keys"])
    unexpected = sorted(name for name in info["unexpected_keys"] if not name.endswith(_HARMLESS))
    faults = (
        f"lacks {_listed(missing)}" if missing else "",
        f"has {_listed(other)} in another shape" if other else "",
        f"holds {_listed(unexpected)}, which the network does not have" if unexpected else "",
    )
    if any(faults):
        raise ModelError(
            f"the weights of {folder.name} in {folder.parent} must be exactly those of its config.json, but {file} "
            f"{' and '.join(filter(None, faults))}: download or convert {folder.name} again."
        )


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{len(names)} tensors ({names[0]}, ...)"
