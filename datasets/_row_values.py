"""What the columns of a data set from Python may hold, turned into images and answers.

Pictures (Pillow), arrays (NumPy, Torch, nested lists) and paths of files are understood. `origin` says in messages
where a value comes from.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Shaped, UInt8
from PIL import Image

from diffsift.errors import DataError

from ._depth_folder import known_depth, read_depth
from ._image_files import ids_of, indices_of, read_image, read_mask, rgb_of
from ._normals_folder import known_normals, read_normals

Array = Shaped[np.ndarray, "..."]

_CHANNELS = (1, 3, 4)


def image_of(value: Any, origin: str) -> UInt8[np.ndarray, "height width 3"]:
    """An image as RGB.

    Args:
        value: a picture, a path, or an array: (height, width), (height, width, channels) or, first of all for tensors,
            (channels, height, width), with 1, 3 or 4 channels; 0 to 255 as whole numbers or 0 to 1 as floating point.
        origin: for messages.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, str | Path):
        return read_image(Path(value))
    if isinstance(value, Image.Image):
        return rgb_of(value, origin)
    pixels = _array(value, origin)
    if pixels.ndim == 3:
        first, last = pixels.shape[0] in _CHANNELS, pixels.shape[2] in _CHANNELS
        if first and (isinstance(value, torch.Tensor) or not last):
            pixels = pixels.transpose(1, 2, 0)
    if not (pixels.size and (pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] in _CHANNELS))):
        raise DataError(f"{origin} must be an image of 1, 3 or 4 channels, but has the shape {pixels.shape}.")
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    return rgb_of(Image.fromarray(_as_bytes(pixels, origin)), origin)


def _as_bytes(pixels: Array, origin: str) -> UInt8[np.ndarray, "..."]:
    low, high = pixels.min(), pixels.max()
    if pixels.dtype.kind in "iu" and low >= 0 and high <= 255:
        return np.ascontiguousarray(pixels, np.uint8)
    if pixels.dtype.kind == "f" and low >= 0 and high <= 1:  # false where there is a NaN
        return np.ascontiguousarray(np.rint(pixels * 255), np.uint8)
    raise DataError(
        f"{origin} must hold whole numbers from 0 to 255, or floating point from 0 to 1, but holds {pixels.dtype} from "
        f"{low} to {high}: leave normalisation out, the backbone does its own."
    )


def mask_of(value: Any, classes: int, ignore: int, origin: str) -> UInt8[np.ndarray, "height width"]:
    """A class id per pixel, from a picture, a path of a PNG, or an array of whole numbers.

    Raises:
        DataError: it is something else, or holds what is no class.
    """
    if isinstance(value, str | Path):
        return read_mask(Path(value), classes=classes, ignore=ignore)
    values = indices_of(value, origin) if isinstance(value, Image.Image) else _plane(_array(value, origin), origin)
    if values.dtype.kind not in "iub":
        raise DataError(
            f"{origin} must hold class ids as whole numbers, but holds {values.dtype}: a transform such as ToTensor "
            "must be left out for masks."
        )
    return ids_of(values.astype(np.int64), classes=classes, ignore=ignore, origin=origin)


def depth_of(value: Any, unit: float | None, origin: str) -> Float32[np.ndarray, "height width"]:
    """Metres per pixel, float32, not a number where unknown.

    Args:
        value: an array or picture of floating-point metres; with `unit`, also of whole numbers; or a path that
            `read_depth` understands.
        unit: metres that 1 stands for in whole numbers.
        origin: for messages.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, str | Path):
        return read_depth(Path(value), unit, (0, 0))
    if isinstance(value, Image.Image) and value.mode not in ("F", "I", "I;16", "I;16B", "L"):
        raise DataError(f"{origin} must be depth in one channel, but is a picture of Pillow's mode {value.mode!r}.")
    values = _plane(np.asarray(value) if isinstance(value, Image.Image) else _array(value, origin), origin)
    if values.dtype.kind in "iu" and unit is not None:
        values = values * np.float64(unit)
    return known_depth(values, origin)


def normals_of(value: Any, origin: str) -> Float32[np.ndarray, "height width 3"]:
    """Unit vectors, float32, not a number where unknown.

    Args:
        value: an array of floating-point vectors, (height, width, 3) or (3, height, width); or a path that
            `read_normals` understands.
        origin: for messages.

    Raises:
        DataError: it is something else.
    """
    if isinstance(value, str | Path):
        return read_normals(Path(value), (0, 0))
    vectors = _array(value, origin)
    if vectors.ndim == 3 and vectors.shape[0] == 3 and (isinstance(value, torch.Tensor) or vectors.shape[2] != 3):
        vectors = vectors.transpose(1, 2, 0)
    if vectors.ndim != 3:
        raise DataError(f"{origin} must have a vector per pixel, but has the shape {vectors.shape}.")
    return known_normals(vectors, origin)


def class_of(value: Any, origin: str) -> int | str:
    """A class as its id or its name.

    Raises:
        DataError: it is neither.
    """
    if isinstance(value, str):
        return value
    number = _array(value, origin)
    if number.size != 1 or number.dtype.kind not in "iub":
        raise DataError(f"{origin} must be a class: its name, or its id as a whole number, but is {value!r}.")
    return int(number.reshape(-1)[0])


def _array(value: Any, origin: str) -> Array:
    try:
        array = value.detach().cpu().numpy() if isinstance(value, torch.Tensor) else np.asarray(value)
    except (ValueError, TypeError) as error:  # ragged lists, and dtypes that NumPy lacks
        raise DataError(f"{origin} cannot be understood as an array: {error}.") from error
    if array.dtype.kind not in "iufb":
        raise DataError(f"{origin} must be a picture, an array of numbers or a path, but is a {type(value).__name__}.")
    return array


def _plane(values: Array, origin: str) -> Array:
    """(height, width), where there may be an axis of one channel first or last."""
    if values.ndim == 3 and 1 in (values.shape[0], values.shape[2]):
        values = values[0] if values.shape[0] == 1 else values[..., 0]
    if values.ndim != 2:
        raise DataError(f"{origin} must have one value per pixel, but has the shape {values.shape}.")
    return values
