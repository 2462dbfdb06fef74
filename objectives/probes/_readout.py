"""What a fast probe learns to read out of features, and how that is scored."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from jaxtyping import Float, Float32, Int
from numpy.typing import NDArray

from diffsift.bank import DevelopmentSet

from ..metrics import (
    DEPTH_MEASURES,
    NORMALS_MEASURES,
    NORMALS_THRESHOLDS,
    MeanIou,
    Metric,
    RatioMetric,
    confusion_per_image,
    depth_measures,
    normals_measures,
    per_image,
)


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


class RegressionReadout(Readout):
    """Values or vectors of points; results are one measure of each image. A subclass gives `measures`.

    Args:
        measure: one of `names`.
        metric: turns this measure of each image into a score.

    Attributes:
        names: of all measures.
        measure: the one that is optimised.
    """

    names: tuple[str, ...]
    metric: RatioMetric

    def __init__(self, measure: str, metric: RatioMetric) -> None:
        self.measure, self.metric = measure, metric

    @abstractmethod
    def measures(
        self,
        outputs: Float[np.ndarray, "points outputs"],
        truth: Float[np.ndarray, "points *axes"],
        weights: Float[np.ndarray, "points"] | None = None,
    ) -> dict[str, float]:
        """Score outputs at points of one image.

        Args:
            outputs: what a head says of each point.
            truth: a value or a vector per point; not a number where it is unknown.
            weights: how much each point counts; None: 1 each.

        Returns:
            One value for each of `names`; an empty mapping where no point counts.
        """

    def targets(
        self, development: DevelopmentSet, images: Int[np.ndarray, "images"]
    ) -> Float32[np.ndarray, "rows outputs"]:
        labels = development.labels[images]
        return np.asarray(labels.reshape(labels.shape[0] * labels.shape[1], -1), dtype=np.float32)

    def results(
        self,
        development: DevelopmentSet,
        images: Int[np.ndarray, "images"],
        outputs: Float[np.ndarray, "rows outputs"],
    ) -> NDArray[np.float64]:
        of_image = outputs.reshape(len(images), -1, outputs.shape[1])
        parts = zip(of_image, development.labels[images], development.weights[images], strict=True)
        return per_image([self.measures(*part) for part in parts], self.measure)


class DepthReadout(RegressionReadout):
    """Depth of points; results are one of `DEPTH_MEASURES` per image.

    Args:
        measure: one of `DEPTH_MEASURES`.
        aligned: fit predictions to the truth of each image first.
    """

    names = DEPTH_MEASURES

    def __init__(self, measure: str, *, aligned: bool) -> None:
        self.aligned = aligned
        name = f"{measure}, scale-and-shift aligned" if aligned else measure
        super().__init__(measure, RatioMetric(name, higher_is_better=measure.startswith("delta")))

    def measures(
        self,
        outputs: Float[np.ndarray, "points 1"],
        truth: Float[np.ndarray, "points"],
        weights: Float[np.ndarray, "points"] | None = None,
    ) -> dict[str, float]:
        return depth_measures(outputs[:, 0], truth, weights, aligned=self.aligned)


class NormalsReadout(RegressionReadout):
    """Surface normals of points; results are one of `NORMALS_MEASURES` per image.

    The three components are fitted by least squares, each by itself. Lengths of outputs do not matter: angles are
    taken after they are scaled to 1.

    Args:
        measure: one of `NORMALS_MEASURES`.
    """

    names = NORMALS_MEASURES

    def __init__(self, measure: str) -> None:
        is_share = measure in NORMALS_THRESHOLDS
        name = measure if is_share else f"{measure} in degrees"
        super().__init__(measure, RatioMetric(name, higher_is_better=is_share))

    def measures(
        self,
        outputs: Float[np.ndarray, "points 3"],
        truth: Float[np.ndarray, "points 3"],
        weights: Float[np.ndarray, "points"] | None = None,
    ) -> dict[str, float]:
        return normals_measures(outputs, truth, weights)
