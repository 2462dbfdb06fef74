"""Images of any size resized to a backbone's input, and feature maps mapped back to the image.

``stretch`` scales both edges independently. ``pad`` keeps the aspect ratio: the image is scaled to fit, centred and
surrounded by grey. A feature map then covers the padding too; `crop_content` cuts out the image's own part and
resamples it on the whole grid, so that a point (x, y) in [0, 1] is the same location in the image either way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeAlias

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

Resize = Literal["stretch", "pad"]

Images: TypeAlias = (
    Float[Tensor, "batch 3 height width"]
    | UInt8[Tensor, "batch 3 height width"]
    | Sequence[Float[Tensor, "3 _ _"] | UInt8[Tensor, "3 _ _"]]
)
"""RGB in [0, 1], or 0 to 255 in 8 bits; in a list of different sizes."""

_GREY = 0.5


def stretch(
    images: Float[Tensor, "batch 3 height width"], size: tuple[int, int]
) -> Float[Tensor, "batch 3 rows columns"]:
    """Resize images to `size` (rows, columns), bicubic and antialiased; values stay in [0, 1]."""
    if tuple(images.shape[-2:]) == size:
        return images
    return functional.interpolate(images, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def resize_images(
    images: Images,
    size: tuple[int, int],
    policy: Resize,
    device: torch.device,
) -> tuple[Float[Tensor, "batch 3 rows columns"], Float[Tensor, "batch 4"] | None]:
    """Resize images of any sizes to one size, on a device.

    Args:
        images: RGB in [0, 1], or 8-bit; they are brought to the device as they are.
        size: rows and columns in pixels.
        policy: ``stretch`` or ``pad``.
        device: device of the result.

    Returns:
        The images, and for each the top, left, height and width of its content as fractions of the whole; None where
        no image is padded.
    """
    resized, boxes = [], []
    for image in images:
        pixels = image.to(device)
        image = (pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.to(torch.float32))[None]
        if policy == "stretch":
            resized.append(stretch(image, size))
            continue
        scale = min(size[0] / image.shape[-2], size[1] / image.shape[-1])
        rows, columns = (
            max(1, min(edge, round(given * scale))) for edge, given in zip(size, image.shape[-2:], strict=True)
        )
        top, left = (size[0] - rows) // 2, (size[1] - columns) // 2
        canvas = torch.full((1, 3, *size), _GREY, device=device)
        canvas[..., top : top + rows, left : left + columns] = stretch(image, (rows, columns))
        resized.append(canvas)
        boxes.append((top / size[0], left / size[1], rows / size[0], columns / size[1]))
    padded = any(box != (0, 0, 1, 1) for box in boxes)
    return torch.cat(resized), torch.tensor(boxes, device=device) if padded else None


def crop_content(
    feature_map: Float[Tensor, "batch channels rows columns"], boxes: Float[Tensor, "batch 4"] | None
) -> Float[Tensor, "batch channels rows columns"]:
    """Cut the images' content out of feature maps, each resampled bilinearly on the whole grid.

    Args:
        feature_map: features of padded images.
        boxes: content of each image as `resize_images` returns it; None returns the maps as they are.
    """
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
