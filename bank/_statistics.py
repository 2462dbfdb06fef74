"""The statistics of an entry: fitted, and as the bytes in which an entry stores them."""

from __future__ import annotations

import torch
from jaxtyping import Float
from safetensors.torch import load, save
from torch import Tensor

from diffsift.extraction import Standardiser

from ._entry import not_finite


def fitted(raw: Float[Tensor, "images points channels"], max_channels: int) -> Standardiser | str:
    """Statistics of raw features, which are overwritten; or why there are none."""
    finite = sum(int(torch.isfinite(image).sum()) for image in raw)
    if finite < raw.numel():
        return not_finite(1 - finite / raw.numel())
    return Standardiser.fit(raw.flatten(0, 1), max_channels=max_channels, overwrite=True)


def encoded(standardiser: Standardiser) -> bytes:
    """Statistics as safetensors."""
    tensors = {"mean": standardiser.mean, "scale": standardiser.scale}
    if standardiser.projection is not None:
        tensors["projection"] = standardiser.projection.contiguous()
    return save(tensors)


def decoded(content: bytes) -> Standardiser:
    """The inverse of `encoded`."""
    tensors = load(content)
    return Standardiser(tensors["mean"], tensors["scale"], tensors.get("projection"))
