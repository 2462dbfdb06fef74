"""What every labelled data set of images is to the rest of diffsift."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args, overload

import numpy as np
from jaxtyping import UInt8

Split = Literal["train", "validation", "test"]

IGNORE = 255
"""The label of a pixel that is neither learnt from nor scored."""

MAX_CLASSES = IGNORE
"""Class ids are 0 to 254."""


@dataclass(frozen=True)
class Sample:
    """One image with its answer.

    Attributes:
        name: unique within the data set.
        image: RGB, upright.
        label: what it means is the data set's `task`. Segmentation: uint8 (height, width), class ids, `IGNORE` where
            a pixel does not count. Depth: float32 (height, width), not a number where unknown. Classification: int64
            without axes, the class id. Correspondence: float32 (keypoints, 2), (x, y) in [0, 1] of the image, not a
            number where a keypoint is not visible; rows of the same number correspond.
        group: samples of one group never fall in different folds.
        prompt: what the model is told of the image; None leaves it to the model's part of the specification.
        box: (x0, y0, x1, y1) in [0, 1] around the object, where there is one.
    """

    name: str
    image: UInt8[np.ndarray, "height width 3"]
    label: np.ndarray[Any, Any]
    group: str
    prompt: str | None = None
    box: tuple[float, float, float, float] | None = None


class Samples(Sequence[Sample]):
    """Samples that are loaded when they are asked for and not kept; names and groups are known without loading.

    Args:
        load: gives the sample of a name.
        names: in the order of the sequence.
        groups: one per name; default: each sample is a group of its own.

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


class Dataset(ABC):
    """Images with answers to one task, in up to three splits.

    A validation split that is not empty is what trials are scored on; without one, the search cross-validates by
    group over the training split. The test split is opened once, at the end.

    Attributes:
        task: what the labels are: segmentation, depth, classification or correspondence; see `Sample`.
        class_names: one per class id, counted from 0; at most `MAX_CLASSES`; none for depth and correspondence.
        credits: whom to name where images are shown; empty where nothing is known.
    """

    task: str
    class_names: tuple[str, ...]
    credits: tuple[str, ...] = ()

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What the samples are, as JSON: equal exactly when names, groups, images and labels of all splits are."""

    @abstractmethod
    def split(self, name: Split) -> Sequence[Sample]:
        """The split's samples, loaded on access; empty where the data set has no such split."""

    def pairs(self, name: Split) -> Sequence[tuple[int, int]]:
        """Positions (source, target) in a split of the pairs to match; correspondence alone has any."""
        check_split_name(name)
        return ()

    @abstractmethod
    def check(self) -> None:
        """Look at everything that can be wrong, before long work.

        Raises:
            DataError: a sample is missing or not what it should be; the message names its file.
        """

    def notes(self) -> tuple[str, ...]:
        """What a user should know of the data though it is no mistake; complete once `check` has run."""
        return ()


def check_split_name(name: str) -> None:
    """Raise `ValueError` unless `name` is one of the three splits."""
    if name not in get_args(Split):
        raise ValueError(f"split must be one of {', '.join(get_args(Split))}, but got {name!r}.")
