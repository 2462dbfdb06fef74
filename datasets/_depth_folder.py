"""A folder of images with the depth of each of their pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Shaped

from diffsift.errors import DataError

from ._files import FileDataset, FileLayout, Item
from ._image_files import GRAY_PNG, Exif, decoded, png_format, read_array
from ._listing import pair_by_stem, require_folder, split_by_fractions
from ._samples import Split

_MILLIMETRE = 0.001  # metres


@dataclass(frozen=True)
class DepthScale:
    """How stored depths become metres.

    Attributes:
        png_unit: metres that one grey level of a PNG stands for; None: PNGs hold millimetres in 16 bits.
        limit: the largest valid depth in metres: larger ones are unknown; None: none is too large.
    """

    png_unit: float | None = None
    limit: float | None = None

    @property
    def settings(self) -> dict[str, float | None]:
        """What the identity of data holds of it; without a limit, as in versions that had none."""
        limit = {} if self.limit is None else {"depth_limit": self.limit}
        return {"png_unit": self.png_unit, **limit}


def depth_folder(
    root: Path,
    fractions: tuple[float, float, float],
    seed: int,
    png_unit: float | None = None,
    depth_limit: float | None = None,
    exif: Exif = "turn",
) -> FileDataset:
    """Images in ``images``; in ``depth`` PNGs or ``.npy`` in metres, of the same stems.

    Args:
        root: folder of the data set.
        fractions: shares of train, validation and test.
        seed: of the split.
        png_unit: metres that one grey level of a PNG stands for; None: PNGs hold millimetres in 16 bits.
        depth_limit: the largest valid depth in metres: larger ones are unknown; None: none is too large.
        exif: ``ignore`` leaves images as they are stored, whatever their EXIF orientation says.

    Returns:
        The data set.
    """
    scale = DepthScale(png_unit, depth_limit)

    def find() -> Mapping[Split, Sequence[Item]]:
        pairs = pair_by_stem(require_folder(root, "images"), require_folder(root, "depth"), (".png", ".npy"))
        items = [Item(image.stem, image, partial(read_depth, file, scale), file, image.stem) for image, file in pairs]
        return split_by_fractions(items, fractions, seed)

    def folders() -> tuple[Path, Path]:
        return root / "images", root / "depth"

    layout = FileLayout("depth-folder", "depth", find, settings=scale.settings, folders=folders)
    return FileDataset(replace(layout, exif=exif, depth_unit=scale.png_unit))


def read_depth(file: Path, scale: DepthScale, size: tuple[int, int]) -> Float32[np.ndarray, "rows columns"]:
    """Depth in metres, not a number where it is unknown (0, negative, not finite or beyond the limit).

    Args:
        file: ``.npy`` of floating-point metres, or a grayscale PNG.
        scale: how stored depths become metres.
        size: of the image; the caller compares.

    Raises:
        DataError: the file cannot be read, or its unit is not certain.
    """
    if file.suffix.lower() == ".npy":
        return known_depth(read_array(file), str(file), scale.limit)
    return _read_png(file, scale)


def _read_png(file: Path, scale: DepthScale) -> Float32[np.ndarray, "rows columns"]:
    with decoded(file, "depth") as picture:
        depth, colour = png_format(file)
        if colour != GRAY_PNG or depth not in (8, 16):
            raise DataError(
                f"{file} must be a grayscale PNG of 16 bits in millimetres, but has {depth} bits per channel and is of "
                f"Pillow's mode {picture.mode!r}."
            )
        if depth == 8 and scale.png_unit is None:
            raise DataError(
                f"{file} must be a grayscale PNG of 16 bits in millimetres, but has 8 bits, so at most 0.255 m: if "
                "it is depth, set data.png_unit to the metres per grey level."
            )
        levels = np.asarray(picture).astype(np.float32)
    unit = np.float32(_MILLIMETRE if scale.png_unit is None else scale.png_unit)
    return known_depth(levels * unit, str(file), scale.limit)


def known_depth(
    values: Shaped[np.ndarray, "rows columns"], origin: str, limit: float | None = None
) -> Float32[np.ndarray, "rows columns"]:
    """Floating-point metres with all that is no depth (0, negative, not finite, beyond a limit) turned to not-a-number.

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
        known = np.isfinite(metres) & (metres > 0) & (metres <= (np.inf if limit is None else limit))
        return np.where(known, metres, np.float32(np.nan))
