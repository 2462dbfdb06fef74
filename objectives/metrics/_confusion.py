"""Scores of segmentation and classification, from confusion matrices.

Notation: M[t, p] is the (weighted) number of pixels of true class t that were predicted as p. For a class c,

    IoU_c = M[c, c] / (sum_p M[c, p] + sum_t M[t, c] - M[c, c])         intersection over union, Jaccard index
    mean IoU = mean of IoU_c over the classes with sum_p M[c, p] > 0    the classes present in the truth
    accuracy = sum_c M[c, c] / sum M                                    of pixels, or of images
    balanced accuracy = mean of M[c, c] / sum_p M[c, p] over the classes present in the truth

Scores are taken from the matrix summed over all images of a split, not averaged over images. A class that is absent
from the truth of the split is left out, so that it neither rewards nor punishes; pixels wrongly predicted as such a
class still count as misses of their true classes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Integer

from diffsift.datasets import IGNORE

from ._base import Metric


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
        classes: number of classes.

    Returns:
        Entry (t, p) is the weight of points of class t that were predicted as p.

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
    """`confusion` of each image, for images with equally many points.

    Args:
        labels: true class ids in [0, classes), or `IGNORE`: such points are skipped.
        predictions: class ids in [0, classes); not looked at where the label is ignored.
        weights: how much each point counts, 0 or above; None: 1 each.
        classes: number of classes.

    Returns:
        One matrix per image.

    Raises:
        ValueError: shapes differ, or a class id or a weight is out of range.
    """
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
    """IoU of each class.

    Args:
        confusion: weights by true class (rows) and predicted class (columns).

    Returns:
        IoU in [0, 1] by class id; not a number for classes that are absent from the truth.
    """
    ious: Float64[np.ndarray, "classes"] = _ious(_statistics(confusion[None]))[0]
    return ious


def mean_iou(confusion: Float[np.ndarray, "classes classes"]) -> float:
    """Mean IoU over the classes that are present in the truth.

    Args:
        confusion: weights by true class (rows) and predicted class (columns).

    Returns:
        The mean, in [0, 1].

    Raises:
        DataError: no class is present: there is nothing to score.

    Examples:
        >>> round(mean_iou(np.array([[3.0, 1.0], [0.0, 0.0]])), 3)  # class 1 is not in the truth
        0.75
    """
    return MeanIou().value(np.asarray(confusion)[None])


def pixel_accuracy(confusion: Float[np.ndarray, "classes classes"]) -> float:
    """The part of the weight that was predicted as its true class.

    Args:
        confusion: weights by true class (rows) and predicted class (columns).

    Returns:
        The part, in [0, 1].

    Raises:
        DataError: there is nothing to score.
    """
    return Accuracy().value(np.asarray(confusion)[None])


class _ConfusionMetric(Metric):
    """A metric of confusion matrices. Only diagonal, row sums and column sums matter: three numbers per class."""

    def statistics(
        self, per_image: Float[np.ndarray, "images classes classes"]
    ) -> Float64[np.ndarray, "images 3 classes"]:
        return _statistics(per_image)

    def counted(self, statistics: Float64[np.ndarray, "images rows classes"]) -> Float64[np.ndarray, "images classes"]:
        return np.asarray(statistics[:, 1])


class _ClassMean(_ConfusionMetric):
    """A mean over the classes that are present in the truth.

    A bootstrap resample may lack a rare class; `completed` gives the class the score that it has in all images.
    """

    def _by_class(self, sums: Float64[np.ndarray, "units 3 classes"]) -> Float64[np.ndarray, "units classes"]:
        """The score of each class; not a number where it is absent from the truth."""
        raise NotImplementedError

    def of_sums(self, sums: Float64[np.ndarray, "resamples 3 classes"]) -> Float64[np.ndarray, "resamples"]:
        return np.asarray(np.nanmean(self._by_class(sums), axis=1))

    def completed(
        self, sums: Float64[np.ndarray, "resamples 3 classes"], whole: Float64[np.ndarray, "1 3 classes"]
    ) -> Float64[np.ndarray, "resamples"]:
        scores = self._by_class(sums)
        return np.asarray(np.nanmean(np.where(np.isnan(scores), self._by_class(whole), scores), axis=1))


class MeanIou(_ClassMean):
    """Mean IoU of the summed matrix, over the classes that are present in the truth."""

    name = "mean IoU"

    def _by_class(self, sums: Float64[np.ndarray, "units 3 classes"]) -> Float64[np.ndarray, "units classes"]:
        return _ious(sums)


class Accuracy(_ConfusionMetric):
    """The part of the weight that was predicted as its true class, in [0, 1]."""

    name = "accuracy"

    def of_sums(self, sums: Float64[np.ndarray, "resamples 3 classes"]) -> Float64[np.ndarray, "resamples"]:
        return np.asarray(sums[:, 0].sum(1) / sums[:, 1].sum(1))


class BalancedAccuracy(_ClassMean):
    """Mean recall, in [0, 1], over the classes that are present in the truth."""

    name = "balanced accuracy"

    def _by_class(self, sums: Float64[np.ndarray, "units 3 classes"]) -> Float64[np.ndarray, "units classes"]:
        recall: Float64[np.ndarray, "units classes"] = np.full(sums[:, 0].shape, np.nan)
        np.divide(sums[:, 0], sums[:, 1], out=recall, where=sums[:, 1] > 0)
        return recall


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
