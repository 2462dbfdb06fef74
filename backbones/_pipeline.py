"""Any text-to-image, class-conditional or unconditional pipeline as a backbone; there is no list of families."""

from __future__ import annotations

import copy
import math
from typing import Any, cast

import torch
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffsift.errors import ModelError

from ._base import Backbone, digest_of
from ._intercept import expanded, intercept, refuse_other_media
from ._latents import encode_images
from ._schedule import Schedule


class PipelineBackbone(Backbone):
    """The denoiser of a diffusers pipeline, run on images as the pipeline itself runs it on noise.

    The conditioning is whatever the pipeline's own call hands its denoiser for the prompt: the call is made once and
    intercepted there, so size conditioning, pooled text embeddings and position ids come out as the pipeline means
    them, and so does the way in which the denoiser is told its timestep.

    Args:
        pipeline: loaded, on its device. Its text encoders are moved to the CPU once the prompt is encoded.
        name: what the backbone goes by within a study.
        source: what the user named it by (hub id or folder); kept for messages.
        image_size: (height, width) in pixels; None takes the size the model was trained for.
        prompt: one prompt for all images; empty by default, so that no label leaks into the features.

    Raises:
        ModelError: the pipeline makes something else than images, or calls its denoiser in a way not understood.
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
        refuse_other_media(pipeline, source)
        self.denoiser = _denoiser(pipeline, source)
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        self._vae: Any = getattr(pipeline, "vae", None)
        self._processor: Any = getattr(pipeline, "image_processor", None)
        self._schedule = Schedule(pipeline.scheduler, source)
        self.train_timesteps = self._schedule.train_timesteps
        self._factor = _vae_factor(pipeline, self._vae)
        self.image_size = image_size or self._native_size(pipeline)
        self._check_size(pipeline)
        self._call = intercept(pipeline, self.denoiser, prompt, self.image_size, source)
        self._told = self._schedule.reading(self._call.told, float(pipeline.scheduler.timesteps[0]), source)
        others = sorted(
            name
            for name, part in pipeline.components.items()
            if isinstance(part, nn.Module) and part is not self.denoiser and part is not self._vae
        )
        self._text_digest = digest_of(*(pipeline.components[name].to("cpu") for name in others))

    def _native_size(self, pipeline: DiffusionPipeline) -> tuple[int, int]:
        size = self.config.get("sample_size") or getattr(pipeline, "default_sample_size", None)
        if size is None:
            raise ModelError(f"model.image_size must be given for {self.source}: the model does not say its own size.")
        rows, columns = (size, size) if isinstance(size, int) else size
        return int(rows) * self._factor, int(columns) * self._factor

    def _check_size(self, pipeline: DiffusionPipeline) -> None:
        levels = len(self.config.get("block_out_channels") or ()) if self._vae is None else 0
        patch = self.config.get("patch_size") or 1
        patch = patch[-1] if isinstance(patch, list | tuple) else patch
        packed = 2 if hasattr(pipeline, "_pack_latents") else 1
        # diffusers' own latent pipelines take multiples of 8 only
        step = 2 ** max(levels - 1, 0) if self._vae is None else math.lcm(self._factor * patch * packed, 8)
        if any(edge % step for edge in self.image_size):
            raise ModelError(
                f"model.image_size must be multiples of {step} px for {self.source}, "
                f"but got {self.image_size[0]} x {self.image_size[1]}."
            )

    @property
    def channels(self) -> int:
        """Channels of the denoiser's clean input."""
        return self._call.channels

    def encode(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch latent_channels rows columns"]:
        clean = encode_images(self._vae, self._processor, images, self.device)
        if clean.shape[1] * 4 == self.channels and self._call.layout == "packed":
            clean = functional.pixel_unshuffle(clean, 2)
        if clean.shape[1] != self.channels:
            raise ModelError(
                f"the denoiser of {self.source} must be given the {clean.shape[1]} channels of an encoded image, but "
                f"takes {self.channels}: models that want more than the image (inpainting, upscaling) cannot be used."
            )
        return clean.to(self.dtype)

    def condition(self, batch: int) -> dict[str, Any]:
        return {key: expanded(value, batch) for key, value in self._call.conditioning.items()}

    def denoise(self, clean: Tensor, noise: Tensor, timestep: int, conditioning: dict[str, Any]) -> None:
        noisy = self._schedule.add_noise(clean, noise, timestep).to(clean.dtype)
        self.denoiser(**self._call.arguments(noisy, self._told(timestep)), **conditioning)

    @property
    def dtype(self) -> torch.dtype:
        return next(self.denoiser.parameters()).dtype

    @property
    def config(self) -> dict[str, Any]:
        """The denoiser's configuration."""
        return dict(cast("Any", self.denoiser).config)

    def with_denoiser(self, denoiser: nn.Module, *, name: str) -> PipelineBackbone:
        """A backbone that shares everything but the denoiser."""
        other = copy.copy(self)
        other.name = name
        # One argument at a time: diffusers warns of any cast, also of one to the type that a model has.
        denoiser = denoiser.requires_grad_(False).eval().to(self.device)
        other.denoiser = denoiser if self.dtype == torch.float32 else denoiser.to(self.dtype)
        return other

    def identity(self) -> dict[str, Any]:
        known: dict[str, Any] = {"denoiser": digest_of(self.denoiser)}
        if self._vae is not None:
            known |= {"vae": digest_of(self._vae), "vae_mode": "mode of the posterior"}
        return {
            **known,
            "conditioning": {"prompt": self.prompt, "text_encoders": self._text_digest},
            "scheduler": self._schedule.identity(),
            "dtype": str(self.dtype),
            "image_size": list(self.image_size),
            "resize": "stretch, bicubic, antialiased",
        }


def _denoiser(pipeline: DiffusionPipeline, source: str) -> nn.Module:
    for part in ("unet", "transformer"):
        found = getattr(pipeline, part, None)
        if isinstance(found, nn.Module):
            return found
    parts = ", ".join(sorted(name for name, part in pipeline.components.items() if isinstance(part, nn.Module)))
    raise ModelError(f"{source} must have a denoiser (unet or transformer), but has only: {parts or 'no networks'}.")


def _vae_factor(pipeline: DiffusionPipeline, vae: Any) -> int:
    """Pixels per place of the latents."""
    if vae is None:
        return 1
    declared = getattr(pipeline, "vae_scale_factor", None)
    return int(declared) if declared else 2 ** (len(vae.config.block_out_channels) - 1)
