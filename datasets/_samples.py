"""Samples: images with their answers, and sequences of them that are loaded when they are indexed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args, overload

import numpy as np
from jaxtyping import Float32, Int64, UInt8

Split = Literal["train", "validation", "test"]

SPLITS: tuple[Split, ...] = get_args(Split)

IGNORE = 255
"""The label of a pixel that is neither learnt from nor scored."""

MAX_CLASSES = IGNORE
"""Class ids are 0 to 254."""

Label = (
    UInt8[np.ndarray, "rows columns"]
    | Float32[np.ndarray, "rows columns"]
    | Int64[np.ndarray, ""]
    | Float32[np.ndarray, "keypoints 2"]
    | Float32[np.ndarray, "rows columns 3"]
)
"""The answer of a sample: a mask, a depth map, a class id, keypoints or normals; see `Sample`."""


@dataclass(frozen=True)
class Sample:
    """One image with its answer.

    Attributes:
        name: unique within the data set.
        image: RGB, upright, 0 to 255.
        label: the answer to the data set's `task`. Segmentation: uint8 (height, width), class ids, `IGNORE` where
            a pixel does not count. Depth: float32 (height, width) in metres, NaN where unknown. Classification: int64
            without axes, the class id. Correspondence: float32 (keypoints, 2), (x, y) in [0, 1] of the image, NaN
            where a keypoint is not visible; rows of the same number correspond. Normals: float32 (height, width, 3),
            unit vectors in the camera's frame (x right, y up, z towards the viewer), NaN where unknown.
        group: samples of one group never fall in different folds or splits.
        prompt: text that conditions the model on this image; None: the prompt in the model's part of the
            specification holds.
        box: (x0, y0, x1, y1) in [0, 1] around the object, where there is one.
    """

    name: str
    image: UInt8[np.ndarray, "height width 3"]
    label: Label
    group: str
    prompt: str | None = None
    box: tuple[float, float, float, float] | None = None


if TYPE_CHECKING:
    _SampleSequence = Sequence[Sample]
else:
    _SampleSequence = Sequence  # a type checker that looks into sequences at run time would load samples


class Samples(_SampleSequence):
    """Samples that are loaded when they are indexed; names and groups are known without loading.

    Args:
        load: loads the sample of a name.
        names: in the order of the sequence.
        groups: one per name; default: each sample is a group of its own.

    Raises:
        ValueError: there are not as many groups as names.

    Examples:
        >>> black = np.zeros((2, 2, 3), np.uint8)
        >>> samples = Samples(lambda name: Sample(name, black, black[..., 0], name), ["a", "b", "c"])
        >>> len(samples), samples[-1].name, samples[1:].names
        (3, 'c', ('b', 'c'))
    """

    def __init__(
        self, load: Callable[[str], Sample], names: Sequence[str], groups: Sequence[str] | None = None
    ) -> None:
        self._load = load
        self.names = tuple(names)
        self.groups = self.names if groups is None else tuple(groups)
        if len(self.groups) != len(self.names):
            raise ValueError(
                f"there must be one group per name, but got {len(self.groups)} for {len(self.names)} names."
            )

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Samples: ...

    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return Samples(self._load, self.names[index], self.groups[index])
        return self._load(self.names[index])


def check_split_name(name: str) -> None:
    """Raise `ValueError` unless `name` is one of the three splits."""
    if name not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, but got {name!r}.")
