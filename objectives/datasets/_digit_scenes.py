"""The built-in data set: digit scenes, generated when they are asked for."""

from __future__ import annotations

from typing import Any

from diffsift.errors import SpecificationError

from ._base import Sample, Samples, SegmentationDataset, Split, check_split_name
from ._scenes import CLASS_NAMES, PHOTO_CREDITS, SceneGenerator

_GENERATOR_FORMAT = 1
"""Raised whenever `SceneGenerator` draws other scenes from the same arguments."""


class DigitScenes(SegmentationDataset):
    """Handwritten digits on photograph crops, with exact labels; nothing is downloaded or stored.

    Digits and photograph regions of the three splits are disjoint. Every scene is a group of its own. A scene takes
    about a millisecond and does not depend on how many others there are.

    Args:
        train: number of training scenes, at least 1.
        validation: number of validation scenes; 0 leaves the split out, so that the search cross-validates.
        test: number of test scenes, at least 1.
        seed: scenes of different seeds differ, 0 or above.
        size: edge of the square scenes in pixels, at least 32.
        detail: colours per edge of the background, in [2, size]; larger is harder.

    Raises:
        SpecificationError: an argument is out of range.

    Examples:
        >>> data = DigitScenes(train=3, validation=0, test=2)
        >>> [len(data.split(name)) for name in ("train", "validation", "test")]
        [3, 0, 2]
        >>> data.split("test")[1].label.shape
        (32, 32)
    """

    class_names = CLASS_NAMES
    credits = PHOTO_CREDITS

    def __init__(
        self,
        train: int = 400,
        validation: int = 400,
        test: int = 400,
        seed: int = 0,
        size: int = 32,
        detail: int = 3,
    ) -> None:
        for field, value, least in (
            ("train", train, 1),
            ("validation", validation, 0),
            ("test", test, 1),
            ("seed", seed, 0),
            ("size", size, 32),
            ("detail", detail, 2),
        ):
            if value < least:
                raise SpecificationError(f"{field} of digit scenes must be at least {least}, but got {value}.")
        if detail > size:
            raise SpecificationError(f"detail of digit scenes must be at most size ({size}), but got {detail}.")
        self._counts: dict[Split, int] = {"train": train, "validation": validation, "test": test}
        self._seed, self._size, self._detail = seed, size, detail
        self._generators: dict[Split, SceneGenerator] = {}

    def identity(self) -> dict[str, Any]:
        return {
            "kind": "digit-scenes",
            "format": _GENERATOR_FORMAT,
            "train": self._counts["train"],
            "validation": self._counts["validation"],
            "test": self._counts["test"],
            "seed": self._seed,
            "size": self._size,
            "detail": self._detail,
        }

    def split(self, name: Split) -> Samples:
        check_split_name(name)

        def load(scene_name: str) -> Sample:
            scene = self._generator(name).scene(int(scene_name.rpartition("-")[2]))
            return Sample(scene_name, scene.image, scene.label, scene_name)

        return Samples(load, [f"{name}-{index:06d}" for index in range(self._counts[name])])

    def check(self) -> None:
        """Draw the first scene of each split: the arguments were checked before, only the sources can be missing."""
        for name, count in self._counts.items():
            if count:
                self.split(name)[0]

    def _generator(self, name: Split) -> SceneGenerator:
        # Made when first needed: reading the sources imports scikit-learn, which takes a second.
        if name not in self._generators:
            self._generators[name] = SceneGenerator(name, self._seed, size=self._size, detail=self._detail)
        return self._generators[name]
