"""The abstract backbone: a denoiser with what is needed to run it on an image."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from diffsift.errors import ModelError

from .activation import Activation
from .capture import Capture, as_map


class Backbone(ABC):
    """A denoiser that turns images into activations at chosen noise levels.

    Implementations say how an image becomes the denoiser's clean input (`encode`), what the denoiser is conditioned on
    (`condition`) and how one forward pass is made (`denoise`). Everything else is here.

    Attributes:
        name: what this backbone goes by within a study.
        denoiser: the module whose activations are captured, in eval mode and frozen.
        image_size: (height, width) in pixels that images are resized to.
        train_timesteps: number of noise levels; a timestep is in [0, train_timesteps - 1].
        declared: activations that the backbone declares itself; empty where they are read off the module tree.
    """

    name: str
    denoiser: nn.Module
    image_size: tuple[int, int]
    train_timesteps: int
    declared: tuple[Activation, ...] = ()

    @abstractmethod
    def encode(
        self, images: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch latent_channels rows columns"]:
        """The denoiser's clean input for images of `image_size` in [0, 1]."""

    @abstractmethod
    def condition(self, batch: int) -> dict[str, Any]:
        """Keyword arguments of the denoiser that do not depend on the image, for a batch of this size."""

    @abstractmethod
    def denoise(self, clean: Tensor, noise: Tensor, timestep: int, conditioning: dict[str, Any]) -> None:
        """Add `noise` to `clean` at `timestep` and run the denoiser once; its output is not wanted."""

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """Everything that shapes a feature of this backbone, as JSON: equal exactly when features are equal."""

    @property
    def device(self) -> torch.device:
        return next(self.denoiser.parameters(), torch.empty(0)).device

    def check_timesteps(self, timesteps: Sequence[int]) -> None:
        """Raise `ModelError` for a timestep the scheduler was not trained with."""
        for timestep in timesteps:
            if not 0 <= timestep < self.train_timesteps:
                raise ModelError(f"timestep must be in [0, {self.train_timesteps - 1}], but got {timestep}.")

    @torch.inference_mode()
    def capture(
        self,
        images: Float[Tensor, "batch 3 height width"],
        wanted: Mapping[int, Sequence[Activation]],
        *,
        seed: int,
    ) -> Iterator[tuple[int, dict[str, Float[Tensor, "batch channels rows columns"]]]]:
        """Yield (timestep, feature maps by activation name), one pass of the denoiser each, only as deep as needed.

        The noise of an image is drawn from its content and `seed` alone and is the same at every timestep, so an image
        gives the same features at any place in any batch.

        Args:
            images: RGB in [0, 1], of any size; resized to `image_size` (bicubic, antialiased).
            wanted: activations by timestep.
            seed: of the noise, 0 or above.
        """
        self.check_timesteps(list(wanted))
        resized = resize(images.to(self.device, torch.float32), self.image_size)
        clean = self.encode(resized)
        noise = noise_of(resized, tuple(clean.shape[1:]), seed).to(clean)
        conditioning = self.condition(len(images))
        for timestep, activations in wanted.items():
            with Capture(self.denoiser, activations) as captured:
                self.denoise(clean, noise, timestep, conditioning)
            grid = (int(clean.shape[-2]), int(clean.shape[-1]))
            yield (
                timestep,
                {
                    activation.name: as_map(captured.tensors[activation.name], activation, grid)
                    for activation in activations
                },
            )


def resize(
    images: Float[Tensor, "batch 3 height width"], size: tuple[int, int]
) -> Float[Tensor, "batch 3 rows columns"]:
    """Bicubic, antialiased, stretched to `size` (rows, columns); values stay in [0, 1]."""
    if tuple(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def noise_of(images: Float[Tensor, "batch 3 height width"], shape: tuple[int, ...], seed: int) -> Float[Tensor, "..."]:
    """Standard normal noise of `shape` for each image, drawn on the CPU from its 8-bit content and `seed`."""
    draws = []
    for image in (images * 255).round().to("cpu", torch.uint8).contiguous():
        digest = hashlib.blake2b(image.numpy().tobytes(), digest_size=7, salt=seed.to_bytes(8, "little")).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little"))
        draws.append(torch.randn(shape, generator=generator))
    return torch.stack(draws)


def digest_of(*modules: nn.Module) -> str:
    """Thirty-two hexadecimal digits over names, types and values of all parameters and buffers."""
    hasher = hashlib.blake2b(digest_size=16)
    for module in modules:
        for name, tensor in module.state_dict().items():
            hasher.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
            hasher.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return hasher.hexdigest()
