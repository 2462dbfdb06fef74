"""Reading single image and mask files, with errors that name the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int, Shaped, UInt8
from PIL import Image, ImageOps

from diffsift.errors import DataError

from ._samples import IGNORE

GRAY_PNG = 0
"""PNG's colour type of grayscale images."""

RGB_PNG = 2
"""PNG's colour type of images in red, green and blue."""

# What Pillow lets through when a file is damaged depends on format and place of the damage.
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


def read_image(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """Read an image file as RGB, turned upright as its EXIF orientation says.

    Grayscale, palette and CMYK images are converted; transparent ones are laid on white. Of an animation the first
    picture is taken.

    Args:
        path: of the file, in any format that Pillow reads.

    Returns:
        The pixels, 0 to 255.

    Raises:
        DataError: the file does not decode, is too large for Pillow's limit, or has more than 8 bits per channel in
            a form that has no usual conversion (16-bit and floating-point grayscale).
    """
    with decoded(path, "image") as picture:
        return rgb_of(picture, f"image {path}")


def rgb_of(picture: Image.Image, origin: str) -> UInt8[np.ndarray, "height width 3"]:
    """A decoded picture as RGB; see `read_image`. `origin` says in messages where it comes from."""
    if picture.mode.startswith("I") or picture.mode == "F":
        raise DataError(
            f"{origin} must have 8 bits per channel, but is of Pillow's mode {picture.mode!r}; "
            "convert it, choosing which range of values becomes 0 to 255."
        )
    upright = ImageOps.exif_transpose(picture)
    if upright.has_transparency_data:
        transparent = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)
    return np.array(upright.convert("RGB"))


def read_mask(path: Path, *, classes: int, ignore: int) -> UInt8[np.ndarray, "height width"]:
    """A PNG of class ids, with the value `ignore` turned into `IGNORE`.

    Palette images give their indices, grayscale images of 1 to 16 bits the stored values. EXIF orientation is not
    applied: masks are arrays, not photographs.

    Raises:
        DataError: the file does not decode, is not a single-channel image, or holds a value that is neither a class
            id below `classes` nor `ignore`.
    """
    with decoded(path, "mask") as picture:
        values = indices_of(picture, f"mask {path}") // _grayscale_step(path)
    return ids_of(values, classes=classes, ignore=ignore, origin=f"mask {path}")


def indices_of(picture: Image.Image, origin: str) -> Int[np.ndarray, "height width"]:
    """What the pixels of a picture with one channel hold; of a palette image, its indices."""
    if picture.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
        raise DataError(
            f"{origin} must have one channel that holds class ids (palette or grayscale PNG), but is of "
            f"Pillow's mode {picture.mode!r}; if its colours stand for classes, save their indices instead."
        )
    return np.asarray(picture).astype(np.int32)


def ids_of(
    values: Int[np.ndarray, "height width"], *, classes: int, ignore: int, origin: str
) -> UInt8[np.ndarray, "height width"]:
    """Class ids, with the value `ignore` turned into `IGNORE`.

    Raises:
        DataError: there is a value that is neither a class id below `classes` nor `ignore`.
    """
    wrong = (values != ignore) & ((values < 0) | (values >= classes))
    if wrong.any():
        found = ", ".join(str(value) for value in np.unique(values[wrong])[:5])
        raise DataError(
            f"{origin} must hold values from 0 to {classes - 1} ({classes} classes) or {ignore} (ignored), "
            f"but holds {found} in {int(wrong.sum())} pixels."
        )
    return np.where(values == ignore, IGNORE, values).astype(np.uint8)


def has_turned_size(path: Path) -> bool:
    """Whether the EXIF orientation of an image file swaps its height and width."""
    with decoded(path, "image") as picture:
        return ImageOps.exif_transpose(picture).size != picture.size


def _grayscale_step(path: Path) -> int:
    """What Pillow multiplied stored values with: it stretches grayscale PNGs of 2 and 4 bits to 0 to 255."""
    depth, color_type = png_format(path)
    return 255 // (2**depth - 1) if color_type == GRAY_PNG and depth in (2, 4) else 1


def png_format(path: Path) -> tuple[int, int]:
    """(bits per channel, PNG's colour type) of a PNG that decodes."""
    with path.open("rb") as file:
        header = file.read(26)
    return header[24], header[25]


def read_array(file: Path, axes: int = 2) -> Shaped[np.ndarray, "rows columns *components"]:
    """A ``.npy`` file as a matrix, or with 3 axes as one of vectors; pickled objects, which can run code, are refused.

    Raises:
        DataError: it is something else.
    """
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read as an array of numbers: {error}.") from error
    if not isinstance(values, np.ndarray) or values.ndim != axes or values.dtype.kind not in "iufb":
        wanted = "a matrix of numbers" if axes == 2 else f"numbers with {axes} axes"
        raise DataError(f"{file} must hold {wanted}, but holds {getattr(values, 'shape', type(values))}.")
    return values


@contextmanager
def decoded(path: Path, role: str) -> Iterator[Image.Image]:
    """The opened and fully decoded file; what is not an image must be a PNG, which loses nothing."""
    try:
        with Image.open(path, formats=None if role == "image" else ["PNG"]) as picture:
            picture.load()
            yield picture
    except DataError:
        raise
    except _DECODING_ERRORS as error:
        reason = " ".join(str(error).split()).rstrip(".")
        raise DataError(f"{role} {path} cannot be decoded: {reason}.") from error
