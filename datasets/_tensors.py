"""Images of samples as tensors, and their prompts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ._samples import Sample


def image_tensors(images: Sequence[np.ndarray]) -> list[Tensor]:
    """8-bit images (height, width, 3) of any sizes as tensors (3, height, width) in [0, 1]."""
    return [torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 for image in images]


def prompts_of(samples: Sequence[Sample]) -> list[str] | None:
    """The samples' own prompts; None where they have none, and the model's prompt holds."""
    prompts = [sample.prompt for sample in samples if sample.prompt is not None]
    return prompts if len(prompts) == len(samples) else None
