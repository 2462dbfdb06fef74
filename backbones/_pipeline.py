"""Any text-to-image, class-conditional or unconditional pipeline as a backbone; there is no list of families."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffsift.errors import DiffsiftError, ModelError, first_line

from ._base import Backbone
from ._batches import free_memory
from ._latents import encode_images, encoding_bytes
from ._loaded_pipeline import LoadedPipeline
from ._pipeline_call import expand_batch, join_batch
from ._untrained import free_weights, untrained_network
from .activation import Activation
from .capture import grid_size
from .names import BackboneName
from .specification import ModelSpecification
from .weights import HashedNetwork

_LARGEST_NATIVE = 8192
"""Largest edge in px that a model's own size may have."""

_SMALL = 64
"""Least edge in px of the image that shows a VAE's latents."""

_BATCH_MEMORY = 500_000_000
"""Bytes that images which are encoded, or denoised, together may take, where one image takes less."""

_MAPS_IN_PASS = 8
"""Maps of the largest activation that a pass of one image holds at once, about."""


class PipelineBackbone(Backbone):
    """The denoiser of a diffusers pipeline, run on images as the pipeline itself runs it on noise.

    The conditioning is exactly what the pipeline's own call passes to its denoiser for the prompt: the call is made
    once and recorded. So size conditioning, pooled text embeddings and position ids are the pipeline's own, and so is
    the form in which the timestep is passed.

    Args:
        loaded: the pipeline, which several backbones may share.
        model: how to run it: `image_size` (default: the size that the model was trained for), `prompt`, `resize`,
            `noise_seeds` and `noise_shared` are read.
        name: of the backbone, unique within a study.
        network: a denoiser to run in place of the pipeline's own.
        catalogue: a backbone with the same module tree whose `activations` are taken, instead of running this one.

    Raises:
        ModelError: the image size is not one of the model's, or the pipeline calls its denoiser in a way that diffsift
            does not know.
    """

    def __init__(
        self,
        loaded: LoadedPipeline,
        model: ModelSpecification,
        *,
        name: str = BackboneName.MAIN,
        network: HashedNetwork | None = None,
        catalogue: Backbone | None = None,
    ) -> None:
        self.name, self.source = name, loaded.source
        self._loaded, self._model, self._catalogue = loaded, model, catalogue
        self.latents = None if loaded.vae is None else loaded.latents
        self._network = network or loaded.denoiser
        self.denoiser = self._network.module
        self.train_timesteps = loaded.schedule.train_timesteps
        self.prompt, self.resize = model.prompt, model.resize
        self.noise_seeds, self.noise_shared = model.noise_seeds, model.noise_shared
        self.image_size = model.image_size or self._native_size()
        self.check_image_size(self.image_size)
        self._call = loaded.call(self.prompt, self.image_size)
        self._passed_timestep = loaded.schedule.timestep_form(
            self._call.passed_timestep, self._call.scheduler_timestep, self.source
        )

    def activations(self) -> tuple[Activation, ...]:
        if self._catalogue is not None:
            return self._catalogue.activations()
        try:
            return super().activations()
        except DiffsiftError:
            raise
        except Exception as error:  # whatever a network's code says of a configuration that others wrote
            raise ModelError(
                f"the denoiser of {self.source} must run at {self.image_size[0]} x {self.image_size[1]} px, but its "
                f"{type(self.denoiser).__name__} fails: {first_line(error)}"
            ) from error

    def place_attention_maps(self) -> None:
        super().place_attention_maps()
        if self._catalogue is not None:
            self._catalogue.place_attention_maps()

    def _native_size(self) -> tuple[int, int]:
        size = self.config.get("sample_size") or getattr(self._loaded.pipeline, "default_sample_size", None)
        if size is None:
            raise ModelError(f"model.image_size must be given for {self.source}: its configuration has no size.")
        edges = [size, size] if isinstance(size, int) else list(size) if isinstance(size, list | tuple) else []
        largest = _LARGEST_NATIVE // self._loaded.vae_factor
        if len(edges) != 2 or not all(isinstance(edge, int) and 0 < edge <= largest for edge in edges):
            raise ModelError(
                f"model.image_size must be given for {self.source}: its configuration has sample_size "
                f"{str(size)[:40]}, which is no size from 1 to {largest}."
            )
        return edges[0] * self._loaded.vae_factor, edges[1] * self._loaded.vae_factor

    @property
    def takes_text(self) -> bool:
        """Whether a prompt changes anything."""
        return "prompt" in inspect.signature(type(self._loaded.pipeline).__call__).parameters

    def check_image_size(self, size: tuple[int, int], field: str = "model.image_size") -> None:
        """Refuse an image size that the model cannot take.

        Args:
            size: height and width in pixels.
            field: the field of the specification that holds it, for the message.

        Raises:
            ModelError: it is not a multiple of the network's total stride.
        """
        if any(edge % self._step for edge in size):
            raise ModelError(
                f"{field} must be multiples of {self._step} px for {self.source}, but got {size[0]} x {size[1]}."
            )

    @property
    def _step(self) -> int:
        """Pixels that edges of images must be multiples of."""
        vae = self._loaded.vae
        levels = len(self.config.get("block_out_channels") or ()) if vae is None else 0
        patch = self.config.get("patch_size") or 1
        patch = patch[-1] if isinstance(patch, list | tuple) else patch
        packed = 2 if hasattr(self._loaded.pipeline, "_pack_latents") else 1
        # diffusers' own latent pipelines take multiples of 8 only
        return 2 ** max(levels - 1, 0) if vae is None else math.lcm(self._loaded.vae_factor * patch * packed, 8)

    @property
    def channels(self) -> int:
        """Channels of the denoiser's clean input."""
        return self._call.channels

    def encode(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch latent_channels rows columns"]:
        clean = encode_images(self._loaded.vae, self._loaded.processor, images, self.device)
        if clean.shape[1] * 4 == self.channels and self._call.layout == "packed":
            clean = functional.pixel_unshuffle(clean, 2)
        if clean.shape[1] != self.channels:
            raise ModelError(
                f"the denoiser of {self.source} must take the {clean.shape[1]} channels of an encoded image, but "
                f"takes {self.channels}: models that need more than the image (inpainting, upscaling) cannot be used."
            )
        return clean.to(self.dtype)

    def encoded_together(self) -> int | None:
        if self._loaded.vae is None:
            return None
        memory = min(_BATCH_MEMORY, free_memory(self.device) // 2)
        return max(1, memory // encoding_bytes(self._loaded.vae, self.image_size))

    def denoised_together(self, rows: int, columns: int) -> int | None:
        def values(entry: Activation) -> int:
            return entry.channels * math.prod(grid_size((rows, columns), entry.stride))

        largest = max((values(entry) for entry in self.activations() if not entry.unreadable), default=1)
        return max(1, _BATCH_MEMORY // (_MAPS_IN_PASS * largest * self.dtype.itemsize))

    def _random_inputs(self, generator: torch.Generator) -> Float[Tensor, "2 latent_channels rows columns"]:
        """As latents of random images would be, but drawn: only a small image is encoded, which shows their shape."""
        if self._loaded.vae is None:
            return super()._random_inputs(generator)
        edge = self._step * math.ceil(_SMALL / self._step)
        small = torch.rand(1, 3, edge, edge, generator=generator).to(self.device)
        encoded = self.encode(small)
        rows, columns = (
            pixels * cells // edge for pixels, cells in zip(self.image_size, encoded.shape[2:], strict=True)
        )
        return torch.randn(2, encoded.shape[1], rows, columns, generator=generator).to(encoded)

    def condition(self, batch: int, prompts: Sequence[str] | None = None) -> dict[str, Any]:
        if prompts is None:
            return {key: expand_batch(value, batch) for key, value in self._call.conditioning.items()}
        calls = [self._loaded.call(prompt, self.image_size).conditioning for prompt in prompts]
        try:
            return {key: join_batch([call[key] for call in calls]) for key in calls[0]}
        except (RuntimeError, KeyError) as error:
            raise ModelError(
                f"{self.source} must encode every prompt to the same length to take several in a batch, but does not: "
                "use one prompt (model.prompt), or model.batch_size: 1."
            ) from error

    def denoise(
        self,
        clean: Float[Tensor, "batch latent_channels rows columns"],
        noise: Float[Tensor, "batch latent_channels rows columns"],
        timestep: int,
        conditioning: dict[str, Any],
    ) -> None:
        noisy = self._loaded.schedule.add_noise(clean, noise, timestep).to(clean.dtype)
        self.denoiser(**self._call.arguments(noisy, self._passed_timestep(timestep)), **conditioning)

    @property
    def device(self) -> torch.device:
        return self._loaded.device

    @property
    def dtype(self) -> torch.dtype:
        """The type of the denoiser's weights."""
        return next(self.denoiser.parameters()).dtype

    @property
    def config(self) -> dict[str, Any]:
        """The denoiser's configuration."""
        return dict(cast("Any", self.denoiser).config)

    def is_finite(self) -> bool:
        """Whether all activations of a grey image are finite, at a quarter of the noise levels."""
        wanted = {self.train_timesteps // 4: [entry for entry in self.activations() if not entry.unreadable]}
        grey = torch.full((1, 3, *self.image_size), 0.5)
        ((_, finite),) = self.capture(grey, wanted, seed=0, read=lambda entry: torch.isfinite(entry.values).all()[None])
        return bool(torch.cat(list(finite.values())).all())

    def with_denoiser(self, denoiser: nn.Module, *, name: str) -> PipelineBackbone:
        """The same pipeline with another denoiser.

        Args:
            denoiser: with the same module tree as this backbone's, whose catalogue it takes over.
            name: of the new backbone.

        Returns:
            A new backbone, which shares all other networks with this one. The denoiser is frozen and gets this one's
            type and, unless it is offloaded, its device.
        """
        # Not by the denoiser's own method: that of diffusers warns of every cast.
        nn.Module.to(denoiser.requires_grad_(False).eval(), self.dtype)
        return self._with_network(HashedNetwork(denoiser), name)

    def varied(self, model: ModelSpecification, *, name: str) -> PipelineBackbone:
        """The same networks, run in another way.

        Args:
            model: how to run them; what was loaded is not loaded again.
            name: of the new backbone.

        Returns:
            A new backbone, which shares all networks with this one.

        Raises:
            ModelError: the image size is not one of the model's.
        """
        other = PipelineBackbone(self._loaded, model, name=name, network=self._network)
        if self._places_maps:
            other.place_attention_maps()
        return other

    def untrained(self, *, name: str = BackboneName.RANDOM, seed: int = 0) -> PipelineBackbone:
        made_on = self.device if self._loaded.offload is None else torch.device("cpu")
        return self._with_network(untrained_network(self.denoiser, seed, made_on), name)

    def free_weights(self) -> bool:
        self.activations()  # a network with random weights takes them over
        free_weights(self.denoiser)
        return True

    def _with_network(self, network: HashedNetwork, name: str) -> PipelineBackbone:
        if self._loaded.offload is None:
            network.module.to(self.device)
        return PipelineBackbone(
            self._loaded, self._model, name=name, network=self._loaded.prepared(network), catalogue=self
        )

    def identity(self) -> dict[str, Any]:
        known: dict[str, Any] = {"denoiser": self._network.digest}
        if self.noise_seeds > 1:
            known["noise_seeds"] = self.noise_seeds
        if self.noise_shared:
            known["noise_shared"] = True
        if self._loaded.vae is not None:
            tiled = ", in tiles" if getattr(self._loaded.vae, "use_tiling", False) else ""
            known |= {"vae": self._loaded.vae_digest, "vae_mode": f"mode of the posterior{tiled}"}
        return {
            **known,
            "conditioning": {"prompt": self.prompt, "text_encoders": self._loaded.text_digest},
            "tokens": self._loaded.tokens(self.prompt),
            "configuration": self._loaded.configuration,
            "scheduler": self._loaded.schedule.identity(),
            "dtype": str(self.dtype),
            **self.input_identity(),
        }
