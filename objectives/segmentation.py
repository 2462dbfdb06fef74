"""Semantic segmentation: a class for every pixel, scored by mean IoU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from diffsift.bank import BankSpecification, all_locations
from diffsift.datasets import DataSpecification, Sample, open_dataset, searched_on

from ._base import EvaluationProtocol, FittedSelection, ImageTargets, data_digest
from ._capturing import CapturedMaps
from ._dense import dense_outputs
from ._test_loop import Batch, Evaluation
from .metrics import MeanIou, confusion, per_class_iou, pixel_accuracy
from .single_dataset import SingleDatasetObjective
from .specification import OtherTaskSpecification, ProbeSpecification, TaskSpecification


class SegmentationObjective(SingleDatasetObjective):
    """Semantic segmentation with a fast probe on one-hot classes.

    Trials are scored on sampled held-out locations with counts weighted to undo the sampling; the final table counts
    every pixel of every test image at the label's own resolution.

    Args:
        data: the data set's part of the specification.
        task: the task's part.
        bank: how locations are sampled.
        probe: the fast probe's part.

    Raises:
        SpecificationError: the data set has labels of another task.
    """

    def __init__(
        self,
        data: DataSpecification,
        task: TaskSpecification | OtherTaskSpecification,
        bank: BankSpecification,
        probe: ProbeSpecification,
    ) -> None:
        super().__init__(open_dataset(data, "segmentation"), task, bank, probe, MeanIou(), task.folds)

    @property
    def protocol(self) -> EvaluationProtocol:
        """How scores come about; reads the data set's identity."""
        return EvaluationProtocol(
            task="segmentation",
            metric=f"mean IoU over {len(self.class_names)} classes",
            averaging="from counts over the whole split, classes absent from its truth left out",
            resolution="all pixels",
            sampling=(
                f"{self._bank.pixels_per_image} sampled locations per image, weighted to undo the sampling; "
                f"{self._probe}"
            ),
            data=data_digest(self.dataset),
            search=searched_on(self.dataset, self.folds),
        )

    def evaluate(
        self, batch: Batch, maps: CapturedMaps, fitted: Sequence[FittedSelection]
    ) -> Mapping[str, Sequence[Evaluation]]:
        evaluations: dict[str, list[Evaluation]] = {}
        for name, outputs in dense_outputs(batch.samples, maps, fitted).items():
            predictions = [scores.argmax(0).numpy().astype(np.uint8) for scores in outputs]
            evaluations[name] = [
                Evaluation(self._counts(sample.label.ravel(), predicted.ravel()), prediction=predicted)
                for sample, predicted in zip(batch.samples, predictions, strict=True)
            ]
        return evaluations

    def measures(self, results: NDArray[np.float64], further: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
        """Pixel accuracy, and the IoU of each class that is present in the truth.

        Args:
            results: confusion matrices of all test images.
            further: not used.

        Returns:
            Values by name.
        """
        matrix = results.sum(0)
        ious = zip(self.class_names, per_class_iou(matrix), strict=True)
        by_class = {f"IoU {name}": float(iou) for name, iou in ious if not np.isnan(iou)}
        return {"pixel accuracy": pixel_accuracy(matrix), **by_class}

    def targets(self, sample: Sample) -> ImageTargets:
        locations = all_locations(sample.label)
        counted = locations.weights > 0
        shape = sample.label.shape
        return ImageTargets(locations.points[counted], locations.labels[counted], counted=counted.reshape(shape))

    def result(self, targets: ImageTargets, outputs: Float[np.ndarray, "targets outputs"]) -> NDArray[np.float64]:
        return self._counts(targets.targets, outputs.argmax(1))

    def _counts(self, labels: NDArray[np.integer], predicted: NDArray[np.integer]) -> NDArray[np.float64]:
        return confusion(labels, predicted, None, len(self.class_names))
