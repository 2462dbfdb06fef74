"""What a fast probe learns to read out of features, and how that is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy.typing import NDArray

from diffsift.bank import DevelopmentSet

from ..metrics import MeanIou, Metric, RatioMetric, confusion_per_image, depth_measures, per_image


class Readout(ABC):
    """Targets of a regression and the metric of its outputs.

    A `FoldProbe` calls `targets` once per part of the images it is fitted on, and `results` for each fold of every
    selection.

    Attributes:
        metric: turns results per image into a score.
    """

    metric: Metric

    @abstractmethod
    def targets(
        self, development: DevelopmentSet, images: Int[np.ndarray, "images"]
    ) -> Float32[np.ndarray, "rows outputs"]:
        """What the outputs are fitted to.

        Args:
            development: images with their labels.
            images: positions of some of them.

        Returns:
            One row per feature of these images: per location, or per image where features are pooled.
        """

    @abstractmethod
    def results(
        self,
        development: DevelopmentSet,
        images: Int[np.ndarray, "images"],
        outputs: Float[np.ndarray, "rows outputs"],
    ) -> NDArray[np.float64]:
        """Score outputs.

        Args:
            development: images with their labels.
            images: positions of some of them.
            outputs: one row per feature of these images.

        Returns:
            The metric's results of each of these images.
        """


class ClassReadout(Readout):
    """One-hot classes of points or whole images; results are weighted confusion counts.

    Args:
        metric: a metric of confusion matrices; default: mean IoU.
    """

    def __init__(self, metric: Metric | None = None) -> None:
        self.metric = metric or MeanIou()

    def targets(
        self, development: DevelopmentSet, images: Int[np.ndarray, "images"]
    ) -> Float32[np.ndarray, "rows outputs"]:
        return np.asarray(np.eye(len(development.class_names), dtype=np.float32)[development.labels[images].ravel()])

    def results(
        self,
        development: DevelopmentSet,
        images: Int[np.ndarray, "images"],
        outputs: Float[np.ndarray, "rows outputs"],
    ) -> NDArray[np.float64]:
        return confusion_per_image(
            development.labels[images],
            outputs.argmax(1).reshape(len(images), -1),
            development.weights[images],
            len(development.class_names),
        )


class DepthReadout(Readout):
    """Values of points; results are one of `DEPTH_MEASURES` per image.

    Args:
        measure: one of `DEPTH_MEASURES`.
        aligned: fit predictions to the truth of each image first.
    """

    def __init__(self, measure: str, *, aligned: bool) -> None:
        self.measure, self.aligned = measure, aligned
        aligned_by = ", scale-and-shift aligned" if aligned else ""
        self.metric = RatioMetric(f"{measure}{aligned_by}", higher_is_better=measure.startswith("delta"))

    def targets(
        self, development: DevelopmentSet, images: Int[np.ndarray, "images"]
    ) -> Float32[np.ndarray, "rows outputs"]:
        return np.asarray(development.labels[images].reshape(-1, 1), dtype=np.float32)

    def results(
        self,
        development: DevelopmentSet,
        images: Int[np.ndarray, "images"],
        outputs: Float[np.ndarray, "rows outputs"],
    ) -> NDArray[np.float64]:
        measures = [
            depth_measures(predicted, truth, weights, aligned=self.aligned)
            for predicted, truth, weights in zip(
                outputs.reshape(len(images), -1), development.labels[images], development.weights[images], strict=True
            )
        ]
        return per_image(measures, self.measure)
