"""Scenes of solids on a ground, drawn from a seed: how difficult, from which part, and what a caption says of them."""

from __future__ import annotations

import colorsys
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from .camera import TANGENT, Camera, look_at
from .geometry import KINDS, bounding_radius, lowest_point
from .materials import Light, Material

Part = Literal["pretraining", "development", "test"]
"""Who sees a scene: the networks that are trained on scenes, the development of probes and searches, the final test."""

Difficulty = Literal["easy", "medium", "hard"]

FORMAT = 1
"""Raised whenever other scenes are drawn from the same arguments, or the same scenes look otherwise."""

MOST_SOLIDS = 5

COLOURS = ("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "grey")
"""What captions call the first colour of a solid."""

_HUES: dict[str, tuple[float, float]] = {  # degrees: middle, half width
    "red": (2.0, 9.0), "orange": (27.0, 8.0), "yellow": (52.0, 8.0), "green": (118.0, 26.0),
    "cyan": (180.0, 13.0), "blue": (222.0, 16.0), "purple": (273.0, 16.0), "pink": (322.0, 15.0),
    "grey": (180.0, 180.0),
}  # fmt: skip

_BANDS = 40
_BANDS_OF: dict[str, tuple[int, ...]] = {
    part: tuple(band for band in range(_BANDS) if band % 4 in own)
    for part, own in {"pretraining": (0, 2), "development": (1,), "test": (3,)}.items()
}


@dataclass(frozen=True)
class Level:
    """What a difficulty means.

    Attributes:
        solids: fewest and most in a scene.
        gap: least distance of two solids' centres as a fraction of their bounding radii's sum; smaller hides more.
        contrast: how far the second colour of a solid's texture is from the first, in [0, 1].
        ground_contrast: the same for the ground.
        ground_saturation: largest saturation of the ground's colours.
        upright: fraction of solids that stand upright; of the others one in four lies and the rest tumble freely.
    """

    solids: tuple[int, int]
    gap: float
    contrast: float
    ground_contrast: float
    ground_saturation: float
    upright: float


LEVELS: dict[str, Level] = {
    "easy": Level((1, 2), gap=0.95, contrast=0.25, ground_contrast=0.2, ground_saturation=0.3, upright=0.8),
    "medium": Level((1, 3), gap=0.8, contrast=0.5, ground_contrast=0.4, ground_saturation=0.5, upright=0.6),
    "hard": Level((3, MOST_SOLIDS), gap=0.6, contrast=1.0, ground_contrast=1.0, ground_saturation=0.9, upright=0.45),
}


@dataclass(frozen=True)
class Solid:
    """One solid.

    Attributes:
        kind: position in `KINDS`.
        shape: (3,) half sizes in metres, see `geometry.signed_distance`.
        rounding: radius of rounded edges in metres.
        centre: (3,) in the world, in metres.
        rotation: (3, 3); column k is the solid's own axis k in the world.
        colour: position in `COLOURS`.
        material: what it is made of.
    """

    kind: int
    shape: np.ndarray
    rounding: float
    centre: np.ndarray
    rotation: np.ndarray
    colour: int
    material: Material


@dataclass(frozen=True)
class Scene:
    """Solids, ground, light and two cameras.

    Attributes:
        solids: what stands on the ground.
        ground: what the ground is made of.
        ground_yaw: how the ground's texture is turned, in radians.
        light: lamp and sky.
        cameras: two views of the same things.
    """

    solids: tuple[Solid, ...]
    ground: Material
    ground_yaw: float
    light: Light
    cameras: tuple[Camera, Camera]


def draw_scene(part: Part, seed: int, index: int, difficulty: Difficulty = "medium") -> Scene:
    """The scene of a number: always the same for the same arguments, however many others there are.

    Kind, colour, texture, size, pose and light are independent of each other, so that colour says nothing of the kind.
    Scenes of different parts share neither random numbers nor texture parameters: the hue within the range of a
    colour's name or of the ground, and a texture's frequency relative to the solid's size or on the ground, come from
    bands of their own, which interleave so that no part looks different as a whole.

    Args:
        part: who sees the scene.
        seed: 0 or above.
        index: 0 or above.
        difficulty: see `LEVELS`.

    Raises:
        ValueError: an argument is out of range.
    """
    if part not in get_args(Part):
        raise ValueError(f"part must be one of {', '.join(get_args(Part))}, but got {part!r}.")
    if difficulty not in LEVELS:
        raise ValueError(f"difficulty must be one of {', '.join(LEVELS)}, but got {difficulty!r}.")
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must be 0 or above, but got {seed} and {index}.")
    numbers = [FORMAT, get_args(Part).index(part), tuple(LEVELS).index(difficulty), seed, index]
    return _Sampler(np.random.default_rng(numbers), part, LEVELS[difficulty]).scene()


def banded(rng: np.random.Generator, low: float, high: float, part: Part) -> float:
    """A uniform number from the bands of [low, high) that belong to a part."""
    return low + (high - low) * float(rng.choice(_BANDS_OF[part]) + rng.random()) / _BANDS


def part_of(value: float, low: float, high: float) -> Part:
    """The part whose bands of [low, high) a number lies in: the inverse of `banded`."""
    band = min(int((value - low) / (high - low) * _BANDS), _BANDS - 1)
    return next(part for part in get_args(Part) if band in _BANDS_OF[part])


class _Sampler:
    """Draws one scene from a generator of random numbers."""

    def __init__(self, rng: np.random.Generator, part: Part, level: Level) -> None:
        self._rng, self._level = rng, level
        self._part: Part = part

    def scene(self) -> Scene:
        solids = self._solids()
        saturation = self._level.ground_saturation
        hues = [banded(self._rng, 0.0, 1.0, self._part) for _ in range(2)]
        colours = [_rgb(hue, self._uniform(0.03, saturation), self._uniform(0.3, 0.9)) for hue in hues]
        ground = self._material(colours[0] * 0.72, colours[1] * 0.72, self._level.ground_contrast, (0.7, 1.7))
        yaw = self._uniform(0.0, math.pi)
        return Scene(solids, ground, yaw, self._light(), self._cameras(solids))

    def _uniform(self, low: float, high: float) -> float:
        return float(self._rng.uniform(low, high))

    def _solids(self) -> tuple[Solid, ...]:
        rng = self._rng
        fewest, most = self._level.solids
        count = int(rng.integers(fewest, most + 1))
        kinds = rng.permutation(len(KINDS))[:count] if rng.random() < 0.8 else rng.integers(0, len(KINDS), count)
        placed: list[tuple[np.ndarray, float]] = []
        return tuple(self._solid(int(kind), placed) for kind in kinds)

    def _solid(self, kind: int, placed: list[tuple[np.ndarray, float]]) -> Solid:
        size = self._uniform(0.7, 1.05)
        shape = self._shape(KINDS[kind]) * size
        rotation = self._rotation()
        radius = bounding_radius(kind, shape)
        where = self._free_place(radius, placed)
        placed.append((where, radius))
        centre = np.array([*where, -lowest_point(kind, shape, rotation[2])])
        colour = int(self._rng.integers(len(COLOURS)))
        first, second = (self._colour(COLOURS[of]) for of in (colour, int(self._rng.integers(len(COLOURS)))))
        material = self._material(first * 1.2, second * 1.2, self._level.contrast, (2.0 / size, 4.5 / size))
        return Solid(kind, shape, self._uniform(0.03, 0.1) * size, centre, rotation, colour, material)

    def _free_place(self, radius: float, placed: list[tuple[np.ndarray, float]]) -> np.ndarray:
        """The nearest to the origin of a few random places that keep the level's gap; the widest gap if none does."""
        spread = 0.45 if not placed else 1.5 * (1 + 0.25 * len(placed))
        places = self._rng.uniform(-spread, spread, (24, 2))
        if not placed:
            return np.asarray(places[0])
        reach = [self._level.gap * (radius + other) for _, other in placed]
        distances = np.stack([np.linalg.norm(places - centre, axis=1) for centre, _ in placed], 1)
        slack = (distances - np.array(reach)).min(1)
        free = np.flatnonzero(slack >= 0)
        if not len(free):
            return np.asarray(places[slack.argmax()])
        return np.asarray(places[free[np.linalg.norm(places[free], axis=1).argmin()]])

    def _shape(self, kind: str) -> np.ndarray:
        between = self._uniform
        if kind == "sphere":
            return np.array([0.78, 0, 0])
        if kind == "box":
            return np.array([between(0.48, 0.72), between(0.48, 0.72), between(0.42, 0.8)])
        if kind == "cylinder":
            return np.array([between(0.45, 0.7), 0, between(0.45, 0.9)])
        if kind == "cone":
            return np.array([between(0.6, 0.85), 0, between(0.6, 0.95)])
        if kind == "torus":
            tube = between(0.2, 0.34)
            return np.array([1.05 - tube, tube, 0])
        if kind == "capsule":
            return np.array([between(0.36, 0.5), 0, between(0.4, 0.7)])
        return np.array([between(0.58, 0.8), 0, between(0.6, 0.95)])

    def _rotation(self) -> np.ndarray:
        """Upright, lying or any: columns are the solid's own axes in the world."""
        yaw = _turn(2, self._uniform(0.0, 2 * math.pi))
        style = self._rng.random()
        if style < self._level.upright:
            return yaw
        if style < self._level.upright + 0.25 * (1 - self._level.upright):
            lying = _turn(0, math.pi / 2 + 0.1 * self._rng.normal())
            spin = _turn(2, self._uniform(0.0, 2 * math.pi))
            return np.asarray(yaw @ lying @ spin)
        return _rotation_of(self._rng.normal(size=4))

    def _colour(self, name: str) -> np.ndarray:
        middle, half = _HUES[name]
        hue = banded(self._rng, middle - half, middle + half, self._part) / 360
        saturation = self._uniform(0.0, 0.08) if name == "grey" else self._uniform(0.55, 0.95)
        return _rgb(hue, saturation, self._uniform(0.3, 0.95) if name == "grey" else self._uniform(0.5, 0.95))

    def _material(
        self, first: np.ndarray, second: np.ndarray, contrast: float, frequencies: tuple[float, float]
    ) -> Material:
        return Material(
            texture=int(self._rng.choice(5, p=[0.36, 0.17, 0.17, 0.17, 0.13])),
            colours=np.stack([first, first + contrast * (second - first)]),
            frequency=banded(self._rng, *frequencies, self._part),
            phase=self._rng.uniform(0, 2 * math.pi, 3),
            highlight=self._uniform(0.0, 0.7),
            gloss=self._uniform(8.0, 80.0),
        )

    def _light(self) -> Light:
        azimuth, elevation = self._uniform(0.0, 2 * math.pi), math.radians(self._uniform(28.0, 70.0))
        warmth = 0.12 * self._rng.normal()
        sky = [_rgb(self._rng.random(), self._uniform(0.05, 0.5), self._uniform(0.4, 0.9)) for _ in range(2)]
        return Light(
            direction=np.array([*(math.cos(elevation) * _heading(azimuth)), math.sin(elevation)]),
            colour=np.array([1 + warmth, 1, 1 - warmth]) * self._uniform(1.15, 1.75),
            ambient=self._uniform(0.25, 0.45),
            sharpness=self._uniform(6.0, 20.0),
            horizon=sky[0],
            zenith=sky[1],
        )

    def _cameras(self, solids: tuple[Solid, ...]) -> tuple[Camera, Camera]:
        """Two views towards the middle of the solids, near enough for them to fill the picture."""
        centres = np.stack([solid.centre for solid in solids])
        middle = (centres.min(0) + centres.max(0)) / 2
        reach = max(
            float(np.linalg.norm(solid.centre - middle)) + 0.8 * bounding_radius(solid.kind, solid.shape)
            for solid in solids
        )
        target = middle + np.array([*(0.12 * self._rng.normal(size=2)), self._uniform(-0.1, 0.1)])
        distance = max(2.4, reach / TANGENT * self._uniform(0.72, 1.05))
        azimuth = self._uniform(0.0, 2 * math.pi)
        other = azimuth + self._rng.choice([-1, 1]) * math.radians(self._uniform(12.0, 40.0))
        elevations = np.radians(self._rng.uniform(12, 40, 2))
        second = distance * self._uniform(0.9, 1.15)
        return (
            look_at(target, azimuth, float(elevations[0]), distance),
            look_at(target, float(other), float(elevations[1]), second),
        )


def caption(solids: Iterable[tuple[int, int]], colours: bool = True) -> str:
    """Solids in words, for example "red sphere and blue box".

    Args:
        solids: colour and kind of each, positions in `COLOURS` and `KINDS`, in the order in which they are named.
        colours: name colours; without them only kinds.
    """
    return " and ".join(f"{COLOURS[colour]} {KINDS[kind]}" if colours else KINDS[kind] for colour, kind in solids)


def _rgb(hue: float, saturation: float, value: float) -> np.ndarray:
    """Linear RGB of a display colour; hue in turns."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value)) ** 1.8


def _heading(azimuth: float) -> np.ndarray:
    return np.array([math.cos(azimuth), math.sin(azimuth)])


def _turn(axis: int, angle: float) -> np.ndarray:
    """Rotation about a coordinate axis."""
    quaternion = np.zeros(4)
    quaternion[0], quaternion[1 + axis] = math.cos(angle / 2), math.sin(angle / 2)
    return _rotation_of(quaternion)


def _rotation_of(quaternion: np.ndarray) -> np.ndarray:
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
