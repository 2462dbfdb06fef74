"""Metrics of all tasks: functions of sums over images, with bootstrap intervals and paired differences."""

from ._base import Difference, Interval, Metric, RatioMetric, per_image
from ._confusion import (
    Accuracy,
    BalancedAccuracy,
    MeanIou,
    confusion,
    confusion_per_image,
    mean_iou,
    per_class_iou,
    pixel_accuracy,
)
from ._correspondence import by_pair, correct_keypoints
from ._depth import DEPTH_MEASURES, align_scale_and_shift, depth_measures
from ._multi_dataset import MeanOverDataSets
from ._normals import NORMALS_MEASURES, NORMALS_THRESHOLDS, normals_measures, unit_vectors

__all__ = [
    "DEPTH_MEASURES",
    "NORMALS_MEASURES",
    "NORMALS_THRESHOLDS",
    "Accuracy",
    "BalancedAccuracy",
    "Difference",
    "Interval",
    "MeanIou",
    "MeanOverDataSets",
    "Metric",
    "RatioMetric",
    "align_scale_and_shift",
    "by_pair",
    "confusion",
    "confusion_per_image",
    "correct_keypoints",
    "depth_measures",
    "mean_iou",
    "normals_measures",
    "per_class_iou",
    "per_image",
    "pixel_accuracy",
    "unit_vectors",
]
