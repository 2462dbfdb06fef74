"""Images of any size brought to a backbone's size, and what it returns brought back to the image.

``stretch`` scales both edges by themselves. ``pad`` keeps an image's shape: it is scaled until it fits, set in the
middle and surrounded by grey. A feature map covers what the backbone saw, the grey included; `content` cuts the image's
own part out and samples it on the whole grid again, so that a point (x, y) in [0, 1] is the same place of the image in
both ways.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

Resize = Literal["stretch", "pad"]

_GREY = 0.5


def resize(
    images: Float[Tensor, "batch 3 height width"], size: tuple[int, int]
) -> Float[Tensor, "batch 3 rows columns"]:
    """Bicubic, antialiased, stretched to `size` (rows, columns); values stay in [0, 1]."""
    if tuple(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def fit(
    images: Float[Tensor, "batch 3 height width"] | Sequence[Float[Tensor, "3 _ _"]],
    size: tuple[int, int],
    policy: Resize,
    device: torch.device,
) -> tuple[Float[Tensor, "batch 3 rows columns"], Float[Tensor, "batch 4"] | None]:
    """Images at `size` on a device, and the part of it that each covers.

    Returns:
        The images, and per image top, left, height and width as shares of the whole; None where all cover all of it.
    """
    fitted, boxes = [], []
    for image in images:
        image = image.to(device, torch.float32)[None]
        if policy == "stretch":
            fitted.append(resize(image, size))
            continue
        scale = min(size[0] / image.shape[-2], size[1] / image.shape[-1])
        rows, columns = (
            max(1, min(edge, round(given * scale))) for edge, given in zip(size, image.shape[-2:], strict=True)
        )
        top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
        canvas = torch.full((1, 3, *size), _GREY, device=device)
        canvas[..., top : top + rows, left : left + columns] = resize(image, (rows, columns))
        fitted.append(canvas)
        boxes.append((top / size[0], left / size[1], rows / size[0], columns / size[1]))
    padded = any(box != (0, 0, 1, 1) for box in boxes)
    return torch.cat(fitted), torch.tensor(boxes, device=device) if padded else None


def content(
    feature_map: Float[Tensor, "batch channels rows columns"], boxes: Float[Tensor, "batch 4"] | None
) -> Float[Tensor, "batch channels rows columns"]:
    """The images' own parts of a feature map, each sampled bilinearly on the whole grid."""
    if boxes is None:
        return feature_map
    top, left, rows, columns = boxes.to(feature_map).unbind(1)
    zero = torch.zeros_like(top)
    horizontal = torch.stack([columns, zero, 2 * left + columns - 1], dim=1)
    vertical = torch.stack([zero, rows, 2 * top + rows - 1], dim=1)
    grid = functional.affine_grid(
        torch.stack([horizontal, vertical], dim=1), list(feature_map.shape), align_corners=False
    )
    return functional.grid_sample(feature_map, grid, padding_mode="border", align_corners=False)
