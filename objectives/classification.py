"""A class for every image, from features pooled over a regular grid of locations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray

from diffsift.bank import BankSpecification, grid_points, pooling_side
from diffsift.datasets import DataSpecification, Sample, open_dataset, searched_on
from diffsift.extraction import pool

from ._base import EvaluationProtocol, FittedSelection, ImageTargets, data_digest, head_of
from ._capturing import CapturedMaps, standardised_at
from ._test_loop import Batch, Evaluation
from .metrics import Accuracy, BalancedAccuracy, confusion
from .single_dataset import SingleDatasetObjective
from .specification import ClassificationSpecification, ProbeSpecification


class ClassificationObjective(SingleDatasetObjective):
    """Image classification from features pooled over each image; see `diffsift.extraction.pool`.

    Args:
        data: the data set's part of the specification.
        task: the task's part.
        bank: says how many locations are pooled.
        probe: the fast probe's part.

    Raises:
        SpecificationError: the data set has labels of another task.
    """

    def __init__(
        self,
        data: DataSpecification,
        task: ClassificationSpecification,
        bank: BankSpecification,
        probe: ProbeSpecification,
    ) -> None:
        metric = Accuracy() if task.score == "accuracy" else BalancedAccuracy()
        super().__init__(open_dataset(data, "classification"), task, bank, probe, metric, task.folds)
        self._side = pooling_side(bank)
        self.sampled = self._side**2

    @property
    def protocol(self) -> EvaluationProtocol:
        """How scores come about; reads the data set's identity."""
        return EvaluationProtocol(
            task="classification",
            metric=f"{self.metric.name} over {len(self.class_names)} classes",
            averaging="from counts over the whole split",
            resolution="all images",
            sampling=f"features pooled over a regular grid of {self._side} x {self._side} places; {self._probe}",
            data=data_digest(self.dataset),
            search=searched_on(self.dataset, self.folds),
        )

    def evaluate(
        self, batch: Batch, maps: CapturedMaps, fitted: Sequence[FittedSelection]
    ) -> Mapping[str, Sequence[Evaluation]]:
        count, grid = len(batch.samples), torch.from_numpy(grid_points(self._side))
        sums = {entry.name: torch.from_numpy(head_of(entry).intercept).repeat(count, 1) for entry in fitted}
        for candidate, features in maps.read(standardised_at(grid.expand(count, -1, -1), fitted)):
            pooled = pool(features, candidate.activation)
            for entry in fitted:
                if candidate in entry.standardisers:
                    sums[entry.name] += pooled @ torch.from_numpy(head_of(entry).weights[candidate])
        evaluations = {}
        for entry in fitted:
            predicted = head_of(entry).outputs(sums[entry.name].numpy()).argmax(1)
            evaluations[entry.name] = [
                Evaluation(self._counts(sample, predicted[index : index + 1]))
                for index, sample in enumerate(batch.samples)
            ]
        return evaluations

    def measures(self, results: NDArray[np.float64], further: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
        """Accuracy and balanced accuracy.

        Args:
            results: confusion matrices of all test images.
            further: not used.

        Returns:
            Values by name.
        """
        return {metric.name: metric.value(results) for metric in (Accuracy(), BalancedAccuracy())}

    def targets(self, sample: Sample) -> ImageTargets:
        return ImageTargets(grid_points(self._side), np.array([int(sample.label)]), pooled=True)

    def result(self, targets: ImageTargets, outputs: Float[np.ndarray, "targets outputs"]) -> NDArray[np.float64]:
        return confusion(targets.targets, outputs.argmax(1), None, len(self.class_names))

    def _counts(self, sample: Sample, predicted: NDArray[np.integer]) -> NDArray[np.float64]:
        return confusion(np.array([int(sample.label)]), predicted, None, len(self.class_names))
