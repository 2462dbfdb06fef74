"""The development set: training and validation images with their locations and folds. No test image is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from .datasets import Sample, SegmentationDataset
from .locations import sample_locations
from .specification import BankSpecification

ALWAYS_FIT = -1


class LazySamples(Protocol):
    """Samples by position, each loaded when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class DevelopmentSet:
    """What a search may look at.

    Attributes:
        samples: training images, then validation images; loaded lazily.
        points: sampled locations (x, y) in [0, 1].
        labels: class ids at the points.
        weights: pixels that each point stands for (the inverse of its expected count).
        fold: per image, the fold in which it is held out; `ALWAYS_FIT` for images that are only fit on.
        training: per image, whether statistics may be fit on it.
        class_names: by class id.
        identity: JSON that names the content: equal exactly when everything above is equal.
    """

    samples: LazySamples
    points: Float32[np.ndarray, "images points 2"]
    labels: UInt8[np.ndarray, "images points"]
    weights: Float32[np.ndarray, "images points"]
    fold: Int[np.ndarray, "images"]
    training: Bool[np.ndarray, "images"]
    class_names: tuple[str, ...]
    identity: dict[str, Any]

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(int(fold) for fold in np.unique(self.fold) if fold != ALWAYS_FIT)


class _Joined:
    """Two splits as one, loaded lazily."""

    def __init__(self, *parts: Sequence[Sample]) -> None:
        self._places = [(part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        part, position = self._places[index]
        return part[position]


def development_set(dataset: SegmentationDataset, bank: BankSpecification, *, folds: int) -> DevelopmentSet:
    """Draw locations and folds.

    A data set with a validation split gives one fold: fit on training images, held out are the validation images.
    Otherwise the training images are cross-validated in `folds` folds by group, drawn with the bank's seed.
    """
    train, validation = dataset.split("train"), dataset.split("validation")
    samples = _Joined(train, validation)
    drawn, groups = [], []
    for index in range(len(samples)):
        sample = samples[index]
        groups.append(sample.group)
        drawn.append(
            sample_locations(
                sample.label, bank.pixels_per_image, seed=bank.seed, name=sample.name, balance=bank.balance
            )
        )
    if len(validation):
        fold = np.array([ALWAYS_FIT] * len(train) + [0] * len(validation))
    else:
        fold = _folds_by_group(groups, folds, bank.seed)
    return DevelopmentSet(
        samples=samples,
        points=np.stack([entry.points for entry in drawn]),
        labels=np.stack([entry.labels for entry in drawn]).astype(np.uint8),
        weights=np.stack([entry.weights for entry in drawn]),
        fold=fold,
        training=np.arange(len(samples)) < len(train),
        class_names=dataset.class_names,
        identity={
            "data": dataset.identity(),
            "locations": {"per_image": bank.pixels_per_image, "balance": bank.balance, "seed": bank.seed},
        },
    )


def _folds_by_group(groups: list[str], folds: int, seed: int) -> Int[np.ndarray, "images"]:
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[group]: position % folds for position, group in enumerate(order)}
    return np.array([fold_of[group] for group in groups])
