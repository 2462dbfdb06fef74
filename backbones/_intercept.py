"""The generic way to run any pipeline's denoiser: let the pipeline prepare everything, and take it at the door.

The pipeline's own call is made once, with its prompt (or class), size and two steps, and intercepted where it calls its
denoiser. What it passes beside the image and the timestep is the conditioning, as the pipeline means it: text
embeddings, pooled embeddings, size and position ids.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal

import torch
from diffusers import DiffusionPipeline
from torch import Tensor, nn

from diffsift.errors import ModelError

Layout = Literal["map", "frame", "packed", "list"]

_SAMPLES = ("sample", "hidden_states", "x", "latents")
_TIMESTEPS = ("timestep", "timesteps", "t")
_NOT_IMAGES = ("num_frames", "video_length", "audio_length_in_s", "audio_end_in_s", "audio_duration", "video")


class _Intercepted(Exception):  # noqa: N818 - control flow, not an error
    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments


@dataclass(frozen=True)
class DenoiserCall:
    """How a pipeline calls its denoiser.

    Attributes:
        sample: name of the argument that is the noised image.
        layout: ``map`` is (batch, channels, rows, columns); ``frame`` has an axis of one frame behind the channels;
            ``packed`` is (batch, rows * columns, channels); ``list`` is one (channels, 1, rows, columns) per image.
        channels: of the image.
        time: name of the argument that is the timestep.
        told: what was passed as the timestep.
        time_dtype: of the timestep.
        conditioning: all other arguments, for a batch of one.
    """

    sample: str
    layout: Layout
    channels: int
    time: str
    told: float
    time_dtype: torch.dtype
    conditioning: dict[str, Any]

    def arguments(self, noisy: Tensor, timestep: float) -> dict[str, Any]:
        """Sample and timestep as keyword arguments, for noised images (batch, channels, rows, columns)."""
        value: Any = noisy
        if self.layout == "frame":
            value = noisy.unsqueeze(2)
        elif self.layout == "packed":
            value = noisy.flatten(2).transpose(1, 2)
        elif self.layout == "list":
            value = list(noisy.unsqueeze(2))
        time = torch.full((len(noisy),), timestep, device=noisy.device, dtype=torch.float32)
        return {self.sample: value, self.time: time.to(self.time_dtype)}


def refuse_other_media(pipeline: DiffusionPipeline, source: str) -> None:
    """Raise `ModelError` for a pipeline that makes video or audio."""
    parameters = inspect.signature(type(pipeline).__call__).parameters
    found = next((name for name in _NOT_IMAGES if name in parameters), None)
    if found is not None:
        media = "audio" if "audio" in found else "video"
        raise ModelError(f"{source} must be an image model, but its {type(pipeline).__name__} makes {media}.")


def intercept(
    pipeline: DiffusionPipeline, denoiser: nn.Module, prompt: str, size: tuple[int, int], source: str
) -> DenoiserCall:
    """Call the pipeline until it calls its denoiser, and say how it does.

    Raises:
        ModelError: the pipeline fails or never calls its denoiser, or calls it in a way that is not understood.
    """

    def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Intercepted(dict(inspect.signature(denoiser.forward).bind_partial(*args, **kwargs).arguments))

    handle = denoiser.register_forward_pre_hook(take, with_kwargs=True)
    pipeline.set_progress_bar_config(disable=True)
    try:
        with torch.inference_mode():
            pipeline(**_call_arguments(pipeline, denoiser, prompt, size))
    except _Intercepted as intercepted:
        return _described(intercepted.arguments, source)
    except (TypeError, ValueError, RuntimeError, AttributeError, ImportError) as error:
        first = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ModelError(
            f"{source} must run for a prompt of its own at {size[0]} x {size[1]} px, but its {type(pipeline).__name__} "
            f"fails: {first}"
        ) from error
    finally:
        handle.remove()
    raise ModelError(f"{type(pipeline).__name__} must call its denoiser when it is called, but did not.")


def _call_arguments(
    pipeline: DiffusionPipeline, denoiser: nn.Module, prompt: str, size: tuple[int, int]
) -> dict[str, Any]:
    config: Any = getattr(denoiser, "config", {})
    wanted: dict[str, Any] = {
        "prompt": prompt,
        "height": size[0],
        "width": size[1],
        "num_inference_steps": 2,
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(0),
        "true_cfg_scale": 1.0,
        # These would change the prompt or the size that was asked for.
        "use_resolution_binning": False,
        "clean_caption": False,
        "complex_human_instruction": None,
    }
    if not config.get("guidance_embeds"):  # a model that is told its guidance keeps the pipeline's own
        wanted["guidance_scale"] = 1.0
    if config.get("num_embeds_ada_norm") is not None:
        # The class behind the last is the one that training put in place of a dropped label.
        wanted["class_labels"] = [int(config["num_embeds_ada_norm"])]
    parameters = inspect.signature(type(pipeline).__call__).parameters
    return {name: value for name, value in wanted.items() if name in parameters}


def _described(given: dict[str, Any], source: str) -> DenoiserCall:
    sample = next((name for name in _SAMPLES if name in given), None)
    time = next((name for name in _TIMESTEPS if name in given), None)
    if sample is None or time is None:
        raise ModelError(
            f"the denoiser of {source} must be given an image and a timestep, but is given {', '.join(given)}."
        )
    layout, channels, batch = _layout(given[sample], source)
    told = given[time]
    told = torch.as_tensor(told).flatten()
    extra = given.pop("kwargs", {})
    rest = {name: value for name, value in {**given, **extra}.items() if name not in (sample, time)}
    return DenoiserCall(
        sample=sample,
        layout=layout,
        channels=channels,
        time=time,
        told=float(told[0]),
        time_dtype=told.dtype,
        conditioning={name: _first(value, batch) for name, value in rest.items() if value is not None},
    )


def _layout(sample: Any, source: str) -> tuple[Layout, int, int]:
    """Layout, channels and batch size of what a denoiser is given as the image."""
    if isinstance(sample, list | tuple) and sample and isinstance(sample[0], Tensor) and sample[0].ndim == 4:
        return "list", int(sample[0].shape[0]), len(sample)
    if isinstance(sample, Tensor):
        if sample.ndim == 3:
            return "packed", int(sample.shape[2]), int(sample.shape[0])
        if sample.ndim == 4:
            return "map", int(sample.shape[1]), int(sample.shape[0])
        if sample.ndim == 5 and sample.shape[2] == 1:
            return "frame", int(sample.shape[1]), int(sample.shape[0])
    shape = tuple(sample.shape) if isinstance(sample, Tensor) else type(sample).__name__
    raise ModelError(
        f"the denoiser of {source} must be given single images, but its pipeline gives it {shape}: video models and "
        "other media cannot be used."
    )


def _first(value: Any, batch: int) -> Any:
    """A batch of one: the first of what there is for each image (the unconditional one where there is guidance)."""
    if isinstance(value, dict):
        return {key: _first(entry, batch) for key, entry in value.items()}
    if isinstance(value, Tensor) and value.ndim and value.shape[0] == batch:
        return value[:1]
    if isinstance(value, list) and len(value) == batch:
        return value[:1]
    return value


def joined(values: list[Any]) -> Any:
    """Conditionings of single images as that of a batch.

    Raises:
        RuntimeError: tensors differ in length.
    """
    first = values[0]
    if isinstance(first, dict):
        return {key: joined([value[key] for value in values]) for key in first}
    if isinstance(first, Tensor) and first.ndim and first.shape[0] == 1:
        return torch.cat(values)
    if isinstance(first, list) and len(first) == 1:
        return [value[0] for value in values]
    return first


def expanded(value: Any, batch: int) -> Any:
    """Conditioning of a batch of one for a batch of any size."""
    if isinstance(value, dict):
        return {key: expanded(entry, batch) for key, entry in value.items()}
    if isinstance(value, Tensor) and value.ndim and value.shape[0] == 1:
        return value.expand(batch, *value.shape[1:])
    if isinstance(value, list) and len(value) == 1:
        return value * batch
    return value
