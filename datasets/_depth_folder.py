"""A folder of images with the depth of each of their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped

from diffsift.errors import DataError

from ._files import FileDataset, FileLayout, Item
from ._image_files import GRAY_PNG, decoded, png_format, read_array
from ._listing import pair_by_stem, require_folder, split_by_fractions
from ._samples import Split

_MILLIMETRE = 0.001  # metres


def depth_folder(
    root: Path, fractions: tuple[float, float, float], seed: int, png_unit: float | None = None
) -> FileDataset:
    """Images in ``images``; in ``depth`` PNGs or ``.npy`` in metres, of the same stems.

    Args:
        root: folder of the data set.
        fractions: shares of train, validation and test.
        seed: of the split.
        png_unit: metres that one grey level of a PNG stands for; None: PNGs hold millimetres in 16 bits.

    Returns:
        The data set.
    """

    def find() -> Mapping[Split, Sequence[Item]]:
        pairs = pair_by_stem(require_folder(root, "images"), require_folder(root, "depth"), (".png", ".npy"))
        items = [
            Item(image.stem, image, partial(read_depth, file, png_unit), file, image.stem) for image, file in pairs
        ]
        return split_by_fractions(items, fractions, seed)

    return FileDataset(FileLayout("depth-folder", "depth", find, settings={"png_unit": png_unit}))


def read_depth(file: Path, png_unit: float | None, size: tuple[int, int]) -> Float32[np.ndarray, "rows columns"]:
    """Depth in metres, not a number where it is unknown (0, negative or not finite).

    Args:
        file: ``.npy`` of floating-point metres, or a grayscale PNG.
        png_unit: metres that one grey level of a PNG stands for; None: PNGs hold millimetres in 16 bits.
        size: of the image; the caller compares.

    Raises:
        DataError: the file cannot be read, or its unit is not certain.
    """
    if file.suffix.lower() == ".npy":
        return known_depth(read_array(file), str(file))
    return _read_png(file, png_unit)


def _read_png(file: Path, png_unit: float | None) -> Float32[np.ndarray, "rows columns"]:
    with decoded(file, "depth") as picture:
        depth, colour = png_format(file)
        if colour != GRAY_PNG or depth not in (8, 16):
            raise DataError(
                f"{file} must be a grayscale PNG of 16 bits in millimetres, but has {depth} bits per channel and is of "
                f"Pillow's mode {picture.mode!r}."
            )
        if depth == 8 and png_unit is None:
            raise DataError(
                f"{file} must be a grayscale PNG of 16 bits in millimetres, but has 8 bits, so at most 0.255 m: if "
                "it is depth, set data.png_unit to the metres per grey level."
            )
        levels = np.asarray(picture).astype(np.float32)
    return known_depth(levels * np.float32(_MILLIMETRE if png_unit is None else png_unit), str(file))


def known_depth(values: Shaped[np.ndarray, "rows columns"], origin: str) -> Float32[np.ndarray, "rows columns"]:
    """Floating-point metres with everything that is no depth (0, negative, not finite) turned into not-a-number.

    Raises:
        DataError: whole numbers, whose unit is rarely the metre; `origin` says where they come from.
    """
    if values.dtype.kind != "f":
        raise DataError(
            f"{origin} must hold metres as floating-point numbers, but holds {values.dtype}: if these are "
            "millimetres, divide them by 1000."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        metres = values.astype(np.float32)
        return np.where(np.isfinite(metres) & (metres > 0), metres, np.float32(np.nan))
