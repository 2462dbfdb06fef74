"""Images of samples as tensors, and their prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from torch import Tensor

from ._samples import Sample


def image_tensors(images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[Float32[Tensor, "3 _ _"]]:
    """Turn images of any sizes into tensors, channels first.

    Args:
        images: (height, width, 3) each, 0 to 255.

    Returns:
        (3, height, width) each, in [0, 1].
    """
    return [torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 for image in images]


def pixel_tensors(images: Sequence[UInt8[np.ndarray, "_ _ 3"]]) -> list[UInt8[Tensor, "3 _ _"]]:
    """Turn images of any sizes into 8-bit tensors, channels first: a quarter of the bytes to bring to a device.

    Args:
        images: (height, width, 3) each, 0 to 255.

    Returns:
        (3, height, width) each, 0 to 255.
    """
    return [torch.from_numpy(image.copy()).permute(2, 0, 1) for image in images]


def prompts_of(samples: Sequence[Sample]) -> list[str] | None:
    """The prompts that samples have of their own.

    Args:
        samples: any.

    Returns:
        One per sample; None where a sample has none, so that the prompt of the model holds for all.
    """
    prompts = [sample.prompt for sample in samples if sample.prompt is not None]
    return prompts if len(prompts) == len(samples) else None
