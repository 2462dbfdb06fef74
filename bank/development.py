"""The development set: training and validation images with their locations and folds. No test image is in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8

from diffsift.datasets import Dataset, Sample
from diffsift.errors import DataError

from ._records import DIGEST_BYTES
from .locations import Locations, grid_points, sample_locations, sample_values
from .specification import BankSpecification

ALWAYS_FIT = -1
"""The fold of images that are never held out."""

Labels = (
    UInt8[np.ndarray, "images points"]
    | Float32[np.ndarray, "images points"]
    | Int[np.ndarray, "images 1"]
    | Float32[np.ndarray, "images points 3"]
    | Float32[np.ndarray, "images keypoints 2"]
    | Float[np.ndarray, "images 0"]
)
"""The answers of a development set; see `DevelopmentSet.labels`."""


@runtime_checkable
class LazySamples(Protocol):
    """Samples by position, each loaded when it is indexed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Sample: ...


@dataclass(frozen=True)
class Matching:
    """Pairs of a development set, and where keypoints lie among its points.

    Attributes:
        pairs: positions (source, target) of images.
        grid: how many of an image's points, from the first on, are a regular grid; the rest are its visible keypoints.
        rows: per image and point behind the grid, the keypoint's row in `labels`; -1 where there is none.
        sizes: (height, width) of each image in pixels.
        boxes: (x0, y0, x1, y1) of each image's object in [0, 1]; NaN where it has none.
    """

    pairs: Int[np.ndarray, "pairs 2"]
    grid: int
    rows: Int[np.ndarray, "images visible"]
    sizes: Float32[np.ndarray, "images 2"]
    boxes: Float32[np.ndarray, "images 4"]


@dataclass(frozen=True)
class DevelopmentSet:
    """What a search may look at: no test image is in it.

    Attributes:
        samples: training images, then validation images, each loaded when it is indexed.
        points: (images, points, 2): the locations (x, y) in [0, 1] where features are read.
        labels: the answers. Segmentation: (images, points), class ids, uint8. Depth: (images, points), metres,
            float32. Normals: (images, points, 3), unit vectors, float32. Classification: (images, 1), class ids.
            Correspondence: (images, keypoints, 2), (x, y) in [0, 1], NaN where not visible. Several data sets:
            (images, 0), since answers are in `members` alone.
        weights: (images, points): pixels that each point stands for, the inverse of its expected count; 1 for each
            point of a regular grid. Where features are pooled: (images, 1), all 1.
        fold: (images,): the fold in which an image is held out; `ALWAYS_FIT` for images that are only fit on.
        training: (images,): whether statistics may be fit on an image.
        groups: group of each image: a group is never split across folds or resamples.
        class_names: by class id.
        identity: JSON that names the content: equal exactly when everything above is equal.
        matching: what correspondence needs besides; None for other tasks.
        pooled: whether the features of an image are pooled over its points to one.
        notes: what a user should know of the data, in words.
        members: where several data sets are joined, the development set of each, in the order of their images.
        has_prompts: whether each image has a prompt of its own.
        digests: the `image_digest` of each image, where they are known already; else empty.
    """

    samples: LazySamples
    points: Float32[np.ndarray, "images points 2"]
    labels: Labels
    weights: Float32[np.ndarray, "images weights"]
    fold: Int[np.ndarray, "images"]
    training: Bool[np.ndarray, "images"]
    groups: tuple[str, ...]
    class_names: tuple[str, ...]
    identity: dict[str, Any]
    matching: Matching | None = None
    pooled: bool = False
    notes: tuple[str, ...] = ()
    members: tuple[DevelopmentSet, ...] = ()
    has_prompts: bool = False
    digests: tuple[bytes, ...] = ()

    @property
    def member(self) -> Int[np.ndarray, "images"]:
        """Per image, the position of its data set among `members`; 0 where there is one data set."""
        sizes = [len(member.samples) for member in self.members] or [len(self.samples)]
        return np.repeat(np.arange(len(sizes)), sizes)

    def in_turn(self, images: Int[np.ndarray, "some"]) -> Int[np.ndarray, "some"]:
        """Reorder images so that data sets take turns: of the first few, each has equally many.

        Args:
            images: positions of images; those of one data set stay in this order.

        Returns:
            The same positions.
        """
        member, rank = self.member[images], np.zeros(len(images), dtype=np.int64)
        for number in np.unique(member):
            rank[member == number] = np.arange((member == number).sum())
        return images[np.lexsort((member, rank))]

    @property
    def rows(self) -> int:
        """Features per image: one per point, or a single one where they are pooled."""
        return 1 if self.pooled else int(self.points.shape[1])

    @property
    def locations(self) -> int:
        """Locations of all images together."""
        return int(np.prod(self.points.shape[:2]))

    @property
    def held_out_groups(self) -> tuple[str, ...]:
        """The group of each result that a probe gives for held-out data: images fold after fold, or pairs by source."""
        if self.members:
            return pack_groups([member.held_out_groups for member in self.members])
        if self.matching is not None:
            return tuple(self.groups[int(source)] for source in self.matching.pairs[:, 0])
        return tuple(self.groups[int(image)] for fold in self.folds for image in np.flatnonzero(self.fold == fold))

    @property
    def folds(self) -> tuple[int, ...]:
        """The folds in which images are held out, in ascending order."""
        return tuple(int(fold) for fold in np.unique(self.fold) if fold != ALWAYS_FIT)


class JoinedSamples:
    """Several sequences of samples as one; each sample is loaded when it is indexed.

    Args:
        sequences: one after another.
    """

    def __init__(self, *sequences: LazySamples) -> None:
        self._positions = [(samples, index) for samples in sequences for index in range(len(samples))]

    def __len__(self) -> int:
        return len(self._positions)

    def __getitem__(self, index: int) -> Sample:
        samples, position = self._positions[index]
        return samples[position]


def development_set(
    dataset: Dataset, bank: BankSpecification, *, folds: int, resolution: int | None = None
) -> DevelopmentSet:
    """Choose the locations of each image and the folds; each image is loaded once.

    A data set with a validation split gives one fold: fit on training images, held out are the validation images.
    Without one, the training images are dealt out to folds by group, in an order drawn with the bank's seed.

    Args:
        dataset: of any task; it was checked. Segmentation, depth and normals get sampled locations, classification a
            regular grid of at most `bank.pixels_per_image` points, correspondence a regular grid and the image's
            keypoints.
        bank: how locations are sampled.
        folds: number of folds where there is no validation split.
        resolution: points per edge of correspondence's grid; for other tasks it is not used.

    Returns:
        Training images, then validation images.

    Raises:
        DataError: an image has nothing that counts.
        ValueError: correspondence is given no resolution.
    """
    train, validation = dataset.split("train"), dataset.split("validation")
    samples = JoinedSamples(train, validation)
    if dataset.task == "correspondence":
        if resolution is None:
            raise ValueError("correspondence needs the resolution of its grid.")
        located = _at_keypoints(dataset, samples, len(train), resolution)
    elif dataset.task == "classification":
        located = _on_grid(samples, bank)
    else:
        located = _sampled(dataset.task, samples, bank)
    if len(validation):
        fold = np.array([ALWAYS_FIT] * len(train) + [0] * len(validation))
    else:
        fold = folds_by_group(located.groups, folds, bank.seed)
    return DevelopmentSet(
        samples=samples,
        points=located.points,
        labels=located.labels,
        weights=located.weights,
        fold=fold,
        training=np.arange(len(samples)) < len(train),
        groups=tuple(located.groups),
        class_names=dataset.class_names,
        identity={"data": dataset.identity(), "locations": located.identity},
        matching=located.matching,
        pooled=dataset.task == "classification",
        notes=dataset.notes(),
        has_prompts=dataset.has_prompts,
        digests=tuple(located.digests),
    )


def image_digest(sample: Sample, points: Float32[np.ndarray, "points 2"]) -> bytes:
    """The digest of what shapes an image's record in a bank beside the entry's key: pixels, prompt and points.

    Names, labels and folds are left out, so data sets share the records of the images that they share.

    Args:
        sample: any.
        points: where its features are read.

    Returns:
        `DIGEST_BYTES` bytes.
    """
    about = f"{sample.image.shape}:{sample.prompt!r}:{points.shape}"
    hasher = hashlib.blake2b(about.encode(), digest_size=DIGEST_BYTES)
    hasher.update(np.ascontiguousarray(sample.image).data)
    hasher.update(np.ascontiguousarray(points).data)
    return hasher.digest()


def digests_of(samples: LazySamples, points: Float32[np.ndarray, "images points 2"]) -> list[bytes]:
    """The `image_digest` of each image; loads all of them, one at a time."""
    return [image_digest(samples[index], points[index]) for index in range(len(samples))]


@dataclass(frozen=True)
class _Located:
    """What a development set holds of its images; the fields are its own."""

    points: Float32[np.ndarray, "images points 2"]
    labels: Labels
    weights: Float32[np.ndarray, "images weights"]
    groups: list[str]
    identity: dict[str, Any]
    matching: Matching | None = None
    digests: Sequence[bytes] = ()


def _sampled(task: str, samples: LazySamples, bank: BankSpecification) -> _Located:
    chosen: list[Locations] = []
    groups, digests = [], []
    for index in range(len(samples)):
        sample = samples[index]
        count, seed, name = bank.pixels_per_image, bank.seed, sample.name
        if task in ("depth", "normals"):
            locations = sample_values(sample.label, count, seed=seed, name=name)
        else:
            locations = sample_locations(sample.label, count, seed=seed, name=name, balance=bank.balance)
        chosen.append(locations)
        groups.append(sample.group)
        digests.append(image_digest(sample, locations.points))
    return _Located(
        points=np.stack([entry.points for entry in chosen]),
        labels=np.stack([entry.labels for entry in chosen]),
        weights=np.stack([entry.weights for entry in chosen]),
        groups=groups,
        identity={"per_image": bank.pixels_per_image, "balance": bank.balance, "seed": bank.seed},
        digests=digests,
    )


def _on_grid(samples: LazySamples, bank: BankSpecification) -> _Located:
    side, count = pooling_side(bank), len(samples)
    grid = grid_points(side)
    labels, groups, digests = [], [], []
    for index in range(count):  # one image in memory at a time
        sample = samples[index]
        labels.append([int(sample.label)])
        groups.append(sample.group)
        digests.append(image_digest(sample, grid))
    return _Located(
        points=np.repeat(grid[None], count, axis=0),
        labels=np.array(labels),
        weights=np.ones((count, 1), np.float32),
        groups=groups,
        identity={"grid": side, "pooled": True},
        digests=digests,
    )


def pooling_side(bank: BankSpecification) -> int:
    """Points per edge of the grid that features are pooled over: the largest with at most `pixels_per_image` points.

    Args:
        bank: with `pixels_per_image`.

    Returns:
        At least 1.
    """
    return int(bank.pixels_per_image**0.5)


def keypoints_of(samples: Sequence[Sample], names: str) -> Float32[np.ndarray, "images keypoints 2"]:
    """Keypoints of samples, padded with rows that are not visible.

    Args:
        samples: of correspondence.
        names: what the samples are called in messages.

    Returns:
        (x, y) in [0, 1], NaN where not visible.

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


def _at_keypoints(dataset: Dataset, samples: LazySamples, training: int, resolution: int) -> _Located:
    entries, sizes = [], []
    for index in range(len(samples)):
        sample = samples[index]
        sizes.append(sample.image.shape[:2])
        entries.append(replace(sample, image=np.zeros((0, 0, 3), np.uint8)))  # without its pixels, which may be many
    keypoints = keypoints_of(entries, "the development set")
    visible = np.asarray(np.isfinite(keypoints).all(-1))
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
    return _Located(points, keypoints, weights, groups, {"grid": resolution, "keypoints": "visible"}, matching)


def folds_by_group(groups: Sequence[str], folds: int, seed: int) -> Int[np.ndarray, "images"]:
    """Deal whole groups out to folds, in an order drawn with `seed`.

    Args:
        groups: group of each image.
        folds: their number.
        seed: any integer from 0 on.

    Returns:
        The fold of each image, from 0 on.
    """
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[group]: position % folds for position, group in enumerate(order)}
    return np.array([fold_of[group] for group in groups], dtype=np.int64)


def pack_groups(groups: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Groups of the results of several data sets, such that those of different data sets differ.

    Args:
        groups: group of each result, for each data set.

    Returns:
        Group of each result, one data set after another.
    """
    return tuple(f"{number}: {group}" for number, members in enumerate(groups) for group in members)
