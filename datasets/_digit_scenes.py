"""The built-in data set: digit scenes, generated when they are indexed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float32

from diffsift.common.reporting import Reporter
from diffsift.errors import SpecificationError

from ._base import Dataset
from ._digit_pairs import paired_scene
from ._digit_rendering import CLASS_NAMES, KEYPOINTS_PER_DIGIT, PHOTO_CREDITS, Scene, SceneGenerator
from ._samples import Label, Sample, Samples, Split, check_split_name

_GENERATOR_FORMAT = 1
"""Raised whenever `SceneGenerator` draws other scenes from the same arguments."""

_ANSWERS_FORMAT = 1
"""Raised whenever the answers of the other tasks change."""


@dataclass(frozen=True)
class SceneLook:
    """How scenes look, the same for all of a data set.

    Attributes:
        size: edge of the square scenes in pixels, at least 32.
        detail: colours per edge of the background, in [2, size]; larger is harder.

    Raises:
        SpecificationError: a value is out of range.
    """

    size: int = 32
    detail: int = 3

    def __post_init__(self) -> None:
        _require_at_least("size", self.size, 32)
        _require_at_least("detail", self.detail, 2)
        if self.detail > self.size:
            raise SpecificationError(
                f"detail of digit scenes must be at most size ({self.size}), but got {self.detail}."
            )


class DigitScenes(Dataset):
    """Handwritten digits on photograph crops, with exact labels; nothing is downloaded or stored.

    Digits and photograph regions of the three splits are disjoint. Every scene is a group of its own. A scene takes
    about a millisecond and does not depend on how many others there are.

    The same scenes answer four tasks. Segmentation: the class of every pixel. Depth: a distance made of paste order and
    size, see `Scene.depth`. Classification: the digit that covers most pixels (of equals the smaller), so that every
    scene has exactly one answer. Correspondence: samples 2k and 2k + 1 are a pair, in turn two warps of one scene and
    two scenes that share a digit class, see `paired_scene`; a last sample without a partner is in no pair.

    Args:
        train: number of training scenes, at least 1.
        validation: number of validation scenes; 0 leaves the split out, so that the search cross-validates.
        test: number of test scenes, at least 1.
        seed: scenes of different seeds differ, 0 or above.
        look: size of the scenes and detail of their backgrounds.
        task: which answer the samples carry.

    Raises:
        SpecificationError: an argument is out of range.

    Examples:
        >>> data = DigitScenes(train=3, validation=0, test=2)
        >>> [len(data.split(name)) for name in ("train", "validation", "test")]
        [3, 0, 2]
        >>> data.split("test")[1].label.shape
        (32, 32)
    """

    credits = PHOTO_CREDITS
    _NAMES: ClassVar[dict[str, tuple[str, ...]]] = {
        "segmentation": CLASS_NAMES,
        "depth": (),
        "classification": CLASS_NAMES[1:],
        "correspondence": (),
    }

    def __init__(
        self,
        train: int = 400,
        validation: int = 400,
        test: int = 400,
        seed: int = 0,
        look: SceneLook | None = None,
        task: str = "segmentation",
    ) -> None:
        if task not in self._NAMES:
            raise SpecificationError(f"task of digit scenes must be one of {', '.join(self._NAMES)}, but got {task!r}.")
        self.task, self.class_names = task, self._NAMES[task]
        for field, value, least in (
            ("train", train, 1),
            ("validation", validation, 0),
            ("test", test, 1),
            ("seed", seed, 0),
        ):
            _require_at_least(field, value, least)
        self._counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
        self._seed, self._look = seed, look or SceneLook()
        self._generators: dict[Split, SceneGenerator] = {}

    def content(self) -> dict[str, Any]:
        kind = {} if self.task == "segmentation" else {"task": self.task, "answers": _ANSWERS_FORMAT}
        return {
            **kind,
            "kind": "digit-scenes",
            "format": _GENERATOR_FORMAT,
            "train": self._counts["train"],
            "validation": self._counts["validation"],
            "test": self._counts["test"],
            "seed": self._seed,
            "size": self._look.size,
            "detail": self._look.detail,
        }

    def split(self, name: Split) -> Samples:
        check_split_name(name)

        def load(scene_name: str) -> Sample:
            index, generator = int(scene_name.rpartition("-")[2]), self._generator(name)
            if self.task == "correspondence":
                image, keypoints = paired_scene(generator, index)
                return Sample(scene_name, image, keypoints, _pair_name(name, index), box=_box(keypoints))
            scene = generator.scene(index)
            return Sample(scene_name, scene.image, self._answer(scene), scene_name)

        count = self._counts[name]
        names = [f"{name}-{index:06d}" for index in range(count)]
        paired = self.task == "correspondence"
        return Samples(load, names, [_pair_name(name, index) for index in range(count)] if paired else None)

    def pairs(self, name: Split) -> tuple[tuple[int, int], ...]:
        check_split_name(name)
        count = self._counts[name] // 2 if self.task == "correspondence" else 0
        return tuple((2 * pair, 2 * pair + 1) for pair in range(count))

    def _answer(self, scene: Scene) -> Label:
        if self.task == "depth":
            return scene.depth
        if self.task == "classification":
            return np.array(np.bincount(scene.label.ravel(), minlength=len(CLASS_NAMES))[1:].argmax(), dtype=np.int64)
        return scene.label

    @property
    def has_prompts(self) -> bool:
        return False

    def check(self, reporter: Reporter | None = None) -> None:
        """Draw the first scene of each split: the arguments were checked before, only the sources can be missing.

        Args:
            reporter: not needed, as this takes a moment.
        """
        for name, count in self._counts.items():
            if count:
                self.split(name)[0]

    def _generator(self, name: Split) -> SceneGenerator:
        # Made when first needed: reading the sources imports scikit-learn, which takes a second.
        if name not in self._generators:
            self._generators[name] = SceneGenerator(name, self._seed, size=self._look.size, detail=self._look.detail)
        return self._generators[name]


def _require_at_least(field: str, value: int, least: int) -> None:
    if value < least:
        raise SpecificationError(f"{field} of digit scenes must be at least {least}, but got {value}.")


def _pair_name(split: Split, index: int) -> str:
    return f"{split}-pair-{index // 2:06d}"


def _box(keypoints: Float32[np.ndarray, "keypoints 2"]) -> tuple[float, float, float, float] | None:
    """A box around the visible keypoints of all digits, with a margin around the outermost ones; see `Scene`."""
    digits = keypoints.reshape(-1, KEYPOINTS_PER_DIGIT, 2)
    visible = digits[np.isfinite(digits).all(-1)]
    if not len(visible):
        return None
    margin = 0.1
    (x0, y0), (x1, y1) = (visible.min(0) - margin).clip(0, 1), (visible.max(0) + margin).clip(0, 1)
    return float(x0), float(y0), float(x1), float(y1)
