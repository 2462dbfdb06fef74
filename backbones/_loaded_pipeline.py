"""A loaded pipeline: its networks, how it calls its denoiser, and the digests of its weights."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import torch
from accelerate import cpu_offload  # type: ignore[import-untyped]
from diffusers import DiffusionPipeline
from torch import nn

from diffsift.common.files import digest as digest_of_json
from diffsift.errors import ModelError

from ._configuration import settings_of
from ._latents import LatentCache, check_latent_scale
from ._pipeline_call import DenoiserCall, record_denoiser_call, refuse_other_media
from ._schedule import Schedule
from ._tokenizers import check_tokenizers, tokens_of
from .weights import Digest, HashedNetwork, digest_of

DENOISERS = ("unet", "transformer")
"""Parts of a pipeline that may be its denoiser."""


class LoadedPipeline:
    """What the backbones of one diffusers pipeline share, however each of them runs it.

    Args:
        pipeline: loaded, on its device. Its networks are set to eval mode, without gradients.
        source: the user's name for it (hub id or folder), for messages.
        offload: device to which accelerate brings each layer's weights when it runs, from the CPU's memory; None (the
            default) leaves the weights where they are.
        digest: computes the digest of the pipeline's own networks.

    Raises:
        ModelError: the pipeline makes something other than images, has no denoiser, or cannot noise an image.
    """

    def __init__(
        self,
        pipeline: DiffusionPipeline,
        source: str,
        *,
        offload: torch.device | None = None,
        digest: Digest = digest_of,
    ) -> None:
        refuse_other_media(type(pipeline), source)
        _refuse_empty_weights(pipeline, source)
        check_tokenizers(pipeline, source)
        self.pipeline, self.source, self.offload = pipeline, source, offload
        denoiser = _denoiser_of(pipeline, source)
        for part in pipeline.components.values():
            if isinstance(part, nn.Module):
                part.requires_grad_(False).eval()
        self.vae: Any = getattr(pipeline, "vae", None)
        if self.vae is not None:
            check_latent_scale(self.vae, source)
        self.processor: Any = getattr(pipeline, "image_processor", None)
        self.schedule = Schedule(pipeline.scheduler, source)
        self.vae_factor = _vae_factor(pipeline, self.vae)
        self._digest = digest
        # Hash before encoding: `encode_images` may upcast the VAE, and that must not change its identity.
        self.vae_digest = None if self.vae is None else digest(self.vae)
        self.denoiser = self.prepared(HashedNetwork(denoiser, digest))
        self.latents = LatentCache()
        self._calls: dict[tuple[str, tuple[int, int]], DenoiserCall] = {}

    def prepared(self, network: HashedNetwork) -> HashedNetwork:
        """A denoiser that is ready to run: offloaded with accelerate where that is asked for.

        Args:
            network: the denoiser.

        Returns:
            The same network; its module has accelerate's hooks where the pipeline is offloaded.
        """
        if self.offload is not None:
            _ = network.digest  # while the weights are still in the module
            cpu_offload(network.module.to("cpu"), execution_device=self.offload)
        return network

    @property
    def device(self) -> torch.device:
        """The device that the networks run on."""
        return self.offload or next(self.denoiser.module.parameters()).device

    @cached_property
    def text_digest(self) -> str:
        """The digest of all networks that encode the prompt."""
        return self._digest(*self._text_encoders())

    def call(self, prompt: str, size: tuple[int, int]) -> DenoiserCall:
        """How the pipeline calls its denoiser; text encoders are on the device only while it is recorded.

        Args:
            prompt: text; encoded once.
            size: height and width in pixels.

        Returns:
            The recorded call; the same object for the same prompt and size.

        Raises:
            ModelError: the pipeline fails, or calls its denoiser in a way that diffsift does not know.
        """
        key = (prompt, size)
        if key not in self._calls:
            for part in self._text_encoders():
                part.to(self.device)
            self._calls[key] = record_denoiser_call(self.pipeline, self.denoiser.module, prompt, size, self.source)
            for part in self._text_encoders():
                part.to("cpu")
        return self._calls[key]

    def tokens(self, prompt: str) -> dict[str, str]:
        """What the tokenizers make of a prompt.

        Args:
            prompt: text.

        Returns:
            Digests by the names of the tokenizers.
        """
        return tokens_of(self.pipeline, prompt)

    @cached_property
    def configuration(self) -> str:
        """The digest of all settings, beside the weights, that decide what the networks compute."""
        parts = {name: settings_of(part) for name, part in sorted(self.pipeline.components.items())}
        return digest_of_json({name: settings for name, settings in parts.items() if settings}, 32)

    def _text_encoders(self) -> list[nn.Module]:
        parts = sorted((name, part) for name, part in self.pipeline.components.items() if isinstance(part, nn.Module))
        return [part for _, part in parts if part is not self.denoiser.module and part is not self.vae]


def _denoiser_of(pipeline: DiffusionPipeline, source: str) -> nn.Module:
    for name in DENOISERS:
        part = getattr(pipeline, name, None)
        if isinstance(part, nn.Module):
            return part
    parts = ", ".join(sorted(name for name, part in pipeline.components.items() if isinstance(part, nn.Module)))
    raise ModelError(f"{source} must have a denoiser (unet or transformer), but has only: {parts or 'no networks'}.")


def _refuse_empty_weights(pipeline: DiffusionPipeline, source: str) -> None:
    for name, part in pipeline.components.items():
        tensors = part.state_dict().items() if isinstance(part, nn.Module) else ()
        empty = next((key for key, tensor in tensors if tensor.is_meta), None)
        if empty is not None:
            raise ModelError(
                f"the weights of {name} in {source} must all be loaded, but {empty} is empty: its weight files lack "
                f"it; download or convert {name} again."
            )


def _vae_factor(pipeline: DiffusionPipeline, vae: Any) -> int:
    """Edge of a latent in pixels."""
    if vae is None:
        return 1
    declared = getattr(pipeline, "vae_scale_factor", None)
    return int(declared) if declared else 2 ** (len(vae.config.block_out_channels) - 1)
