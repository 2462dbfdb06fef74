"""Stable-Diffusion-like pipelines: an `AutoencoderKL`, text encoders and a `UNet2DConditionModel`."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch
from diffusers import DDPMScheduler, DiffusionPipeline, UNet2DConditionModel
from jaxtyping import Float
from torch import Tensor, nn

from diffsift.errors import ModelError

from ._base import Backbone, digest_of


class _Intercepted(Exception):  # noqa: N818 - control flow, not an error
    def __init__(self, arguments: dict[str, Any]) -> None:
        self.arguments = arguments


class StableDiffusionBackbone(Backbone):
    """Any latent text-to-image pipeline with a conditional U-Net: SD 1.x, 2.x, SDXL and their kin.

    The conditioning is whatever the pipeline's own call hands its U-Net for the prompt: the call is made once and
    intercepted there, so size conditioning and pooled text embeddings come out as the pipeline means them.

    Args:
        pipeline: loaded, on its device. Its text encoders are moved to the CPU once the prompt is encoded.
        name: what the backbone goes by within a study.
        source: what the user named it by (hub id or folder); kept for messages.
        image_size: (height, width) in pixels; None takes the size the model was trained for.
        prompt: one prompt for all images; empty by default, so that no label leaks into the features.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        *,
        name: str = "main",
        source: str,
        image_size: tuple[int, int] | None = None,
        prompt: str = "",
    ) -> None:
        self.name, self.source, self.prompt = name, source, prompt
        self._vae: Any = _component(pipeline, "vae", source)
        self._processor: Any = _component(pipeline, "image_processor", source)
        self._scheduler = _training_scheduler(pipeline.scheduler, source)
        self.train_timesteps = int(self._scheduler.config["num_train_timesteps"])
        unet: Any = _component(pipeline, "unet", source)
        if not isinstance(unet, UNet2DConditionModel):
            raise ModelError(
                f"the denoiser of {source} must be a UNet2DConditionModel, but is a {type(unet).__name__}."
            )
        self.denoiser = unet.requires_grad_(False).eval()
        self._vae.requires_grad_(False).eval()
        self._factor = 2 ** (len(self._vae.config.block_out_channels) - 1)
        self.image_size = image_size or self._native_size(unet)
        self._check_size()
        self._conditioning = _pipeline_conditioning(pipeline, self.denoiser, prompt, self.image_size)
        encoders = [getattr(pipeline, component, None) for component in ("text_encoder", "text_encoder_2")]
        loaded = [encoder.to("cpu") for encoder in encoders if isinstance(encoder, nn.Module)]
        self._text_digest = digest_of(*loaded)

    def _native_size(self, unet: UNet2DConditionModel) -> tuple[int, int]:
        size = unet.config["sample_size"]
        rows, columns = (size, size) if isinstance(size, int) else size
        return rows * self._factor, columns * self._factor

    def _check_size(self) -> None:
        step = math.lcm(self._factor, 8)  # diffusers' own pipelines take multiples of 8 only
        if any(edge % step for edge in self.image_size):
            raise ModelError(
                f"model.image_size must be multiples of {step} px for {self.source}, "
                f"but got {self.image_size[0]} x {self.image_size[1]}."
            )

    def encode(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch latent_channels rows columns"]:
        pixels = self._processor.preprocess(images).to(self.device, self._vae.dtype)
        if self._vae.dtype == torch.float16 and self._vae.config.get("force_upcast", False):
            # The VAE of SDXL overflows float16, as its own configuration says.
            self._vae.to(torch.float32)
            pixels = pixels.float()
        latents = self._vae.encode(pixels).latent_dist.mode()
        shift = self._vae.config.get("shift_factor") or 0.0
        scaled: Tensor = (latents - shift) * self._vae.config.scaling_factor
        return scaled.to(self.dtype)

    def condition(self, batch: int) -> dict[str, Any]:
        return {key: _expanded(value, batch) for key, value in self._conditioning.items()}

    def denoise(self, clean: Tensor, noise: Tensor, timestep: int, conditioning: dict[str, Any]) -> None:
        steps = torch.full((len(clean),), timestep, device=clean.device, dtype=torch.long)
        noisy = self._scheduler.add_noise(clean, noise, steps).to(clean.dtype)
        self.denoiser(noisy, steps, **conditioning)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    @property
    def config(self) -> dict[str, Any]:
        """The denoiser's configuration."""
        return dict(cast("Any", self.denoiser).config)

    def with_denoiser(self, denoiser: nn.Module, *, name: str) -> StableDiffusionBackbone:
        """A backbone that shares everything but the denoiser."""
        other = copy.copy(self)
        other.name = name
        # One argument at a time: diffusers warns of any cast, also of one to the type that a model has.
        denoiser = denoiser.requires_grad_(False).eval().to(self.device)
        other.denoiser = denoiser if self.dtype == torch.float32 else denoiser.to(self.dtype)
        return other

    def identity(self) -> dict[str, Any]:
        return {
            "denoiser": digest_of(self.denoiser),
            "vae": digest_of(self._vae),
            "vae_mode": "mode of the posterior",
            "conditioning": {"prompt": self.prompt, "text_encoders": self._text_digest},
            "scheduler": {key: value for key, value in sorted(self._scheduler.config.items()) if key[0] != "_"},
            "dtype": str(self.dtype),
            "image_size": list(self.image_size),
            "resize": "stretch, bicubic, antialiased",
        }


def _component(pipeline: DiffusionPipeline, name: str, source: str) -> Any:
    component = getattr(pipeline, name, None)
    if component is None:
        raise ModelError(
            f"{source} must be a Stable-Diffusion-like pipeline with a vae, an image processor and a unet, "
            f"but {type(pipeline).__name__} has no {name}."
        )
    return component


def _training_scheduler(scheduler: Any, source: str) -> DDPMScheduler:
    """The noise schedule as training used it: samplers such as Euler only know the steps they were set to."""
    if not any(kind.__name__ == "DDPMScheduler" for kind in [type(scheduler), *scheduler.compatibles]):
        raise ModelError(
            f"the scheduler of {source} must have a variance-preserving noise schedule, but is a "
            f"{type(scheduler).__name__}, which cannot add noise at a training timestep."
        )
    return DDPMScheduler.from_config(scheduler.config)


def _pipeline_conditioning(
    pipeline: DiffusionPipeline, denoiser: nn.Module, prompt: str, size: tuple[int, int]
) -> dict[str, Any]:
    """What the pipeline's own call passes to its denoiser beside sample and timestep, for a batch of one."""

    def intercept(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        raise _Intercepted(kwargs)

    handle = denoiser.register_forward_pre_hook(intercept, with_kwargs=True)
    pipeline.set_progress_bar_config(disable=True)
    try:
        with torch.inference_mode():
            pipeline(
                prompt,
                height=size[0],
                width=size[1],
                guidance_scale=1.0,
                num_inference_steps=2,
                output_type="latent",
                generator=torch.Generator().manual_seed(0),
            )
    except _Intercepted as intercepted:
        keep = ("encoder_hidden_states", "added_cond_kwargs", "timestep_cond", "class_labels")
        return {key: value for key, value in intercepted.arguments.items() if key in keep and value is not None}
    finally:
        handle.remove()
    raise ModelError(f"{type(pipeline).__name__} must call its denoiser when it is given a prompt, but did not.")


def _expanded(value: Any, batch: int) -> Any:
    if isinstance(value, dict):
        return {key: _expanded(entry, batch) for key, entry in value.items()}
    return value.expand(batch, *value.shape[1:]) if isinstance(value, Tensor) else value
