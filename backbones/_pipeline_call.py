"""How a pipeline calls its denoiser, recorded from one call of the pipeline itself.

The pipeline is called once, with its prompt (or class), size and two steps, and stopped where it calls its denoiser.
The arguments beside the image and the timestep are the conditioning, prepared as the pipeline prepares it: text
embeddings, pooled embeddings, size and position ids. No list of pipelines is needed.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn

from diffsift.errors import ModelError, first_line

InputLayout = Literal["map", "frame", "packed", "list"]

_IMAGES = ("sample", "hidden_states", "x", "latents")
_TIMESTEPS = ("timestep", "timesteps", "t")
_NOT_IMAGES = ("num_frames", "video_length", "audio_length_in_s", "audio_end_in_s", "audio_duration", "video")


class _Intercepted(Exception):  # noqa: N818 - control flow, not an error
    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments


@dataclass(frozen=True)
class DenoiserCall:
    """How a pipeline calls its denoiser.

    Attributes:
        image_argument: name of the argument that is the noised image.
        layout: ``map`` is (batch, channels, rows, columns); ``frame`` has an axis of one frame behind the channels;
            ``packed`` is (batch, rows * columns, channels); ``list`` is one (channels, 1, rows, columns) per image.
        channels: number of channels of the image.
        timestep_argument: name of the argument that is the timestep.
        timestep_dtype: type of that argument.
        passed_timestep: the value that the pipeline passed there.
        scheduler_timestep: the scheduler's timestep that it passed the value for.
        conditioning: all other arguments, for a batch of one.
    """

    image_argument: str
    layout: InputLayout
    channels: int
    timestep_argument: str
    timestep_dtype: torch.dtype
    passed_timestep: float
    scheduler_timestep: float
    conditioning: dict[str, Any]

    def arguments(self, noisy: Float[Tensor, "batch channels rows columns"], timestep: float) -> dict[str, Any]:
        """Image and timestep as keyword arguments of the denoiser.

        Args:
            noisy: noised images.
            timestep: in the form in which the pipeline passes it.
        """
        value: Any = noisy
        if self.layout == "frame":
            value = noisy.unsqueeze(2)
        elif self.layout == "packed":
            value = noisy.flatten(2).transpose(1, 2)
        elif self.layout == "list":
            value = list(noisy.unsqueeze(2))
        time = torch.full((len(noisy),), timestep, device=noisy.device, dtype=torch.float32)
        return {self.image_argument: value, self.timestep_argument: time.to(self.timestep_dtype)}


def refuse_other_media(kind: type[DiffusionPipeline], source: str) -> None:
    """Refuse a pipeline that makes video or audio.

    Args:
        kind: class of the pipeline.
        source: the user's name for it, for the message.

    Raises:
        ModelError: it does.
    """
    parameters = inspect.signature(kind.__call__).parameters
    found = next((name for name in _NOT_IMAGES if name in parameters), None)
    if found is not None:
        media = "audio" if "audio" in found else "video"
        raise ModelError(f"{source} must be an image model, but its {kind.__name__} makes {media}.")


def record_denoiser_call(
    pipeline: DiffusionPipeline, denoiser: nn.Module, prompt: str, size: tuple[int, int], source: str
) -> DenoiserCall:
    """Call the pipeline until it calls its denoiser, and record the arguments.

    Args:
        pipeline: loaded; all of its networks are where they must be for the call.
        denoiser: the pipeline's own, which is not run.
        prompt: text, where the pipeline takes any.
        size: height and width in pixels.
        source: the user's name for the model, for messages.

    Raises:
        ModelError: the pipeline fails or never calls its denoiser, or calls it in a way that is not understood.
    """

    def take(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Intercepted(dict(inspect.signature(denoiser.forward).bind_partial(*args, **kwargs).arguments))

    handle = denoiser.register_forward_pre_hook(take, with_kwargs=True)
    pipeline.set_progress_bar_config(disable=True)
    try:
        with torch.inference_mode():
            cast("Any", pipeline)(**_call_arguments(pipeline, denoiser, prompt, size))
    except _Intercepted as intercepted:
        timestep = float(cast("Any", pipeline).scheduler.timesteps[0])
        return _described(intercepted.arguments, timestep, source)
    except Exception as error:  # whatever a pipeline's code says of files that others wrote
        raise ModelError(
            f"{source} must run with a prompt at {size[0]} x {size[1]} px, but its {type(pipeline).__name__} "
            f"fails: {first_line(error)}"
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
        "num_inference_steps": 4,  # Runge-Kutta steps of PNDM need so many
        "output_type": "latent",
        "generator": torch.Generator().manual_seed(0),
        "true_cfg_scale": 1.0,
        # These would change the prompt or the size that was asked for.
        "use_resolution_binning": False,
        "clean_caption": False,
        "complex_human_instruction": None,
    }
    if not config.get("guidance_embeds"):  # a model conditioned on its guidance scale keeps the pipeline's own
        wanted["guidance_scale"] = 1.0
    if config.get("num_embeds_ada_norm") is not None:
        # The index after the last class is the one that training used for a dropped label.
        wanted["class_labels"] = [int(config["num_embeds_ada_norm"])]
    parameters = inspect.signature(type(pipeline).__call__).parameters
    return {name: value for name, value in wanted.items() if name in parameters}


def _described(given: dict[str, Any], scheduler_timestep: float, source: str) -> DenoiserCall:
    image = next((name for name in _IMAGES if name in given), None)
    time = next((name for name in _TIMESTEPS if name in given), None)
    if image is None or time is None:
        raise ModelError(f"the denoiser of {source} must take an image and a timestep, but takes {', '.join(given)}.")
    layout, channels, batch = _layout(given[image], source)
    passed = torch.as_tensor(given[time]).flatten()
    extra = given.pop("kwargs", {})
    rest = {name: value for name, value in {**given, **extra}.items() if name not in (image, time)}
    return DenoiserCall(
        image_argument=image,
        layout=layout,
        channels=channels,
        timestep_argument=time,
        timestep_dtype=passed.dtype,
        passed_timestep=float(passed[0]),
        scheduler_timestep=scheduler_timestep,
        conditioning={name: _first(value, batch) for name, value in rest.items() if value is not None},
    )


def _layout(sample: Any, source: str) -> tuple[InputLayout, int, int]:
    """Layout, channels and batch size of the image argument."""
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
        f"the denoiser of {source} must take single images, but its pipeline passes {shape}: video models and "
        "other media cannot be used."
    )


def _first(value: Any, batch: int) -> Any:
    """A batch of one: the first of each image's values (the unconditional one where there is guidance)."""
    if isinstance(value, dict):
        return {key: _first(entry, batch) for key, entry in value.items()}
    if isinstance(value, Tensor) and value.ndim and value.shape[0] == batch:
        return value[:1]
    if isinstance(value, list) and len(value) == batch:
        return value[:1]
    return value


def join_batch(values: list[Any]) -> Any:
    """Join the conditionings of single images to that of a batch.

    Raises:
        RuntimeError: tensors differ in length.
    """
    first = values[0]
    if isinstance(first, dict):
        return {key: join_batch([value[key] for value in values]) for key in first}
    if isinstance(first, Tensor) and first.ndim and first.shape[0] == 1:
        return torch.cat(values)
    if isinstance(first, list) and len(first) == 1:
        return [value[0] for value in values]
    return first


def expand_batch(value: Any, batch: int) -> Any:
    """Repeat the conditioning of a batch of one for a batch of any size."""
    if isinstance(value, dict):
        return {key: expand_batch(entry, batch) for key, entry in value.items()}
    if isinstance(value, Tensor) and value.ndim and value.shape[0] == 1:
        # A copy, as a pipeline itself passes it: some denoisers take views that strides of 0 do not allow.
        return value.expand(batch, *value.shape[1:]).contiguous()
    if isinstance(value, list) and len(value) == 1:
        return value * batch
    return value
