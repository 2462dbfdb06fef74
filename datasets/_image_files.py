"""Reading single image and mask files, with errors that name the file."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Int, Shaped, UInt8
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin

from diffsift.errors import DataError, SpecificationError

from ._samples import IGNORE

_SHOWN = 5  # values in a message

GRAY_PNG = 0
"""PNG's colour type of grayscale images."""

RGB_PNG = 2
"""PNG's colour type of images in red, green and blue."""

# What Pillow lets through when a file is damaged depends on format and place of the damage.
_SLIPS = (TypeError, KeyError, IndexError, OverflowError)  # of Pillow's on damaged headers, such as a TIFF's
_DECODING_ERRORS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)


Exif = Literal["turn", "ignore"]
"""Whether images are turned upright as their EXIF orientation says."""

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

MASK_SUFFIXES = (".png", ".tif", ".tiff")
_MASK_FORMATS = ("PNG", "TIFF")
_JPEG = b"\xff\xd8\xff"
_TURNED_SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap height and width


class ReadImage(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: RGB, 0 to 255.
        orientation: what its EXIF says, 1 to 8; 1 is upright.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    orientation: int

    @property
    def hides_its_turn(self) -> bool:
        """Whether it has an orientation that its size does not give away, as a label of the same size would show."""
        height, width = self.pixels.shape[:2]
        return self.orientation != 1 and (self.orientation not in _TURNED_SIDEWAYS or height == width)

    @property
    def is_sideways(self) -> bool:
        """Whether its orientation swaps height and width."""
        return self.orientation in _TURNED_SIDEWAYS


def read_image(path: Path, exif: Exif = "turn") -> UInt8[np.ndarray, "height width 3"]:
    """Read an image file as RGB, by default turned upright as its EXIF orientation says.

    Grayscale, palette and CMYK images are converted; transparent ones are laid on white. Of an animation the first
    picture is taken.

    Args:
        path: of the file, in any format that Pillow reads.
        exif: ``ignore`` leaves the pixels as they are stored.

    Returns:
        The pixels, 0 to 255.

    Raises:
        DataError: the file does not decode, is too large for Pillow's limit, or has more than 8 bits per channel in
            a form that has no usual conversion (16-bit and floating-point grayscale).
    """
    return read_oriented(path, exif).pixels


def read_oriented(path: Path, exif: Exif) -> ReadImage:
    """An image file with its orientation; see `read_image`."""
    with decoded(path, "image") as picture:
        return rgb_of(picture, f"image {path}", exif)


def rgb_of(picture: Image.Image, origin: str, exif: Exif = "turn") -> ReadImage:
    """A decoded picture as RGB; see `read_image`. `origin` says in messages where it comes from."""
    if picture.mode.startswith("I") or picture.mode == "F":
        raise DataError(
            f"{origin} must have 8 bits per channel, but is of Pillow's mode {picture.mode!r}; "
            "convert it, choosing which range of values becomes 0 to 255."
        )
    orientation = picture.getexif().get(ExifTags.Base.Orientation, 1)
    upright = ImageOps.exif_transpose(picture) if exif == "turn" else picture
    if upright.has_transparency_data:
        transparent = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", transparent.size, "white"), transparent)
    known = orientation if orientation in range(1, 9) else 1
    return ReadImage(np.array(upright.convert("RGB")), known)


def read_mask(
    path: Path, *, classes: int, ignore: int, palette: Sequence[Colour] | None = None
) -> UInt8[np.ndarray, "height width"]:
    """A PNG or TIFF of class ids, with the value `ignore` turned into `IGNORE`.

    Palette images give their indices, grayscale images of 1 to 16 bits the stored values. EXIF orientation is not
    applied: masks are arrays, not photographs.

    Args:
        path: of the file.
        classes: number of classes.
        ignore: value that does not count.
        palette: where colours stand for classes: one for each class by id, and one more for what is ignored, if any.

    Raises:
        DataError: the file does not decode, is not a single-channel image (without a palette), or holds a value that
            is neither a class id below `classes` nor `ignore`, or a colour that is not in the palette.
    """
    with decoded(path, "mask") as picture:
        if palette is not None:
            return ids_by_colour(np.asarray(picture.convert("RGB")), palette, classes, f"mask {path}")
        values = indices_of(picture, f"mask {path}") // _grayscale_step(picture, path)
    return ids_of(values, classes=classes, ignore=ignore, origin=f"mask {path}")


def check_palette(palette: Sequence[Colour] | None, classes: int) -> None:
    """Refuse a palette that does not give each class a colour of its own.

    Args:
        palette: (red, green, blue) of each class by id, and one more for what is ignored, if any.
        classes: number of classes.

    Raises:
        SpecificationError: there are too few or too many colours, or two are the same.
    """
    if palette is None:
        return
    if len(palette) not in (classes, classes + 1):
        raise SpecificationError(
            f"data.palette must have a colour for each of {classes} classes, and one more for what is ignored if "
            f"anything is, but has {len(palette)}."
        )
    twice = next((colour for colour in palette if palette.count(colour) > 1), None)
    if twice is not None:
        raise SpecificationError(f"data.palette must have different colours, but has {list(twice)} twice.")


def ids_by_colour(
    pixels: UInt8[np.ndarray, "height width 3"], palette: Sequence[Colour], classes: int, origin: str
) -> UInt8[np.ndarray, "height width"]:
    """Class ids by colour; the colour behind those of all classes is ignored.

    Raises:
        DataError: a colour is not in the palette.
    """
    steps = np.array([1 << 16, 1 << 8, 1])
    codes, known = pixels.astype(np.int64) @ steps, np.array(palette) @ steps
    order = np.argsort(known)
    places = np.searchsorted(known, codes, sorter=order).clip(max=len(known) - 1)
    numbers = order[places]
    wrong = known[numbers] != codes
    if wrong.any():
        found = ", ".join(str(colour) for colour in np.unique(pixels[wrong], axis=0)[:_SHOWN].tolist())
        raise DataError(
            f"{origin} must hold the colours of data.palette alone, but holds {found} in {int(wrong.sum())} pixels."
        )
    return np.where(numbers < classes, numbers, IGNORE).astype(np.uint8)


def indices_of(picture: Image.Image, origin: str) -> Int[np.ndarray, "height width"]:
    """What the pixels of a picture with one channel hold; of a palette image, its indices."""
    if picture.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
        colours = picture.convert("RGB").getcolors(_SHOWN) or []
        few = "" if not colours else f" ({', '.join(str(list(colour)) for _, colour in colours)})"  # type: ignore[arg-type]
        raise DataError(
            f"{origin} must have one channel that holds class ids (palette or grayscale), but is of Pillow's mode "
            f"{picture.mode!r}; if its colours{few} stand for classes, name them in data.palette, or save their "
            "indices instead."
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
        different = np.unique(values[wrong])
        found = ", ".join(str(value) for value in different[:_SHOWN])
        white = different.tolist() == [IGNORE]
        hint = "; did you mean class 1? Save 0 and 1, or name the colours in data.palette" if white else ""
        raise DataError(
            f"{origin} must hold values from 0 to {classes - 1} ({classes} classes) or {ignore} (ignored), "
            f"but holds {found} in {int(wrong.sum())} pixels{hint}."
        )
    return np.where(values == ignore, IGNORE, values).astype(np.uint8)


def _grayscale_step(picture: Image.Image, path: Path) -> int:
    """What Pillow multiplied stored values with: it stretches grayscale images of 2 and 4 bits to 0 to 255."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        (depth, *_) = picture.tag_v2.get(TiffImagePlugin.BITSPERSAMPLE, (1,))
        is_gray = picture.mode == "L"
    else:
        depth, color_type = png_format(path)
        is_gray = color_type == GRAY_PNG
    return int(255 // (2**depth - 1)) if is_gray and depth in (2, 4) else 1


def _refuse_ambiguous_tiff(picture: TiffImagePlugin.TiffImageFile, origin: str) -> None:
    """Refuse what a TIFF mask can hold beside plain class ids."""
    pages = getattr(picture, "n_frames", 1)
    if pages > 1:
        raise DataError(f"{origin} must hold one page, but holds {pages}: save the one with the class ids.")
    inverted = picture.tag_v2.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0
    if inverted:
        raise DataError(f"{origin} must be stored with 0 as black, but 0 is white: save it as PNG.")


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
    """The opened and fully decoded file; what is not an image must be in a format that loses nothing."""
    formats, is_loaded = {"image": None, "mask": _MASK_FORMATS}.get(role, ("PNG",)), False
    try:
        with Image.open(path, formats=formats) as picture:
            if role == "mask" and isinstance(picture, TiffImagePlugin.TiffImageFile):
                _refuse_ambiguous_tiff(picture, f"mask {path}")
            picture.load()
            is_loaded = True
            yield picture
    except DataError:
        raise
    except (*_DECODING_ERRORS, *_SLIPS) as error:
        if is_loaded and not isinstance(error, _DECODING_ERRORS):
            raise  # a mistake of the caller's
        reason = " ".join(str(error).split()).rstrip(".")
        if formats is not None and _is_jpeg(path):
            reason = f"it is a JPEG, which changes values where it compresses; save it as {' or '.join(formats)}"
        raise DataError(f"{role} {path} cannot be decoded: {reason}.") from error


def _is_jpeg(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return file.read(len(_JPEG)) == _JPEG
    except OSError:
        return False
