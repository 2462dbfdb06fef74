"""Load backbones and module trees by hub id or folder. Weights are safetensors only, unless the user allows pickles."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import DiffusionPipeline
from torch import nn

from diffsift.common.reporting import LOGGER
from diffsift.errors import ModelError, did_you_mean, first_line

from ._base import Backbone
from ._batches import release_memory
from ._finding import folder_of, index_of, quiet_imports
from ._latents import tile_encoding
from ._loaded_pipeline import DENOISERS, LoadedPipeline
from ._parts import MOST_REGISTRATIONS, bounded, class_of, load_part, published_dtype
from ._pipeline import PipelineBackbone
from ._pipeline_call import refuse_other_media
from ._weight_files import check_weights
from .folders import check_model_folder, check_parts, parts_of, read_index
from .names import BackboneName
from .registry import BACKBONES, DIFFUSERS
from .specification import ModelSpecification
from .weights import DigestCache, digest_of

"""Digests of weights that were loaded without a cache of the caller's."""


def load(
    model: ModelSpecification,
    *,
    name: str = BackboneName.MAIN,
    beside: Backbone | None = None,
    digests: DigestCache | None = None,
) -> Backbone:
    """Load a model as a backbone.

    Args:
        model: which model, and how to run it.
        name: of the backbone, unique within a study; ``main`` by default.
        beside: a backbone of the same pipeline (`owner_of`), whose networks are used instead of loading them again.
        digests: remembers digests of weights between runs; by default they are computed.

    Returns:
        A `PipelineBackbone` for ``model.kind: diffusers``; what the registered kind makes for all others.

    Raises:
        ModelError: nothing is found under the id, it is no diffusers pipeline, or it is of a kind that cannot be used.
        SpecificationError: there is no such kind of backbone.
    """
    if model.kind != DIFFUSERS:
        backbone: object = BACKBONES[model.kind](model, name)
        if not isinstance(backbone, Backbone) or backbone.name != name:
            raise ModelError(
                f"model.kind {model.kind} must make a Backbone named {str(name)!r}, but made a "
                f"{type(backbone).__name__} named {str(getattr(backbone, 'name', None))!r}."
            )
        return backbone
    if isinstance(beside, PipelineBackbone):
        return beside.varied(model, name=name)
    return load_pipeline(model, name, digests=digests)


def load_pipeline(
    model: ModelSpecification, name: str = BackboneName.MAIN, *, digests: DigestCache | None = None
) -> PipelineBackbone:
    """Load a diffusers pipeline as a backbone: the built-in kind ``diffusers``.

    Args:
        model: which pipeline, and how to run it.
        name: of the backbone, unique within a study.
        digests: remembers digests of weights between runs; by default they are computed.

    Returns:
        The backbone, with frozen networks, on the device and in the type that `model` names.

    Raises:
        ModelError: nothing is found under the id, it is no diffusers pipeline, or it is of a kind that cannot be used.
    """
    check_model_folder(model.id)
    device = resolve_device(model.device)
    if model.offload and device.type == "cpu":
        raise ModelError("model.offload must be false on a CPU: it only saves GPU memory.")
    backbone = _backbone(model, name, device, digests)
    if model.dtype == "auto" and backbone.dtype == torch.float16 and not backbone.is_finite():
        wider = "bfloat16" if _takes_bfloat16(device) else "float32"
        LOGGER.warning(
            "activations of %s are not finite in float16: model.dtype: auto takes %s instead.", model.id, wider
        )
        del backbone
        release_memory()
        backbone = _backbone(model.model_copy(update={"dtype": wider}), name, device, digests)
    return backbone


def _backbone(
    model: ModelSpecification, name: str, device: torch.device, digests: DigestCache | None
) -> PipelineBackbone:
    pipeline = _loaded(model, device)
    if model.lora is not None:
        _merge_lora(pipeline, model)
    if model.vae_tiling:
        tile_encoding(getattr(pipeline, "vae", None), model.id)
    denoisers = [getattr(pipeline, part, None) for part in DENOISERS] if model.offload else []
    for part in pipeline.components.values():
        if isinstance(part, nn.Module) and not any(part is denoiser for denoiser in denoisers):
            part.to(device)

    def digest(*modules: nn.Module) -> str:
        if digests is None or model.lora is not None:  # merged weights are those of no file
            return digest_of(*modules)
        return digests.digest_of(modules, (model.variant, str(model.allow_pickle)))

    loaded = LoadedPipeline(pipeline, model.id, offload=device if model.offload else None, digest=digest)
    return PipelineBackbone(loaded, model, name=name)


def check_model(model: ModelSpecification) -> bool:
    """Refuse a model that is not there or cannot run here, by a first look that loads no weights.

    Args:
        model: of any kind; only of diffusers pipelines it is known how to look at them.

    Returns:
        Whether it is on this machine, so that loading it downloads nothing.

    Raises:
        ModelError: this machine has no such device, or there is no pipeline of this id.
    """
    if model.kind != DIFFUSERS:
        return False
    check_model_folder(model.id)
    resolve_device(model.device)
    if Path(model.id).expanduser().is_dir():
        return True
    with quiet_imports():
        index_of(model)
        try:
            return folder_of(model, download=False).is_dir()
        except ModelError:
            return False


def _loaded(model: ModelSpecification, device: torch.device) -> Any:
    with quiet_imports():
        folder = folder_of(model)
        index = read_index(folder)
        kind = _pipeline_class(index, folder)
        refuse_other_media(kind, model.id)
        parts = parts_of(index)
        check_parts(folder, parts)
        dtype = _dtype_of(model, folder, parts, device)
        if dtype == torch.float16 and device.type == "cpu":
            LOGGER.warning(
                "float16 is about ten times slower than float32 on a CPU: set model.dtype to bfloat16 or float32."
            )
        loaded = {}
        expected = inspect.signature(kind.__init__).parameters
        for name, (library, class_name) in parts.items():
            part_class = class_of(library, class_name)
            if part_class is not None and name in expected:
                loaded[name] = load_part(folder / name, part_class, model, dtype)
        try:
            return DiffusionPipeline.from_pretrained(
                str(folder),
                variant=model.variant,
                dtype=dtype,
                use_safetensors=None if model.allow_pickle else True,
                safety_checker=None,
                **loaded,
            )
        except Exception as error:  # whatever third-party code says of files that others wrote
            raise ModelError(f"{model.id} cannot be loaded as a {kind.__name__}: {first_line(error)}") from error


def _pipeline_class(index: dict[str, Any], folder: Path) -> type[Any]:
    name = index["_class_name"]
    found = getattr(diffusers, name, None) if isinstance(name, str) else None
    if not isinstance(found, type) or not issubclass(found, DiffusionPipeline):
        known = (entry for entry in dir(diffusers) if entry.endswith("Pipeline"))
        raise ModelError(
            f"the pipeline class {str(name)[:60]} of {folder} must be part of diffusers {diffusers.__version__}, but "
            f"is not{did_you_mean(str(name)[:60], known)}"
        )
    return found


def _merge_lora(pipeline: Any, model: ModelSpecification) -> None:
    """Merge LoRA weights into the denoiser's, with diffusers' own loader; the module tree stays as it is."""
    if importlib.util.find_spec("peft") is None:
        raise ModelError("model.lora needs the package peft, which is missing: pip install 'diffsift[lora]'.")
    if not hasattr(pipeline, "load_lora_weights"):
        raise ModelError(
            f"model.lora must be left out for {model.id}: {type(pipeline).__name__} takes no LoRA weights."
        )
    path = Path(str(model.lora)).expanduser()
    given = {"weight_name": path.name} if path.is_file() else {}
    if given and path.suffix != ".safetensors" and not model.allow_pickle:  # diffusers unpickles a file that is named
        raise ModelError(
            f"model.lora must be a .safetensors file, because pickled ones can run code, but is {path}; set "
            "model.allow_pickle: true only if you trust its author."
        )
    if given:
        check_weights(path)
    try:
        source = str(path.parent if given else model.lora)
        options = {"use_safetensors": None if model.allow_pickle else True, **given}
        pipeline.load_lora_weights(source, **options)
        if not pipeline.get_list_adapters():
            raise ValueError("none of its weights is of this model")
        read = pipeline.lora_state_dict(source, **options)
        names = read[0] if isinstance(read, tuple) else read
        # Diffusers leaves out what the model has no place for, and makes random values of what is missing.
        there, taken = _lora_tensors(names), _lora_tensors(_parameter_names(pipeline))
        if there != taken:
            raise ValueError(f"it holds {there} tensors, but {taken} are needed: it is of another model or not whole")
        pipeline.fuse_lora(lora_scale=model.lora_scale)
        pipeline.unload_lora_weights()
    except Exception as error:  # also the hub's client, without a network
        raise ModelError(f"model.lora {model.lora} cannot be added to {model.id}: {first_line(error)}") from error


def _lora_tensors(names: Iterable[str]) -> int:
    return sum("lora" in name and name.endswith(".weight") for name in names)


def _parameter_names(pipeline: Any) -> list[str]:
    networks = [part for part in pipeline.components.values() if isinstance(part, nn.Module)]
    return [name for network in networks for name, _ in network.named_parameters()]


def load_structure(model: str, *, revision: str | None = None) -> nn.Module:
    """The denoiser of a pipeline on the meta device: its module tree without weights, from configurations alone.

    Args:
        model: hub id or folder of a pipeline; the folder needs ``model_index.json`` and the denoiser's ``config.json``.
        revision: branch, tag or commit on the hub; default: its main branch.

    Returns:
        A module for `read_activations`; it cannot be run on data.

    Raises:
        ModelError: no pipeline, no denoiser in it, or a class this diffusers does not have.
    """
    check_model_folder(model)
    with quiet_imports():
        known = parts_of(index_of(ModelSpecification(id=model, revision=revision)))
        part = next((part for part in DENOISERS if part in known), None)
        if part is None:
            names = ", ".join(sorted(known))
            raise ModelError(f"{model} must have a denoiser (unet or transformer), but has only: {names or 'nothing'}.")
        class_name = known[part][1]
        denoiser_class = class_of(*known[part])
        if denoiser_class is None:
            raise ModelError(
                f"the denoiser class {class_name} of {model} must be part of diffusers {diffusers.__version__}, but is "
                f"not{did_you_mean(class_name, (entry for entry in dir(diffusers) if 'Model' in entry))}"
            )
        try:
            config = denoiser_class.load_config(model, subfolder=part, revision=revision)
        except OSError as error:
            raise ModelError(
                f"{model} must hold {part}/config.json, but it cannot be read: {first_line(error)}"
            ) from error
        try:
            with torch.device("meta"), bounded(Path(model) / part, MOST_REGISTRATIONS):
                denoiser: nn.Module = denoiser_class.from_config(config)
        except ModelError:
            raise
        except Exception as error:
            raise ModelError(
                f"{part}/config.json of {model} must describe a {class_name}, but cannot be built: {first_line(error)}"
            ) from error
    return denoiser


def resolve_device(device: str) -> torch.device:
    """The device of a name.

    Args:
        device: as torch names it (``cpu``, ``cuda:1``, ``mps``); ``auto`` is the first GPU, or else the CPU.

    Returns:
        A device that this machine can use.

    Raises:
        ModelError: this machine has no such device.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        resolved = torch.device(device)
        torch.empty(0, device=resolved)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(
            f"model.device must be a device this machine has (auto, cpu, cuda, cuda:1, mps), but {device!r} cannot be "
            f"used: {first_line(error)}"
        ) from error
    return resolved


def resolve_dtype(dtype: str, device: torch.device, published: torch.dtype | None = None) -> torch.dtype:
    """The torch type of a name.

    Args:
        dtype: ``float32``, ``float16``, ``bfloat16``, or ``auto``: bfloat16 where the weights were published in it
            (their activations may exceed what float16 can hold), else float16 on a GPU and float32 on a CPU.
        device: device that the model runs on.
        published: type of the weights as they were published, where it is known.

    Returns:
        The type of the model's weights and activations.
    """
    if dtype != "auto":
        resolved: torch.dtype = getattr(torch, dtype)
        return resolved
    if published == torch.bfloat16:
        return torch.bfloat16 if _takes_bfloat16(device) else torch.float32
    return torch.float32 if device.type == "cpu" else torch.float16


def _takes_bfloat16(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def _dtype_of(
    model: ModelSpecification, folder: Path, parts: Mapping[str, tuple[str, str]], device: torch.device
) -> torch.dtype:
    """The type of a model's weights; the denoiser's files are looked at where it is to be chosen."""
    published = None
    for part in DENOISERS if model.dtype == "auto" else ():
        kind = class_of(*parts[part]) if part in parts else None
        if kind is not None:
            published = published_dtype(folder / part, kind, model)
    return resolve_dtype(model.dtype, device, published)
