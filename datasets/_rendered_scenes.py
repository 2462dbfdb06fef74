"""The built-in data set of rendered scenes: solids on a ground, drawn when they are asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar, get_args

import numpy as np

from diffsift.common.reporting import Reporter
from diffsift.errors import SpecificationError

from ._base import Dataset
from ._samples import Label, Sample, Samples, Split, check_split_name
from .rendered import CLASSES, FORMAT, KINDS, LEVELS, Difficulty, Part, Renderer, Rendering, Scene, draw_scene
from .rendered.keypoints import Keypoints, draw_counterparts, draw_keypoints

KEYPOINTS = 24
"""Keypoints of a pair."""

FARTHEST = 20.0
"""Depth in metres beyond which it counts as unknown."""

_ANSWERS_FORMAT = 1
"""Raised whenever the answers change though the scenes do not."""

_BLOCK = 8  # scenes drawn together, which takes much less time than one by one
_PARTNERS = 2_000_000  # numbers of scenes from here on are partners of others
_TRIES = 16  # partners that are looked at
_LEAST_SHARED = 4  # keypoints of a scene and its partner
_PARTS: dict[Split, Part] = {"train": "development", "validation": "development", "test": "test"}
_FIRST: dict[Split, int] = {"train": 0, "validation": 1_000_000, "test": 0}


@dataclass(frozen=True)
class _View:
    """A picture with its answers: arrays of (height, width), normals with a last axis of 3."""

    image: np.ndarray
    solid: np.ndarray
    label: np.ndarray
    depth: np.ndarray
    normal: np.ndarray


@dataclass(frozen=True)
class _Answers:
    """One scene: its views, and where the keypoints are in each, (keypoints, 2) in [0, 1], not a number if unseen."""

    views: tuple[_View, ...]
    keypoints: tuple[np.ndarray, ...]
    nearest: int


class RenderedScenes(Dataset):
    """Solids on a textured ground in perspective, with shadows and exact answers; nothing is downloaded or stored.

    Scenes of the test split come from other random numbers and other bands of hues and texture frequencies than those
    of training and validation; what the built-in pipelines were trained on is a third part. A scene does not depend on
    how many others there are. Eight are drawn together and kept for a while, so that reading in order is fast: about
    a hundredth of a second a scene at 64 px.

    The same scenes answer five tasks. Segmentation: the kind of solid at each pixel's centre, 0 for ground and sky.
    Depth: metres along the camera's axis, unknown for the sky and beyond 20 m. Normals: unit vectors in the camera
    frame (x right, y up, z towards the viewer), unknown for the sky. Classification: the kind of the nearest solid.
    Correspondence: samples 2k and 2k + 1 are a pair, in turn two views of scene k, and scene k and another in which a
    solid of the same kind is seen, see `rendered.keypoints`; random points that the first shows, those hidden in the
    second marked. Where no scene with such a solid is at hand, two views again. A last sample without a partner is in
    no pair.

    Args:
        train: number of training samples, at least 1.
        validation: number of validation samples; 0 leaves the split out, so that the search cross-validates.
        test: number of test samples, at least 1.
        seed: scenes of different seeds differ, 0 or above.
        size: edge of the square pictures in pixels, 16 to 256.
        difficulty: easy, medium or hard: how many solids, how much they hide of each other, how strong textures are.
        task: which answer the samples carry.

    Raises:
        SpecificationError: an argument is out of range.

    Examples:
        >>> data = RenderedScenes(train=2, validation=0, test=1, size=32)
        >>> [len(data.split(name)) for name in ("train", "validation", "test")]
        [2, 0, 1]
        >>> data.split("test")[0].label.shape
        (32, 32)
    """

    credits = ()
    _NAMES: ClassVar[dict[str, tuple[str, ...]]] = {
        "segmentation": CLASSES,
        "depth": (),
        "normals": (),
        "classification": KINDS,
        "correspondence": (),
    }

    def __init__(
        self,
        train: int = 400,
        validation: int = 400,
        test: int = 400,
        seed: int = 0,
        size: int = 64,
        difficulty: str = "medium",
        task: str = "segmentation",
    ) -> None:
        _check_choice("task", task, self._NAMES)
        _check_choice("difficulty", difficulty, LEVELS)
        for field, value, least, most in (
            ("train", train, 1, _FIRST["validation"]),
            ("validation", validation, 0, _FIRST["validation"]),
            ("test", test, 1, _FIRST["validation"]),
            ("seed", seed, 0, None),
            ("size", size, 16, 256),
        ):
            if value < least or (most is not None and value > most):
                bounds = f"at least {least}" if most is None else f"in [{least}, {most}]"
                raise SpecificationError(f"{field} of rendered scenes must be {bounds}, but got {value}.")
        self.task, self.class_names = task, self._NAMES[task]
        self._counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
        self._seed, self._size = seed, size
        self._difficulty: Difficulty = next(level for level in get_args(Difficulty) if level == difficulty)

    def content(self) -> dict[str, Any]:
        return {
            "kind": "rendered-scenes",
            "format": FORMAT,
            "task": self.task,
            "answers": _ANSWERS_FORMAT,
            **{str(split): count for split, count in self._counts.items()},
            "seed": self._seed,
            "size": self._size,
            "difficulty": self._difficulty,
        }

    def split(self, name: Split) -> Samples:
        check_split_name(name)
        names = [f"{name}-{index:06d}" for index in range(self._counts[name])]
        paired = self.task == "correspondence"
        groups = [f"{name}-pair-{index // 2:06d}" for index in range(len(names))] if paired else None
        return Samples(lambda sample: self._sample(name, sample), names, groups)

    def pairs(self, name: Split) -> tuple[tuple[int, int], ...]:
        check_split_name(name)
        count = self._counts[name] // 2 if self.task == "correspondence" else 0
        return tuple((2 * pair, 2 * pair + 1) for pair in range(count))

    def check(self, reporter: Reporter | None = None) -> None:
        """Nothing can be wrong: the arguments were checked before, and there are no files.

        Args:
            reporter: not needed.
        """

    def _sample(self, split: Split, name: str) -> Sample:
        index = int(name.rpartition("-")[2])
        if self.task == "correspondence":
            answers, view = self._answers(split, index // 2), index % 2
            seen, keypoints = answers.views[view], answers.keypoints[view]
            group = f"{split}-pair-{index // 2:06d}"
            return Sample(name, seen.image, keypoints, group, box=_box(seen.solid))
        answers = self._answers(split, index)
        return Sample(name, answers.views[0].image, self._label(answers), name)

    def _label(self, answers: _Answers) -> Label:
        view = answers.views[0]
        if self.task == "depth":
            return np.where(view.depth <= FARTHEST, view.depth, np.float32(np.nan))
        if self.task == "normals":
            return view.normal
        if self.task == "classification":
            return np.array(answers.nearest, dtype=np.int64)
        return view.label

    def _answers(self, split: Split, index: int) -> _Answers:
        number = _FIRST[split] + index
        paired = self.task == "correspondence"
        block = _draw_block(_PARTS[split], self._seed, self._difficulty, self._size, paired, number // _BLOCK)
        return block[number % _BLOCK]


@lru_cache(maxsize=4)
def _draw_block(
    part: Part, seed: int, difficulty: Difficulty, size: int, paired: bool, block: int
) -> tuple[_Answers, ...]:
    """Scenes `block * 8` and the seven after it."""
    numbers = range(block * _BLOCK, (block + 1) * _BLOCK)
    scenes = [draw_scene(part, seed, number, difficulty) for number in numbers]
    if paired:
        scenes += [_partner(scenes[place], part, seed, numbers[place], difficulty) for place in range(1, _BLOCK, 2)]
    renderer = Renderer(scenes)
    first = renderer.render(size)
    second = renderer.render(size, view=1) if paired else None
    answers = []
    for place, number in enumerate(numbers):
        nearest = _nearest_kind(first, place)
        if second is None:
            answers.append(_Answers((_view(first, place),), (), nearest))
            continue
        rng = np.random.default_rng([_ANSWERS_FORMAT, seed, number])
        partner = _BLOCK + place // 2
        points = draw_counterparts(renderer, first, place, partner, KEYPOINTS, rng) if place % 2 else None
        if points is not None and points.visible.sum() >= _LEAST_SHARED:
            other = _view(first, partner)
        else:
            points, other = draw_keypoints(renderer, first, place, KEYPOINTS, rng), _view(second, place)
        answers.append(_Answers((_view(first, place), other), _in_unit_square(points, size), nearest))
    return tuple(answers)


def _partner(scene: Scene, part: Part, seed: int, number: int, difficulty: Difficulty) -> Scene:
    """The first of a few scenes with a solid of a kind that a scene has; the last if none has."""
    kinds = {solid.kind for solid in scene.solids}
    candidates = (
        draw_scene(part, seed, _PARTNERS + _TRIES * number + attempt, difficulty) for attempt in range(_TRIES)
    )
    for other in candidates:
        if kinds & {solid.kind for solid in other.solids}:
            return other
    return draw_scene(part, seed, _PARTNERS + _TRIES * number + _TRIES - 1, difficulty)


def _view(rendering: Rendering, scene: int) -> _View:
    fields = ("image", "solid", "label", "depth", "normal")
    return _View(*(getattr(rendering, field)[scene].numpy() for field in fields))


def _in_unit_square(points: Keypoints | None, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Where keypoints are in both pictures, (keypoints, 2) in [0, 1], not a number where one is not seen."""
    if points is None:
        return np.full((KEYPOINTS, 2), np.nan, np.float32), np.full((KEYPOINTS, 2), np.nan, np.float32)
    target = np.where(points.visible[:, None], points.target / size, np.nan)
    return points.source / size, target.astype(np.float32)


def _nearest_kind(rendering: Rendering, scene: int) -> int:
    """Kind of the solid whose visible surface comes nearest, of those that cover a dozen pixels at 64 px."""
    least = 12 * rendering.solid.shape[-1] ** 2 // 64**2
    solid, depth, label = (getattr(rendering, field)[scene].numpy() for field in ("solid", "depth", "label"))
    visible = rendering.visible_solids(scene, least) or rendering.visible_solids(scene, 1)
    if not visible:
        return 0
    nearest = min(visible, key=lambda position: depth[solid == position].min())
    return int(label[solid == nearest][0]) - 1


def _box(solid: np.ndarray) -> tuple[float, float, float, float] | None:
    """Around all that is seen of solids, in [0, 1]."""
    rows, columns = np.nonzero(solid >= 0)
    if not len(rows):
        return None
    size = len(solid)
    x0, x1 = columns.min() / size, (columns.max() + 1) / size
    return float(x0), float(rows.min() / size), float(x1), float((rows.max() + 1) / size)


def _check_choice(field: str, value: str, valid: Any) -> None:
    if value not in valid:
        raise SpecificationError(f"{field} of rendered scenes must be one of {', '.join(valid)}, but got {value!r}.")
