"""A folder of images with the surface normal of each of their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped

from diffsift.errors import DataError

from ._files import FileDataset, FileLayout, Item
from ._image_files import RGB_PNG, decoded, png_format, read_array
from ._listing import pair_by_stem, require_folder, split_by_fractions
from ._samples import Split

_TOLERANCE = 0.05
"""By how much the length of a stored normal may differ from 1: 8 bits round it by less than 0.01."""


def normals_folder(root: Path, fractions: tuple[float, float, float], seed: int) -> FileDataset:
    """Images in ``images``; in ``normals`` RGB PNGs or ``.npy`` of unit vectors, of the same stems.

    Args:
        root: folder of the data set.
        fractions: shares of train, validation and test.
        seed: of the split.

    Returns:
        The data set.
    """

    def find() -> Mapping[Split, Sequence[Item]]:
        pairs = pair_by_stem(require_folder(root, "images"), require_folder(root, "normals"), (".png", ".npy"))
        items = [Item(image.stem, image, partial(read_normals, file), file, image.stem) for image, file in pairs]
        return split_by_fractions(items, fractions, seed)

    return FileDataset(FileLayout("normals-folder", "normals", find))


def read_normals(file: Path, size: tuple[int, int]) -> Float32[np.ndarray, "rows columns 3"]:
    """Unit vectors, not a number where a normal is unknown.

    Args:
        file: ``.npy`` of (height, width, 3) floating-point vectors, or an RGB PNG of 8 or 16 bits of (n + 1) / 2.
            Pillow reads the upper 8 bits of 16, so directions are then right to a third of a degree.
        size: of the image; the caller compares.

    Raises:
        DataError: the file cannot be read, or does not hold normals.
    """
    if file.suffix.lower() == ".npy":
        return known_normals(read_array(file, axes=3), str(file))
    with decoded(file, "normals") as picture:
        depth, colour = png_format(file)
        if colour != RGB_PNG:
            raise DataError(
                f"{file} must be an RGB PNG of (n + 1) / 2 or a .npy file, but is of Pillow's mode {picture.mode!r}."
            )
        levels = np.asarray(picture).astype(np.float32)
    # A level of 8 bits stands for itself; the upper byte of 16 bits for the middle of the 256 levels that share it.
    shares = levels / 255 if depth == 8 else (levels * 256 + 127.5) / 65535
    return known_normals(2 * shares - 1, str(file))


def known_normals(
    values: Shaped[np.ndarray, "rows columns axes"], origin: str
) -> Float32[np.ndarray, "rows columns 3"]:
    """Vectors brought to length 1, with everything that is no normal (not finite, not about as long) not a number.

    Args:
        values: a vector per pixel.
        origin: for messages.

    Raises:
        DataError: they are whole numbers or have another number of components; or most vectors are no unit vectors,
            leaving out those that mark unknown pixels: zero, or black in a PNG.
    """
    if values.dtype.kind != "f" or values.shape[2:] != (3,):
        raise DataError(
            f"{origin} must hold normals as floating-point vectors (height, width, 3), but holds {values.dtype} "
            f"{values.shape}."
        )
    with np.errstate(over="ignore", invalid="ignore"):
        lengths = np.linalg.norm(values.astype(np.float64), axis=2)
        known = np.abs(lengths - 1) <= _TOLERANCE
    blank = ~np.isfinite(lengths) | (lengths < _TOLERANCE) | (values <= -1 + _TOLERANCE / 2).all(axis=2)
    if known.sum() < (~blank).sum() / 2:
        lengths = lengths[~blank]
        raise DataError(
            f"{origin} must hold unit vectors, but most are of other lengths, {lengths.min():.2f} to "
            f"{lengths.max():.2f}: arrays hold n itself from -1 to 1, PNGs (n + 1) / 2."
        )
    lengths = np.where(known, lengths, np.nan)[..., None]
    return np.asarray(values / lengths, dtype=np.float32)
