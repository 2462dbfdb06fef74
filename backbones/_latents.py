"""From images to a denoiser's clean input: latents, normalised as the VAE's configuration says, or pixels."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from typing import Any

import torch
from cachetools import LRUCache
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffsift.errors import ModelError

_CACHED = 256_000_000
"""Bytes of latents that are remembered: 8,000 images of a VAE with 4 x 64 x 64 latents in half precision."""

_TILE = 512
"""Edge of a tile in pixels, at most: autoencoders that were trained on larger images would not be tiled before."""

_MAPS_AT_ONCE = 8
"""Maps of a VAE's first level that encoding holds at once, as measured (5.5 to 7.4)."""


class LatentCache:
    """Remembers encoded images by their content, so that each is encoded once for all timesteps, seeds and controls.

    Args:
        most: bytes that are remembered; images that were not used for longest go first.
    """

    def __init__(self, most: int = _CACHED) -> None:
        self._known: LRUCache[bytes, Tensor] = LRUCache(most, getsizeof=lambda latent: latent.nbytes)

    def of(
        self, images: Float[Tensor, "batch 3 height width"], encode: Callable[[Tensor], Tensor]
    ) -> Float[Tensor, "batch channels rows columns"]:
        """The latents of images.

        Args:
            images: resized, on the device.
            encode: called with those that are not remembered, if there are any, each different one once.

        Returns:
            Latents in the order of the images, as `encode` gives them.
        """
        person = str(tuple(images.shape[2:])).encode()[:16]
        keys = [
            hashlib.blake2b(image.numpy().data, digest_size=16, person=person).digest()
            for image in images.cpu().contiguous()
        ]
        new = {key: keys.index(key) for key in keys if key not in self._known}
        fresh = dict(zip(new, encode(images[list(new.values())]), strict=True)) if new else {}
        found = torch.stack([fresh[key] if key in fresh else self._known[key].to(images.device) for key in keys])
        for key, latent in fresh.items():
            if latent.nbytes <= self._known.maxsize:
                self._known[key] = latent.cpu().clone()
        return found


def encoding_bytes(vae: Any, size: tuple[int, int]) -> int:
    """Memory that encoding one image takes, beside the weights.

    Args:
        vae: an autoencoder of diffusers.
        size: height and width of the image in pixels.

    Returns:
        Bytes, estimated from the maps of its first level.
    """
    channels = (vae.config.get("block_out_channels") or vae.config.get("encoder_block_out_channels") or (128,))[0]
    wide = vae.dtype == torch.float16 and vae.config.get("force_upcast", False)
    pixels = math.prod(min(edge, _TILE) if getattr(vae, "use_tiling", False) else edge for edge in size)
    return _MAPS_AT_ONCE * int(channels) * pixels * (4 if wide else vae.dtype.itemsize)


def tile_encoding(vae: Any, source: str) -> None:
    """Make an autoencoder encode large images in tiles of at most 512 px, which overlap and are blended.

    Args:
        vae: of the pipeline; None for a model of pixels.
        source: the user's name for it, for the message.

    Raises:
        ModelError: it cannot.
    """
    if not hasattr(vae, "enable_tiling"):
        raise ModelError(f"model.vae_tiling must be false for {source}: it has no autoencoder that can work in tiles.")
    vae.enable_tiling()
    if getattr(vae, "tile_sample_min_size", 0) > _TILE:  # autoencoders of other classes have tiles of their own
        vae.tile_latent_min_size = vae.tile_latent_min_size * _TILE // vae.tile_sample_min_size
        vae.tile_sample_min_size = _TILE


def encode_images(
    vae: Any, processor: Any, images: Float[Tensor, "batch 3 height width"], device: torch.device
) -> Float[Tensor, "batch channels rows columns"]:
    """Normalised latents of images: the posterior's mode, without noise.

    Args:
        vae: the pipeline's VAE, or None for a model of pixels, which takes images in [-1, 1].
        processor: the pipeline's image processor, or None.
        images: RGB in [0, 1], at the backbone's size.
        device: device to compute on.
    """
    pixels = (2.0 * images - 1.0 if processor is None else processor.preprocess(images)).to(device)
    if vae is None:
        return pixels
    pixels = pixels.to(vae.dtype)
    if vae.dtype == torch.float16 and vae.config.get("force_upcast", False):
        # The VAE of SDXL overflows float16, as its own configuration says.
        nn.Module.to(vae, torch.float32)  # diffusers' own method warns of every cast
        pixels = pixels.float()
    frames = any(isinstance(module, nn.Conv3d) for module in vae.modules())  # a video VAE takes single frames as well
    encoded = vae.encode(pixels.unsqueeze(2) if frames else pixels)
    latents: Tensor = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded[0]
    return _normalised(vae, latents.squeeze(2) if frames else latents)


def check_latent_scale(vae: Any, source: str) -> None:
    """Refuse a VAE whose configuration brings latents to no scale: every feature would be wrong, or no number.

    Args:
        vae: of the pipeline.
        source: the user's name for it, for the message.

    Raises:
        ModelError: a scale is no number, or the deviation of a channel is not above 0.
    """
    for name in ("scaling_factor", "shift_factor", "latents_mean", "latents_std"):
        value = vae.config.get(name)
        numbers = value if isinstance(value, list | tuple) else [] if value is None else [value]
        fine = all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
        if not fine or (name in ("scaling_factor", "latents_std") and any(number <= 0 for number in numbers)):
            raise ModelError(
                f"{name} of the VAE of {source} must be a number that scales latents, but is {str(value)[:60]}: mend "
                "vae/config.json."
            )


def _normalised(vae: Any, latents: Tensor) -> Tensor:
    """Latents on the scale that the denoiser was trained on, which each VAE states in its configuration."""
    if isinstance(getattr(vae, "bn", None), nn.BatchNorm2d):  # per channel of 2 x 2 patches
        latents = functional.pixel_unshuffle(latents, 2)
        mean, variance = (entry.view(1, -1, 1, 1).to(latents) for entry in (vae.bn.running_mean, vae.bn.running_var))
        whitened: Tensor = (latents - mean) / torch.sqrt(variance + vae.bn.eps)
        return whitened
    mean, deviation = vae.config.get("latents_mean"), vae.config.get("latents_std")
    if mean is not None and deviation is not None:
        mean, deviation = (torch.tensor(entry).view(1, -1, 1, 1).to(latents) for entry in (mean, deviation))
        standardised: Tensor = (latents - mean) / deviation * (vae.config.get("scaling_factor") or 1.0)
        return standardised
    shift = vae.config.get("shift_factor") or 0.0
    scaled: Tensor = (latents - shift) * (vae.config.get("scaling_factor") or 1.0)
    return scaled
