"""Digit scenes: small RGB images with exact per-pixel labels, generated from a seed.

A scene is a crop of a photograph, reduced to ``detail x detail`` colours and smoothly enlarged, with one or two
handwritten digits pasted on it at random size, place, rotation, colour and contrast. The label of a pixel is 0 for
background and ``1 + digit`` where a digit covers more than half of it.

Both sources ship with scikit-learn: ``load_digits`` (1,797 digits of 8 x 8 px) and ``load_sample_images`` (two
photographs, see `PHOTO_CREDITS`). Digits and photograph regions are cut into three disjoint parts, so that nothing in
a validation or test scene was seen while the built-in pipeline or a probe was trained.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

Part = Literal["train", "validation", "test"]

CLASS_NAMES = ("background", *(f"digit {digit}" for digit in range(10)))

# As scikit-learn's `load_sample_images().DESCR` names them.
PHOTO_CREDITS = (
    "china.jpg: danielbuechele (flickr.com/photos/danielbuechele), CC BY 2.0",
    "flower.jpg: vultilion (flickr.com/photos/vultilion), CC BY 2.0",
)

BACKGROUND_DEPTH = 4.0
NEARER = 0.75
_NORMALISED = np.array([(x, y) for y in (0.25, 0.5, 0.75) for x in (0.3, 0.5, 0.7)])
KEYPOINTS_PER_DIGIT = len(_NORMALISED)

_PART_FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}
_SOURCE_SEED = 20240
_GLYPH = 32  # px; digits are enlarged once to this size, then sampled bilinearly
_MAX_ROTATION = np.deg2rad(10.0)
_MIN_LUMINANCE_CONTRAST = 0.3
_LUMINANCE = np.array([0.299, 0.587, 0.114], dtype=np.float32)


@dataclass(frozen=True)
class Scene:
    """One generated image with its exact answers.

    Attributes:
        image: RGB.
        label: class ids.
        digits: what the pasted digits show, in the order of pasting.
        depth: a distance made of paste order and size: `BACKGROUND_DEPTH` behind, and where a digit covers more than
            half of a pixel, size / edge of the digit (a digit is as large as the picture at distance 1) times
            `NEARER` for each digit pasted before it, so that what covers is always nearer than what is covered.
        keypoints: (x, y) in [0, 1] of `KEYPOINTS_PER_DIGIT` normalised points of each digit class, class after class;
            NaN where the class is not shown, and where a point is outside the picture or covered by the other
            digit. A class shown twice is taken where it was pasted last.
    """

    image: UInt8[np.ndarray, "size size 3"]
    label: UInt8[np.ndarray, "size size"]
    digits: tuple[int, ...]
    depth: Float32[np.ndarray, "size size"]
    keypoints: Float32[np.ndarray, "keypoints 2"]


class SceneGenerator:
    """Scene number `index` of a part, always the same for the same arguments.

    Args:
        part: which disjoint share of digits and photograph regions to draw from.
        seed: scenes of different seeds differ; the parts do not depend on it.
        size: edge of the square scene in pixels, at least 32.
        detail: colours per edge kept of the background crop; 3 is the standard data set, ``size`` keeps the photograph
            as sharp as it is (the *hard* variant).

    Examples:
        >>> scene = SceneGenerator("test", seed=0).scene(7)
        >>> scene.image.shape, sorted(set(scene.label.ravel().tolist()) - {0}) == sorted({d + 1 for d in scene.digits})
        ((32, 32, 3), True)
    """

    def __init__(self, part: Part, seed: int, *, size: int = 32, detail: int = 3) -> None:
        if part not in get_args(Part):
            raise ValueError(f"part must be one of {', '.join(get_args(Part))}, but got {part!r}.")
        if size < 32:
            raise ValueError(f"size must be at least 32 px, but got {size}.")
        if not 2 <= detail <= size:
            raise ValueError(f"detail must be in [2, size={size}], but got {detail}.")
        self.part: Part = part
        self.seed, self.size, self.detail = seed, size, detail
        self._glyphs, self._digits = _glyphs_of(part)
        self._photos = _photo_regions_of(part)
        self._enlarge = _smooth_enlargement(detail, size)
        grid = np.arange(size, dtype=np.float32) + 0.5
        self._rows, self._columns = np.meshgrid(grid, grid, indexing="ij")

    def scene(self, index: int) -> Scene:
        """Draw a scene.

        Args:
            index: number of the scene, 0 or above.

        Returns:
            The same scene each time.
        """
        rng = np.random.default_rng([self.seed, get_args(Part).index(self.part), index])
        image = self._background(rng)
        label = np.zeros((self.size, self.size), dtype=np.uint8)
        digits: list[int] = []
        depth = np.full(label.shape, BACKGROUND_DEPTH, dtype=np.float32)
        keypoints = np.full((10, KEYPOINTS_PER_DIGIT, 2), np.nan, dtype=np.float32)
        for center, edge in self._positions(rng):
            number = int(rng.integers(len(self._digits)))
            alpha, points = self._pasted_alpha(rng, self._glyphs[number], center, edge)
            color = _contrasting_color(rng, (image * alpha[..., None]).sum((0, 1)) / max(float(alpha.sum()), 1e-6))
            image += alpha[..., None] * (color - image)
            label[alpha > 0.5] = 1 + self._digits[number]
            depth[alpha > 0.5] = self.size / edge * NEARER ** len(digits)
            keypoints[_covered(keypoints, alpha)] = np.nan
            keypoints[self._digits[number]] = np.where(
                np.all((points > 0) & (points < 1), axis=-1, keepdims=True), points, np.nan
            )
            digits.append(int(self._digits[number]))
        pixels = (image * 255.0 + 0.5).clip(0, 255).astype(np.uint8)
        return Scene(pixels, label, tuple(digits), depth, keypoints.reshape(-1, 2))

    def _background(self, rng: np.random.Generator) -> Float32[np.ndarray, "size size 3"]:
        cumulative = self._photos[rng.integers(len(self._photos))]
        height, width = cumulative.shape[0] - 1, cumulative.shape[1] - 1
        edge = int(rng.integers(self.size, min(height, width) + 1))
        top, left = int(rng.integers(height - edge + 1)), int(rng.integers(width - edge + 1))
        rows = top + np.arange(self.detail + 1) * edge // self.detail
        columns = left + np.arange(self.detail + 1) * edge // self.detail
        sums = np.diff(np.diff(cumulative[np.ix_(rows, columns)], axis=0), axis=1)
        areas = np.diff(rows)[:, None] * np.diff(columns)[None, :]
        colors = (sums / areas[..., None]).astype(np.float32)
        background: Float32[np.ndarray, "size size 3"]
        background = np.einsum("id,dec,je->ijc", self._enlarge, colors, self._enlarge, optimize=True)
        return background

    def _positions(self, rng: np.random.Generator) -> list[tuple[Float[np.ndarray, "2"], float]]:
        """Centers (row, column) and edges of one or two digits; of two, the best separated of eight tries."""
        shortest, longest = self.size / 2, self.size * 22 / 32
        count = int(rng.integers(1, 3))
        # Two digits at the largest size would hide each other.
        edges = rng.uniform(shortest, longest if count == 1 else shortest * 1.15, count)
        low, high = edges * 0.45, self.size - edges * 0.45
        tries = rng.uniform(low[:, None], high[:, None], (8, count, 2))
        best = np.linalg.norm(tries[:, 0] - tries[:, -1], axis=-1).argmax()
        return list(zip(tries[best], edges.tolist(), strict=True))

    def _pasted_alpha(
        self,
        rng: np.random.Generator,
        glyph: Float32[np.ndarray, "glyph glyph"],
        center: Float[np.ndarray, "2"],
        edge: float,
    ) -> tuple[Float32[np.ndarray, "size size"], Float[np.ndarray, "keypoints 2"]]:
        """How much each pixel is covered, and where the digit's normalised points lie, (x, y) in [0, 1]."""
        angle, aspect = rng.uniform(-_MAX_ROTATION, _MAX_ROTATION), rng.uniform(0.9, 1.1)
        rows, columns = self._rows - np.float32(center[0]), self._columns - np.float32(center[1])
        scale = np.float32(_GLYPH / edge)
        cosine, sine = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        source_rows = (cosine * rows - sine * columns) * scale + _GLYPH / 2 - 0.5
        source_columns = (sine * rows + cosine * columns) * scale * np.float32(aspect) + _GLYPH / 2 - 0.5
        # The inverse map: from points of the digit to points of the picture.
        column, row = ((_NORMALISED - 0.5) * edge).T / np.array([[aspect], [1.0]])
        x = center[1] + np.cos(angle) * column - np.sin(angle) * row
        y = center[0] + np.sin(angle) * column + np.cos(angle) * row
        return _bilinear(glyph, source_rows, source_columns), np.stack([x, y], axis=1) / self.size


def _covered(
    keypoints: Float32[np.ndarray, "digits keypoints 2"], alpha: Float32[np.ndarray, "size size"]
) -> Bool[np.ndarray, "digits keypoints"]:
    """Which keypoints a digit pasted on top hides."""
    known = np.asarray(np.isfinite(keypoints).all(-1))
    column, row = (np.where(known[..., None], keypoints, 0) * len(alpha)).astype(int).transpose(2, 0, 1)
    hidden: Bool[np.ndarray, "digits keypoints"] = known & (alpha[row, column] > 0.5)
    return hidden


def _bilinear(
    image: Float32[np.ndarray, "h w"], rows: Float32[np.ndarray, "size size"], columns: Float32[np.ndarray, "size size"]
) -> Float32[np.ndarray, "size size"]:
    """Sample `image` at fractional pixel indices, 0 outside."""
    padded = np.pad(image, 1)
    rows = np.clip(rows + 1, 0, padded.shape[0] - 1.001)
    columns = np.clip(columns + 1, 0, padded.shape[1] - 1.001)
    top, left = rows.astype(np.intp), columns.astype(np.intp)
    down, right = rows - top, columns - left
    upper = padded[top, left] * (1 - right) + padded[top, left + 1] * right
    lower = padded[top + 1, left] * (1 - right) + padded[top + 1, left + 1] * right
    return (upper * (1 - down) + lower * down).astype(np.float32)


def _contrasting_color(rng: np.random.Generator, behind: Float32[np.ndarray, "3"]) -> Float32[np.ndarray, "3"]:
    """A random colour whose luminance differs visibly from what lies behind the digit."""
    colors = rng.random((16, 3), dtype=np.float32)
    contrast = np.abs((colors - behind) @ _LUMINANCE)
    enough = contrast >= _MIN_LUMINANCE_CONTRAST
    number = enough.argmax() if enough.any() else contrast.argmax()  # the first that is enough, or the strongest
    color: Float32[np.ndarray, "3"] = colors[int(number)]
    return color


@lru_cache
def _part_of_each(count: int, part: Part) -> Int[np.ndarray, "members"]:
    order = np.random.default_rng(_SOURCE_SEED).permutation(count)
    bounds = np.cumsum([0.0, *_PART_FRACTIONS.values()]) * count
    number = get_args(Part).index(part)
    return order[int(bounds[number]) : int(bounds[number + 1])]


@lru_cache
def _glyphs_of(part: Part) -> tuple[Float32[np.ndarray, "digits glyph glyph"], Int[np.ndarray, "digits"]]:
    """The part's digits, enlarged with cubic splines to `_GLYPH` px and scaled to [0, 1], and what they show."""
    from scipy.ndimage import zoom
    from sklearn.datasets import load_digits

    source: Any = load_digits()
    members = _part_of_each(len(source.target), part)
    factor = _GLYPH / source.images.shape[1]
    glyphs = zoom(source.images[members] / 16.0, (1, factor, factor), order=3, mode="grid-constant", grid_mode=True)
    # A gain above 1 thickens the strokes, which 8 x 8 px leave faint.
    return np.clip(np.asarray(glyphs) * 1.3, 0, 1).astype(np.float32), source.target[members]


@lru_cache
def _photo_regions_of(part: Part) -> tuple[Float[np.ndarray, "height width 3"], ...]:
    """Cumulative sums (for fast means over rectangles) of the part's vertical band of each photograph, in [0, 1]."""
    from sklearn.datasets import load_sample_images

    bounds = np.cumsum([0.0, *_PART_FRACTIONS.values()])
    number = get_args(Part).index(part)
    regions = []
    for photo in load_sample_images().images:
        left, right = (int(photo.shape[1] * bound) for bound in bounds[number : number + 2])
        cumulative = (photo[:, left:right] / 255.0).cumsum(0).cumsum(1)
        regions.append(np.pad(cumulative, ((1, 0), (1, 0), (0, 0))))
    return tuple(regions)


@lru_cache
def _smooth_enlargement(cells: int, size: int) -> Float32[np.ndarray, "size cells"]:
    """Linear-interpolation matrix from `cells` cell centers to `size` pixel centers."""
    position = ((np.arange(size) + 0.5) * cells / size - 0.5).clip(0, cells - 1)
    weight = 1 - np.abs(position[:, None] - np.arange(cells)[None, :])
    return weight.clip(0).astype(np.float32)
