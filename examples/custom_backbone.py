"""A backbone of your own: any network that images can be run through. Specifications name it by its kind.

model: {kind: noisy-conv, id: my network, options: {width: 16}}
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from diffsift.backbones import Activation, Backbone, ModelSpecification, digest_of, load, register_backbone


class NoisyConv(Backbone):
    """Three convolutions over a noised image; load your own weights in their place."""

    def __init__(self, model: ModelSpecification, name: str) -> None:
        self.name, self.image_size, self.resize = name, model.image_size or (32, 32), model.resize
        self.train_timesteps = 1000
        self.width = int(model.options.get("width", 8))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            layers = [nn.Conv2d(3, self.width, 3, padding=1)]
            layers += [nn.Conv2d(self.width, self.width, 3, stride=2, padding=1) for _ in range(2)]
        self.denoiser = nn.Sequential(*layers).eval().requires_grad_(False)

    def encode(self, images: Tensor) -> Tensor:
        return 2 * images - 1

    def denoise(self, clean: Tensor, noise: Tensor, timestep: int, conditioning: dict[str, Any]) -> None:
        share = timestep / self.train_timesteps
        self.denoiser((1 - share) * clean + share * noise)

    def activations(self) -> tuple[Activation, ...]:
        """One per layer: its module, its channels, and how much coarser than the image its grid is."""
        return tuple(
            Activation(f"conv{i}", "block-out", "blocks", None, i, self.width, 2**i, "map", module=str(i))
            for i in range(3)
        )

    def identity(self) -> dict[str, Any]:
        return {"noisy-conv": digest_of(self.denoiser), **self.input_identity()}


register_backbone("noisy-conv", NoisyConv)


def main() -> None:
    """Capture all activations of two random images at two noise levels."""
    backbone = load(ModelSpecification(kind="noisy-conv", id="my network"))
    images = torch.rand(2, 3, 48, 64)
    wanted = {50: backbone.activations(), 300: backbone.activations()}
    for timestep, maps in backbone.capture(images, wanted, seed=0):
        for name, feature_map in maps.items():
            print(f"timestep {timestep}: {name} {tuple(feature_map.shape)}")


if __name__ == "__main__":
    main()
