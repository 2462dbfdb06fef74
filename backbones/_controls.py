"""Controls: what a selection must beat to have been worth a diffusion model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from ._base import Backbone
from ._pipeline import PipelineBackbone
from .activation import Activation
from .names import BackboneName


class _Neighbourhood(nn.Module):
    """Each place's values with those of its neighbours in a square of `edge` places, edges replicated."""

    def __init__(self, edge: int) -> None:
        super().__init__()
        self.edge = edge

    def forward(self, x: Float[Tensor, "batch channels rows columns"]) -> Float[Tensor, "batch values rows columns"]:
        padded = functional.pad(x, [self.edge // 2] * 4, mode="replicate")
        return functional.unfold(padded, self.edge).view(len(x), -1, *x.shape[-2:])


class _ControlBackbone(Backbone):
    """No network: the neighbourhood of a place in the clean input is the feature."""

    def __init__(self, name: str, main: PipelineBackbone, *, channels: int, edge: int) -> None:
        self.name = name
        self._main = main
        self.denoiser = nn.Sequential(_Neighbourhood(edge))
        self.image_size, self.resize = main.image_size, main.resize
        self.train_timesteps = 1
        self._activations = (
            Activation(
                name=f"{name}-{edge}x{edge}",
                kind="input",
                stage="in",
                level=None,
                depth=0,
                channels=channels * edge**2,
                stride=1,
                layout="map",
                module="0",
            ),
        )

    @property
    def device(self) -> torch.device:
        return self._main.device

    def condition(self, batch: int, prompts: Sequence[str] | None = None) -> dict[str, Any]:
        return {}

    def denoise(self, clean: Tensor, noise: Tensor, timestep: int, conditioning: dict[str, Any]) -> None:
        self.denoiser(clean)


class PixelControl(_ControlBackbone):
    """Raw pixels: the 5 x 5 patch of RGB values around a place, at the backbone's image size."""

    def __init__(self, main: PipelineBackbone) -> None:
        super().__init__(BackboneName.PIXELS, main, channels=3, edge=5)

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 3 height width"]:
        return images

    def identity(self) -> dict[str, Any]:
        return {"control": "pixels 5x5", **self._main.fitting()}


class LatentControl(_ControlBackbone):
    """VAE latents without noise: the 3 x 3 patch of latent values around a place."""

    def __init__(self, main: PipelineBackbone) -> None:
        super().__init__(BackboneName.LATENTS, main, channels=main.channels, edge=3)

    def encode(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch channels rows columns"]:
        return self._main.encode(images)

    def identity(self) -> dict[str, Any]:
        return {**self._main.identity(), "denoiser": "none: latents 3x3"}


def with_random_weights(main: PipelineBackbone, *, seed: int = 0, name: str = BackboneName.RANDOM) -> PipelineBackbone:
    """The same backbone with its denoiser freshly initialised; VAE and conditioning are shared."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        fresh = cast("Any", type(main.denoiser)).from_config(main.config)
    return main.with_denoiser(fresh, name=name)
