"""The development set: training and validation images with their locations and folds. No test image is in it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int

from diffsift.datasets import Dataset, Sample
from diffsift.errors import DataError

from .locations import grid_points, sample_locations, sample_values
from .specification import BankSpecification

ALWAYS_FIT = -1


@runtime_checkable
class LazySamples(Protocol):
    """Samples by position, each loaded when it is asked for."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class Matching:
    """Pairs of a development set, and where keypoints lie among its points.

    Attributes:
        pairs: positions (source, target) of images.
        grid: the first of an image's points are a regular grid, the rest its visible keypoints.
        rows: per image and point behind the grid, the keypoint's row in `labels`; -1 where there is none.
        sizes: (height, width) of each image in pixels.
        boxes: (x0, y0, x1, y1) of each image's object in [0, 1]; not a number where it has none.
    """

    pairs: Int[np.ndarray, "pairs 2"]
    grid: int
    rows: Int[np.ndarray, "images visible"]
    sizes: Float32[np.ndarray, "images 2"]
    boxes: Float32[np.ndarray, "images 4"]


@dataclass(frozen=True)
class DevelopmentSet:
    """What a search may look at.

    Attributes:
        samples: training images, then validation images; loaded lazily.
        points: sampled locations (x, y) in [0, 1].
        labels: the answers, images first. Segmentation: class ids at the points; depth: values at the points;
            classification: one class id per image; correspondence: keypoints (x, y), not a number where not visible.
        weights: pixels that each point stands for (the inverse of its expected count); 1 each for a regular grid.
        fold: per image, the fold in which it is held out; `ALWAYS_FIT` for images that are only fit on.
        training: per image, whether statistics may be fit on it.
        groups: per image, what it must not be torn apart from: resampled together, and in one fold.
        class_names: by class id.
        identity: JSON that names the content: equal exactly when everything above is equal.
        matching: what correspondence needs besides; None for other tasks.
        notes: what a user should know of the data, in words.
        pooled: whether one feature of an image, pooled over its points, is all that is used of them.
        parts: where several data sets are joined, the development set of each, in the order of their images. Then
            answers are in the parts alone, and `labels` holds none.
    """

    samples: LazySamples
    points: Float32[np.ndarray, "images points 2"]
    labels: np.ndarray[Any, Any]
    weights: Float32[np.ndarray, "images rows"]
    fold: Int[np.ndarray, "images"]
    training: Bool[np.ndarray, "images"]
    groups: tuple[str, ...]
    class_names: tuple[str, ...]
    identity: dict[str, Any]
    matching: Matching | None = None
    pooled: bool = False
    notes: tuple[str, ...] = ()
    parts: tuple[DevelopmentSet, ...] = ()

    @property
    def part(self) -> Int[np.ndarray, "images"]:
        """Per image, the position of its data set among `parts`; 0 where there is one data set."""
        sizes = [len(part.samples) for part in self.parts] or [len(self.samples)]
        return np.repeat(np.arange(len(sizes)), sizes)

    def in_turn(self, images: Int[np.ndarray, "some"]) -> Int[np.ndarray, "some"]:
        """Images in their order, but so that data sets take turns: of the first few, each gives equally many."""
        part, rank = self.part[images], np.zeros(len(images), dtype=np.int64)
        for number in np.unique(part):
            rank[part == number] = np.arange((part == number).sum())
        return images[np.lexsort((part, rank))]

    @property
    def rows(self) -> int:
        """Features per image: one per point, or one in all where they are pooled."""
        return 1 if self.pooled else int(self.points.shape[1])

    @property
    def locations(self) -> int:
        """Of all images together."""
        return int(np.prod(self.points.shape[:2]))

    @property
    def held_out_groups(self) -> tuple[str, ...]:
        """The group of each entry that a probe holds out: of images fold after fold, of pairs that of the source."""
        if self.parts:
            return pack_groups([part.held_out_groups for part in self.parts])
        if self.matching is not None:
            return tuple(self.groups[int(source)] for source in self.matching.pairs[:, 0])
        return tuple(self.groups[int(image)] for fold in self.folds for image in np.flatnonzero(self.fold == fold))

    @property
    def folds(self) -> tuple[int, ...]:
        return tuple(int(fold) for fold in np.unique(self.fold) if fold != ALWAYS_FIT)


class JoinedSamples:
    """Several splits as one, loaded lazily."""

    def __init__(self, *parts: LazySamples) -> None:
        self._places = [(part, index) for part in parts for index in range(len(part))]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        part, position = self._places[index]
        return part[position]


def development_set(
    dataset: Dataset, bank: BankSpecification, *, folds: int, resolution: int | None = None
) -> DevelopmentSet:
    """Draw locations and folds.

    A data set with a validation split gives one fold: fit on training images, held out are the validation images.
    Otherwise the training images are cross-validated in `folds` folds by group, drawn with the bank's seed.

    Args:
        dataset: of any task. Segmentation and depth get sampled locations, classification a regular grid of at most
            `bank.pixels_per_image`, correspondence a regular grid and the image's keypoints.
        bank: how locations are sampled.
        folds: where there is no validation split.
        resolution: of correspondence's grid, per edge.

    Raises:
        DataError: an image has nothing that counts.
    """
    train, validation = dataset.split("train"), dataset.split("validation")
    samples = JoinedSamples(train, validation)
    if dataset.task == "correspondence":
        if resolution is None:
            raise ValueError("correspondence needs the resolution of its grid.")
        drawn = _matched(dataset, samples, len(train), resolution)
    elif dataset.task == "classification":
        drawn = _pooled(samples, bank)
    else:
        drawn = _sampled(dataset.task, samples, bank)
    if len(validation):
        fold = np.array([ALWAYS_FIT] * len(train) + [0] * len(validation))
    else:
        fold = folds_by_group(drawn.groups, folds, bank.seed)
    return DevelopmentSet(
        samples=samples,
        points=drawn.points,
        labels=drawn.labels,
        weights=drawn.weights,
        fold=fold,
        training=np.arange(len(samples)) < len(train),
        groups=tuple(drawn.groups),
        class_names=dataset.class_names,
        identity={"data": dataset.identity(), "locations": drawn.identity},
        matching=drawn.matching,
        pooled=dataset.task == "classification",
        notes=dataset.notes(),
    )


@dataclass(frozen=True)
class _Drawn:
    points: Float32[np.ndarray, "images points 2"]
    labels: np.ndarray[Any, Any]
    weights: Float32[np.ndarray, "images rows"]
    groups: list[str]
    identity: dict[str, Any]
    matching: Matching | None = None


def _sampled(task: str, samples: LazySamples, bank: BankSpecification) -> _Drawn:
    drawn, groups = [], []
    for index in range(len(samples)):
        sample = samples[index]
        groups.append(sample.group)
        if task == "depth":
            drawn.append(sample_values(sample.label, bank.pixels_per_image, seed=bank.seed, name=sample.name))
        else:
            drawn.append(
                sample_locations(
                    sample.label, bank.pixels_per_image, seed=bank.seed, name=sample.name, balance=bank.balance
                )
            )
    return _Drawn(
        points=np.stack([entry.points for entry in drawn]),
        labels=np.stack([entry.labels for entry in drawn]),
        weights=np.stack([entry.weights for entry in drawn]),
        groups=groups,
        identity={"per_image": bank.pixels_per_image, "balance": bank.balance, "seed": bank.seed},
    )


def _pooled(samples: LazySamples, bank: BankSpecification) -> _Drawn:
    side = pooling_side(bank)
    count = len(samples)
    labels, groups = [], []
    for index in range(count):  # one image in memory at a time
        sample = samples[index]
        labels.append([int(sample.label)])
        groups.append(sample.group)
    return _Drawn(
        points=np.repeat(grid_points(side)[None], count, axis=0),
        labels=np.array(labels),
        weights=np.ones((count, 1), np.float32),
        groups=groups,
        identity={"grid": side, "pooled": True},
    )


def pooling_side(bank: BankSpecification) -> int:
    """Edge of the largest square grid with at most `pixels_per_image` places: what features are averaged over."""
    return int(bank.pixels_per_image**0.5)


def keypoints_of(samples: Sequence[Sample], names: str) -> np.ndarray[Any, Any]:
    """Keypoints of samples as (images, keypoints, 2), padded with rows that are not visible.

    Raises:
        DataError: a keypoint lies outside of its image.
    """
    most = max(len(sample.label) for sample in samples)
    found = np.full((len(samples), most, 2), np.nan, np.float32)
    for index, sample in enumerate(samples):
        known = sample.label[np.isfinite(sample.label).all(-1)]
        if known.size and not (known.min() >= 0 and known.max() <= 1):
            raise DataError(f"keypoints of {names} must lie in their image, but those of {sample.name} do not.")
        found[index, : len(sample.label)] = sample.label
    return found


def _matched(dataset: Dataset, samples: LazySamples, training: int, resolution: int) -> _Drawn:
    entries, sizes = [], []
    for index in range(len(samples)):
        sample = samples[index]
        sizes.append(sample.image.shape[:2])
        entries.append(replace(sample, image=np.zeros((0, 0, 3), np.uint8)))  # pixels are not kept
    keypoints = keypoints_of(entries, "the development set")
    visible = np.isfinite(keypoints).all(-1)
    rows = np.full((len(entries), max(1, int(visible.sum(1).max()))), -1)
    for index, shown in enumerate(visible):
        rows[index, : shown.sum()] = np.flatnonzero(shown)
    placed = np.take_along_axis(keypoints, rows.clip(0)[..., None], axis=1)
    placed = np.where(rows[..., None] >= 0, placed, 0.5).astype(np.float32)
    grid = np.repeat(grid_points(resolution)[None], len(entries), axis=0)
    validation = [(training + source, training + target) for source, target in dataset.pairs("validation")]
    pairs = np.array(validation or dataset.pairs("train"), dtype=np.int64).reshape(-1, 2)
    boxes = [entry.box or (np.nan,) * 4 for entry in entries]
    matching = Matching(
        pairs=pairs,
        grid=resolution**2,
        rows=rows,
        sizes=np.array(sizes, np.float32),
        boxes=np.array(boxes, np.float32),
    )
    points = np.concatenate([grid, placed], axis=1)
    groups = [entry.group for entry in entries]
    weights = np.ones(points.shape[:2], np.float32)
    return _Drawn(points, keypoints, weights, groups, {"grid": resolution, "keypoints": "visible"}, matching)


def folds_by_group(groups: Sequence[str], folds: int, seed: int) -> Int[np.ndarray, "images"]:
    """The fold of each image, from 0 on: whole groups, dealt out in an order drawn with `seed`."""
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[group]: position % folds for position, group in enumerate(order)}
    return np.array([fold_of[group] for group in groups], dtype=np.int64)


def pack_groups(parts: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Groups of packed results, one per result: those of different data sets are different."""
    return tuple(f"{number}: {group}" for number, part in enumerate(parts) for group in part)
