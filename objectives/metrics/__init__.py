"""Metrics of all tasks: functions of sums over images, with bootstrap intervals and paired differences."""

from ._base import Difference, Interval, Metric, RatioMetric
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
from ._depth import DEPTH_MEASURES, align_scale_and_shift, depth_measures, per_image
from ._multi_dataset import MeanOverDataSets

__all__ = [
    "DEPTH_MEASURES",
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
    "per_class_iou",
    "per_image",
    "pixel_accuracy",
]
