"""Scores of semantic segmentation, from confusion matrices.

Notation: M[t, p] is the (weighted) number of pixels of true class t that were predicted as p. For a class c,

    IoU_c = M[c, c] / (sum_p M[c, p] + sum_t M[t, c] - M[c, c])         intersection over union, Jaccard index
    mean IoU = mean of IoU_c over the classes with sum_p M[c, p] > 0    the classes present in the truth
    pixel accuracy = sum_c M[c, c] / sum M

Mean IoU is taken from the matrix summed over all images of a split, not averaged over images. A class that is absent
from the truth of the split is left out, so that it neither rewards nor punishes; pixels wrongly predicted as such a
class still count as misses of their true classes.

Intervals are percentile bootstraps over images (Efron 1979), or over groups of images where images of a group are not
independent: per resample, as many units as there are are drawn with replacement and their matrices are summed. Of a
matrix only diagonal, row sums and column sums matter, so a resample is a product of draw counts with 3 numbers per
class and unit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Integer

from diffsift.errors import DataError

from .datasets import IGNORE

__all__ = [
    "Difference",
    "Interval",
    "bootstrap_interval",
    "confusion",
    "confusion_per_image",
    "mean_iou",
    "paired_difference",
    "per_class_iou",
    "pixel_accuracy",
]

_CHUNK = 4_000_000
"""Draws held in memory at once, of 8 bytes each."""


class Interval(NamedTuple):
    """Bounds of a confidence interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """A difference of two scores with the bounds of its confidence interval."""

    difference: float
    low: float
    high: float


def confusion(
    labels: Integer[np.ndarray, "*points"],
    predictions: Integer[np.ndarray, "*points"],
    weights: Float[np.ndarray, "*points"] | None,
    classes: int,
) -> Float64[np.ndarray, "classes classes"]:
    """Sums of weights by true class (rows) and predicted class (columns).

    Args:
        labels: true class ids in [0, classes), or `IGNORE`: such points are skipped.
        predictions: class ids in [0, classes); not looked at where the label is ignored.
        weights: how much each point counts, 0 or above; None: 1 each.
        classes: how many there are.

    Raises:
        ValueError: shapes differ, or a class id or a weight is out of range.
    """
    given = None if weights is None else np.asarray(weights)[None]
    matrices = confusion_per_image(np.asarray(labels)[None], np.asarray(predictions)[None], given, classes)
    matrix: Float64[np.ndarray, "classes classes"] = matrices[0]
    return matrix


def confusion_per_image(
    labels: Integer[np.ndarray, "images *points"],
    predictions: Integer[np.ndarray, "images *points"],
    weights: Float[np.ndarray, "images *points"] | None,
    classes: int,
) -> Float64[np.ndarray, "images classes classes"]:
    """`confusion` of each image, for images with equally many points."""
    labels, predictions = np.asarray(labels), np.asarray(predictions)
    shapes = {labels.shape, predictions.shape, labels.shape if weights is None else np.shape(weights)}
    if len(shapes) > 1:
        raise ValueError(f"labels, predictions and weights must have one shape, but got {sorted(shapes)}.")
    counted = labels != IGNORE
    image, truth = np.nonzero(counted)[0], labels[counted].astype(np.int64)
    predicted = predictions[counted].astype(np.int64)
    for role, ids in (("labels", truth), ("predictions", predicted)):
        if ids.size and not 0 <= ids.min() <= ids.max() < classes:
            raise ValueError(f"{role} must be in [0, {classes - 1}], but range from {ids.min()} to {ids.max()}.")
    counted_weights = None if weights is None else np.asarray(weights, dtype=np.float64)[counted]
    if counted_weights is not None and not (np.isfinite(counted_weights) & (counted_weights >= 0)).all():
        raise ValueError("weights must be finite and not negative, but some are not.")
    cells = (image * classes + truth) * classes + predicted
    sums = np.bincount(cells, counted_weights, minlength=len(labels) * classes * classes)
    matrices: Float64[np.ndarray, "images classes classes"]
    matrices = sums.astype(np.float64).reshape(len(labels), classes, classes)
    return matrices


def per_class_iou(confusion: Float[np.ndarray, "classes classes"]) -> Float64[np.ndarray, "classes"]:
    """IoU of each class in [0, 1]; not a number for classes that are absent from the truth."""
    ious: Float64[np.ndarray, "classes"] = _ious(_statistics(confusion[None]))[0]
    return ious


def mean_iou(confusion: Float[np.ndarray, "classes classes"]) -> float:
    """Mean IoU, in [0, 1], over the classes that are present in the truth.

    Raises:
        DataError: no class is present: there is nothing to score.

    Examples:
        >>> round(mean_iou(np.array([[3.0, 1.0], [0.0, 0.0]])), 3)  # class 1 is not in the truth
        0.75
    """
    _refuse_empty(confusion)
    return float(_mean_ious(_statistics(confusion[None]))[0])


def pixel_accuracy(confusion: Float[np.ndarray, "classes classes"]) -> float:
    """Share of weight, in [0, 1], that was predicted as its true class.

    Raises:
        DataError: there is nothing to score.
    """
    _refuse_empty(confusion)
    return float(np.trace(confusion) / confusion.sum())


def bootstrap_interval(
    per_image: Float[np.ndarray, "images classes classes"],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Interval:
    """Percentile bootstrap interval of the mean IoU over images.

    A resample may miss a rare class; its mean is then over the classes it has. Units without any scored point carry
    no information and are left out of the resampling.

    Args:
        per_image: confusion matrices, as of `confusion_per_image`.
        level: confidence in (0, 1).
        draws: number of resamples.
        seed: of the resampling, 0 or above.
        groups: one per image; images of one group are resampled together. Default: each image by itself.

    Raises:
        ValueError: an argument is out of range or of another length.
        DataError: there is nothing to score.
    """
    _refuse_empty(per_image)
    units = _by_group(_statistics(per_image), groups)
    scores = np.concatenate([_mean_ious(resampled) for resampled in _resample(units, draws, seed)])
    return _percentiles(scores, level)


def paired_difference(
    per_image_a: Float[np.ndarray, "images classes classes"],
    per_image_b: Float[np.ndarray, "images classes classes"],
    *,
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
    groups: Sequence[str] | None = None,
) -> Difference:
    """Mean IoU of `a` minus that of `b`, with a percentile bootstrap interval from the same resamples for both.

    Args:
        per_image_a: confusion matrices of the first method.
        per_image_b: those of the second on the same images in the same order.
        level: see `bootstrap_interval`.
        draws: see `bootstrap_interval`.
        seed: see `bootstrap_interval`.
        groups: see `bootstrap_interval`.

    Raises:
        ValueError: the two were not scored on the same points, or an argument is out of range.
        DataError: there is nothing to score.
    """
    if per_image_a.shape != per_image_b.shape:
        raise ValueError(
            f"both must be scored on the same images, but got shapes {per_image_a.shape} and {per_image_b.shape}."
        )
    if not np.allclose(per_image_a.sum(-1), per_image_b.sum(-1), rtol=1e-6):
        raise ValueError("both must be scored on the same points, but their class counts per image differ.")
    _refuse_empty(per_image_a)
    both = np.concatenate([_statistics(per_image_a), _statistics(per_image_b)], axis=-1)
    classes = per_image_a.shape[-1]
    differences = np.concatenate(
        [
            _mean_ious(resampled[..., :classes]) - _mean_ious(resampled[..., classes:])
            for resampled in _resample(_by_group(both, groups), draws, seed)
        ]
    )
    difference = mean_iou(per_image_a.sum(0)) - mean_iou(per_image_b.sum(0))
    return Difference(difference, *_percentiles(differences, level))


def _statistics(confusions: Float[np.ndarray, "units classes classes"]) -> Float64[np.ndarray, "units 3 classes"]:
    """Per class: hits, truth and predictions: the diagonal, the row sums and the column sums."""
    exact = confusions.astype(np.float64, copy=False)
    return np.stack([np.diagonal(exact, axis1=1, axis2=2), exact.sum(2), exact.sum(1)], axis=1)


def _ious(statistics: Float64[np.ndarray, "units 3 classes"]) -> Float64[np.ndarray, "units classes"]:
    hits, truth, predicted = statistics[:, 0], statistics[:, 1], statistics[:, 2]
    union = truth + predicted - hits
    ious: Float64[np.ndarray, "units classes"] = np.full(hits.shape, np.nan)
    np.divide(hits, union, out=ious, where=truth > 0)
    return ious


def _mean_ious(statistics: Float64[np.ndarray, "units 3 classes"]) -> Float64[np.ndarray, "units"]:
    means: Float64[np.ndarray, "units"] = np.nanmean(_ious(statistics), axis=1)
    return means


def _refuse_empty(confusions: Float[np.ndarray, "*units classes classes"]) -> None:
    if not confusions.size or not confusions.sum() > 0:
        raise DataError("at least one point that is not ignored must be scored, but there is none.")


def _by_group(
    statistics: Float64[np.ndarray, "images 3 columns"], groups: Sequence[str] | None
) -> Float64[np.ndarray, "units 3 columns"]:
    """Statistics summed over the images of each group, without groups that have no scored point."""
    if groups is not None:
        if len(groups) != len(statistics):
            raise ValueError(f"there must be one group per image, but got {len(groups)} for {len(statistics)} images.")
        names, number = np.unique(np.asarray(groups), return_inverse=True)
        summed = np.zeros((len(names), *statistics.shape[1:]))
        np.add.at(summed, number, statistics)
        statistics = summed
    scored: Float64[np.ndarray, "units 3 columns"] = statistics[statistics[:, 1].sum(1) > 0]
    return scored


def _resample(
    units: Float64[np.ndarray, "units 3 columns"], draws: int, seed: int
) -> Iterator[Float64[np.ndarray, "resamples 3 columns"]]:
    """Statistics of `draws` resamples, some at a time."""
    if draws < 1:
        raise ValueError(f"draws must be at least 1, but got {draws}.")
    rng = np.random.default_rng(seed)
    count = len(units)
    flat = units.reshape(count, -1)
    at_once = max(1, _CHUNK // count)
    for begin in range(0, draws, at_once):
        rows = min(at_once, draws - begin)
        drawn = rng.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
        how_often = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
        yield (how_often.astype(np.float64) @ flat).reshape(rows, *units.shape[1:])


def _percentiles(scores: Float64[np.ndarray, "resamples"], level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), but got {level}.")
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
