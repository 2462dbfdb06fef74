"""What a ridge probe learns to read out of features, and how that is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from diffsift.bank import DevelopmentSet

from ..metrics import MeanIou, Metric, RatioMetric, confusion_per_image, depth_measures, per_image

Array = np.ndarray[Any, Any]


class Readout(ABC):
    """Targets of a regression and the metric of its outputs.

    Attributes:
        metric: of the results per image.
    """

    metric: Metric

    @abstractmethod
    def targets(self, development: DevelopmentSet, images: Array) -> Array:
        """(rows, outputs), float32: one row per feature of these images."""

    @abstractmethod
    def results(self, development: DevelopmentSet, images: Array, outputs: Array) -> Array:
        """The metric's results of each of these images, from outputs (rows, outputs)."""


class ClassReadout(Readout):
    """One-hot classes of points or whole images; results are weighted confusion counts."""

    def __init__(self, metric: Metric | None = None) -> None:
        self.metric = metric or MeanIou()

    def targets(self, development: DevelopmentSet, images: Array) -> Array:
        return np.asarray(np.eye(len(development.class_names), dtype=np.float32)[development.labels[images].ravel()])

    def results(self, development: DevelopmentSet, images: Array, outputs: Array) -> Array:
        return confusion_per_image(
            development.labels[images],
            outputs.argmax(1).reshape(len(images), -1),
            development.weights[images],
            len(development.class_names),
        )


class DepthReadout(Readout):
    """Values of points; results are one of `DEPTH_MEASURES` per image."""

    def __init__(self, measure: str, *, aligned: bool) -> None:
        self.measure, self.aligned = measure, aligned
        aligned_by = ", scale-and-shift aligned" if aligned else ""
        self.metric = RatioMetric(f"{measure}{aligned_by}", higher_is_better=measure.startswith("delta"))

    def targets(self, development: DevelopmentSet, images: Array) -> Array:
        return np.asarray(development.labels[images].reshape(-1, 1), dtype=np.float32)

    def results(self, development: DevelopmentSet, images: Array, outputs: Array) -> Array:
        found = [
            depth_measures(predicted, truth, weights, aligned=self.aligned)
            for predicted, truth, weights in zip(
                outputs.reshape(len(images), -1), development.labels[images], development.weights[images], strict=True
            )
        ]
        return per_image(found, self.measure)
