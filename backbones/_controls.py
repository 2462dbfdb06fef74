"""Controls: features that a selection must beat to justify a diffusion model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ._base import Backbone
from ._pipeline import PipelineBackbone
from .activation import Activation
from .names import BackboneName


class _Neighbourhood(nn.Module):
    """The values of each location and its neighbours in a square of `edge` locations, edges replicated."""

    def __init__(self, edge: int) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, x: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch values rows columns"]:
        padded = functional.pad(x, [self.edge // 2] * 4, mode="replicate")
        return functional.unfold(padded, self.edge).view(len(x), -1, *x.shape[-2:])


class _ControlBackbone(Backbone):
    """No network: the feature is the neighbourhood of a location in the clean input."""

    def __init__(self, name: str, main: Backbone, *, channels: int, edge: int) -> None:
        self.name = name
        self._main = main
        self.denoiser = nn.Sequential(_Neighbourhood(edge)).eval()
        self.image_size, self.resize = main.image_size, main.resize
        self.train_timesteps = 1
        self._only = Activation(
            name=f"{name}-{edge}x{edge}",
            kind="input",
            stage="in",
            level=None,
            depth=0,
            channels=channels * edge**2,
            stride=1,
            layout="map",
            module="0",
        )

    def activations(self) -> tuple[Activation, ...]:
        return (self._only,)

    @property
    def device(self) -> torch.device:
        return self._main.device

    def denoise(
        self,
        clean: Float[Tensor, "batch latent_channels rows columns"],
        noise: Float[Tensor, "batch latent_channels rows columns"],
        timestep: int,
        conditioning: dict[str, Any],
    ) -> None:
        self.denoiser(clean)


class PixelControl(_ControlBackbone):
    """Raw pixels: the 5 x 5 patch of RGB values around a location.

    Args:
        main: the backbone whose image size and resizing are used.
    """

    def __init__(self, main: Backbone) -> None:
        super().__init__(BackboneName.PIXELS, main, channels=3, edge=5)

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        return images

    def identity(self) -> dict[str, Any]:
        return {"control": "pixels 5x5", **self._main.input_identity()}


class LatentControl(_ControlBackbone):
    """VAE latents without noise: the 3 x 3 patch of latent values around a location.

    Args:
        main: the backbone whose latents are used.
    """

    def __init__(self, main: PipelineBackbone) -> None:
        super().__init__(BackboneName.LATENTS, main, channels=main.channels, edge=3)
        self.latents = main.latents

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        return self._main.encode(images)

    def encoded_together(self) -> int | None:
        return self._main.encoded_together()

    def identity(self) -> dict[str, Any]:
        return {**self._main.identity(), "denoiser": "none: latents 3x3"}


def controls_of(main: Backbone) -> dict[BackboneName, Callable[[], Backbone]]:
    """The controls that a backbone can be compared with.

    Args:
        main: the main model's backbone.

    Returns:
        What makes each control, by its name: raw pixels always, latents where the backbone is a diffusers pipeline.
    """
    controls: dict[BackboneName, Callable[[], Backbone]] = {BackboneName.PIXELS: lambda: PixelControl(main)}
    if isinstance(main, PipelineBackbone):
        controls[BackboneName.LATENTS] = lambda: LatentControl(main)
    return controls
