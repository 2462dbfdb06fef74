"""Arrays as PNG pictures inside HTML: photographs, label maps, and the colours of classes."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
from PIL import Image

IGNORED = 255
_IGNORED_COLOUR = (128, 128, 128)
# Class 0 (mostly background) is dark; the others are told apart by hue and by lightness.
_COLOURS = (
    (30, 34, 42),
    (230, 85, 80),
    (70, 160, 235),
    (245, 190, 65),
    (95, 190, 110),
    (170, 115, 220),
    (240, 135, 45),
    (65, 200, 200),
    (240, 130, 180),
    (170, 205, 70),
    (165, 120, 85),
    (205, 205, 240),
)


def class_colour(index: int) -> tuple[int, int, int]:
    """RGB of a class, 0 to 255 each; classes beyond the list take its colours again, darker each time round."""
    if index == IGNORED:
        return _IGNORED_COLOUR
    if index < len(_COLOURS):
        return _COLOURS[index]
    turn, place = divmod(index - 1, len(_COLOURS) - 1)
    red, green, blue = (int(part * 0.7**turn) for part in _COLOURS[place + 1])
    return red, green, blue


def colour_labels(labels: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Class ids (height, width) as colours (height, width, 3)."""
    table = np.array([class_colour(index) for index in range(256)], dtype=np.uint8)
    return np.asarray(table[np.asarray(labels).astype(np.int64) & 255], dtype=np.uint8)


def colour_values(values: npt.ArrayLike, low: float, high: float) -> npt.NDArray[np.uint8]:
    """Numbers (height, width) as colours (height, width, 3), dark at `low` and light at `high`; unknown ones grey."""
    from matplotlib import colormaps

    numbers = np.asarray(values, dtype=np.float64)
    share = (np.nan_to_num(numbers, nan=low) - low) / max(high - low, 1e-12)
    colours = np.round(colormaps["viridis"](share.clip(0, 1))[..., :3] * 255).astype(np.uint8)
    colours[~np.isfinite(numbers)] = _IGNORED_COLOUR
    return np.asarray(colours)


def colour_normals(normals: npt.ArrayLike) -> npt.NDArray[np.uint8]:
    """Unit vectors (height, width, 3) as colours, (n + 1) / 2 of 255; unknown ones grey."""
    vectors = np.asarray(normals, dtype=np.float64)
    colours = np.round((np.nan_to_num(vectors).clip(-1, 1) + 1) / 2 * 255).astype(np.uint8)
    colours[~np.isfinite(vectors).all(axis=2)] = _IGNORED_COLOUR
    return np.asarray(colours)


def png_uri(rgb: npt.ArrayLike) -> str:
    """An image (height, width, 3), uint8 or floats from 0 to 1, as a ``data:`` address.

    Raises:
        ValueError: the array has another shape.
    """
    pixels = np.asarray(rgb)
    if pixels.ndim != 3 or pixels.shape[2] != 3:
        raise ValueError(f"a picture must have the shape (height, width, 3), but got {pixels.shape}.")
    if pixels.dtype.kind == "f":
        pixels = np.round(np.clip(pixels, 0, 1) * 255)
    file = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(file, "PNG", optimize=True)
    return data_uri(file.getvalue())


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
