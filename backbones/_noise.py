"""The noise of images, drawn on the CPU so that it is the same on every device and in every batch."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def noise_of(
    images: Float[Tensor, "batch 3 height width"], shape: tuple[int, ...], seeds: Sequence[int], draw: int = 0
) -> Float[Tensor, "batch ..."]:
    """Standard normal noise for each image, drawn from its 8-bit content, its seed and `draw`."""
    contents = (images * 255).round().to("cpu", torch.uint8).contiguous()
    return torch.stack(
        [_normal(image.numpy().tobytes(), shape, seed, draw) for image, seed in zip(contents, seeds, strict=True)]
    )


def shared_noise(shape: tuple[int, ...], seeds: Sequence[int], draw: int = 0) -> Float[Tensor, "batch ..."]:
    """Standard normal noise that does not depend on the image, drawn from each image's seed and `draw`."""
    known = {seed: _normal(b"", shape, seed, draw) for seed in set(seeds)}
    return torch.stack([known[seed] for seed in seeds])


def _normal(content: bytes, shape: tuple[int, ...], seed: int, draw: int) -> Tensor:
    salt, person = seed.to_bytes(8, "little"), draw.to_bytes(8, "little")
    digest = hashlib.blake2b(content, digest_size=7, salt=salt, person=person).digest()
    return torch.randn(shape, generator=torch.Generator().manual_seed(int.from_bytes(digest, "little")))
