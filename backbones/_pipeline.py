"""Any text-to-image, class-conditional or unconditional pipeline as a backbone; there is no list of families."""

from __future__ import annotations

import copy
import inspect
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from accelerate import cpu_offload  # type: ignore[import-untyped]
from diffusers import DiffusionPipeline
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffsift.errors import ModelError

from ._base import Backbone, digest_of
from ._intercept import DenoiserCall, expanded, intercept, joined, refuse_other_media
from ._latents import encode_images
from ._resizing import Resize
from ._schedule import Schedule
from .names import BackboneName


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
        resize: how images are brought to `image_size`: ``stretch`` or ``pad``.
        noise_seeds: noise draws that features are averaged over.
        noise_shared: whether all images get the same noise.
        offload: device to which accelerate brings each layer's weights when it runs, from the CPU's memory.

    Raises:
        ModelError: the pipeline makes something else than images, or calls its denoiser in a way not understood.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        *,
        name: str = BackboneName.MAIN,
        source: str,
        image_size: tuple[int, int] | None = None,
        prompt: str = "",
        resize: Resize = "stretch",
        noise_seeds: int = 1,
        noise_shared: bool = False,
        offload: torch.device | None = None,
    ) -> None:
        self.name, self.source = name, source
        refuse_other_media(pipeline, source)
        self.denoiser = self._own_denoiser = _denoiser(pipeline, source)
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        self._offload = offload
        self._digest = None if offload is None else self._offloaded(self.denoiser)
        self._vae: Any = getattr(pipeline, "vae", None)
        self._processor: Any = getattr(pipeline, "image_processor", None)
        self._schedule = Schedule(pipeline.scheduler, source)
        self.train_timesteps = self._schedule.train_timesteps
        self._factor = _vae_factor(pipeline, self._vae)
        self._pipeline = pipeline
        self._run_as(image_size, prompt, resize, noise_seeds, noise_shared)
        self._text_digest = digest_of(*self._text_encoders())
        # Before any image: encoding may raise the VAE's precision, which makes no other VAE of it.
        self._vae_digest = None if self._vae is None else digest_of(self._vae)

    def _run_as(
        self, image_size: tuple[int, int] | None, prompt: str, resize: Resize, noise_seeds: int, noise_shared: bool
    ) -> None:
        """How the pipeline is run, whatever was loaded."""
        self.prompt, self.resize, self.noise_seeds, self.noise_shared = prompt, resize, noise_seeds, noise_shared
        self.image_size = image_size or self._native_size(self._pipeline)
        self.check_image_size(self.image_size)
        self._calls = dict[str, DenoiserCall]()
        self._call = self._call_with(prompt)
        first = float(self._pipeline.scheduler.timesteps[0])
        self._told = self._schedule.reading(self._call.told, first, self.source)

    def _offloaded(self, denoiser: nn.Module) -> str:
        """Leave a denoiser's weights with accelerate, which brings them layer by layer; returns their digest."""
        digest = digest_of(denoiser)
        cpu_offload(denoiser.to("cpu"), execution_device=self._offload)
        return digest

    def _text_encoders(self) -> list[nn.Module]:
        parts = sorted((name, part) for name, part in self._pipeline.components.items() if isinstance(part, nn.Module))
        return [part for _, part in parts if part is not self._own_denoiser and part is not self._vae]

    def _call_with(self, prompt: str) -> DenoiserCall:
        """How the pipeline calls its denoiser for a prompt. It is encoded once; then text encoders leave the device."""
        if prompt not in self._calls:
            for part in self._text_encoders():
                part.to(self.device)
            self._calls[prompt] = intercept(self._pipeline, self._own_denoiser, prompt, self.image_size, self.source)
            for part in self._text_encoders():
                part.to("cpu")
        return self._calls[prompt]

    def _native_size(self, pipeline: DiffusionPipeline) -> tuple[int, int]:
        size = self.config.get("sample_size") or getattr(pipeline, "default_sample_size", None)
        if size is None:
            raise ModelError(f"model.image_size must be given for {self.source}: the model does not say its own size.")
        rows, columns = (size, size) if isinstance(size, int) else size
        return int(rows) * self._factor, int(columns) * self._factor

    @property
    def takes_text(self) -> bool:
        """Whether a prompt changes anything."""
        return "prompt" in inspect.signature(type(self._pipeline).__call__).parameters

    def check_image_size(self, size: tuple[int, int], field: str = "model.image_size") -> None:
        """Refuse a size, given in `field` of the specification, that the model cannot take.

        Raises:
            ModelError: it is no multiple of what the network halves.
        """
        levels = len(self.config.get("block_out_channels") or ()) if self._vae is None else 0
        patch = self.config.get("patch_size") or 1
        patch = patch[-1] if isinstance(patch, list | tuple) else patch
        packed = 2 if hasattr(self._pipeline, "_pack_latents") else 1
        # diffusers' own latent pipelines take multiples of 8 only
        step = 2 ** max(levels - 1, 0) if self._vae is None else math.lcm(self._factor * patch * packed, 8)
        if any(edge % step for edge in size):
            raise ModelError(
                f"{field} must be multiples of {step} px for {self.source}, but got {size[0]} x {size[1]}."
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

    def condition(self, batch: int, prompts: Sequence[str] | None = None) -> dict[str, Any]:
        if prompts is None:
            return {key: expanded(value, batch) for key, value in self._call.conditioning.items()}
        calls = [self._call_with(prompt).conditioning for prompt in prompts]
        try:
            return {key: joined([call[key] for call in calls]) for key in calls[0]}
        except (RuntimeError, KeyError) as error:
            raise ModelError(
                f"{self.source} must encode every prompt to the same length to take several in a batch, but does not: "
                "use one prompt (model.prompt), or model.batch_size: 1."
            ) from error

    @property
    def device(self) -> torch.device:
        return self._offload if self._offload is not None else super().device

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
        denoiser = denoiser.requires_grad_(False).eval()
        denoiser = denoiser if self.dtype == torch.float32 else denoiser.to(self.dtype)
        if self._offload is None:
            other.denoiser, other._digest = denoiser.to(self.device), None
        else:
            other.denoiser, other._digest = denoiser, self._offloaded(denoiser)
        return other

    def varied(
        self,
        *,
        name: str,
        image_size: tuple[int, int] | None = None,
        prompt: str = "",
        resize: Resize = "stretch",
        noise_seeds: int = 1,
        noise_shared: bool = False,
    ) -> PipelineBackbone:
        """A backbone that shares all networks and is run in another way; the arguments are those of the class."""
        self._digest = self._digest or digest_of(self.denoiser)  # large networks are hashed once for all
        other = copy.copy(self)
        other.name, other._activations, other._most_together = name, (), None
        other._run_as(image_size, prompt, resize, noise_seeds, noise_shared)
        return other

    def fitting(self) -> dict[str, Any]:
        """The image size and how images are brought to it, as JSON."""
        ways = {"stretch": "stretch, bicubic, antialiased", "pad": "fit and pad with grey, bicubic, antialiased"}
        return {"image_size": list(self.image_size), "resize": ways[self.resize]}

    def identity(self) -> dict[str, Any]:
        known: dict[str, Any] = {"denoiser": self._digest or digest_of(self.denoiser)}
        if self.noise_seeds > 1:
            known["noise_seeds"] = self.noise_seeds
        if self.noise_shared:
            known["noise_shared"] = True
        if self._vae is not None:
            known |= {"vae": self._vae_digest, "vae_mode": "mode of the posterior"}
        return {
            **known,
            "conditioning": {"prompt": self.prompt, "text_encoders": self._text_digest},
            "scheduler": self._schedule.identity(),
            "dtype": str(self.dtype),
            **self.fitting(),
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
