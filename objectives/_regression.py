"""Regression at every pixel, scored image by image: what depth and normals have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from diffsift.bank import BankSpecification, all_locations
from diffsift.datasets import Dataset, Sample, searched_on

from ._base import EvaluationProtocol, FittedSelection, ImageTargets, data_digest
from ._capturing import CapturedMaps
from ._dense import dense_outputs
from ._test_loop import Batch, Evaluation
from .metrics import RatioMetric, per_image
from .probes import RegressionReadout
from .single_dataset import SingleDatasetObjective
from .specification import DepthSpecification, NormalsSpecification, ProbeSpecification


class RegressionObjective(SingleDatasetObjective):
    """A value or a vector for every pixel.

    Trials are scored on sampled held-out locations, image by image; the final table on all pixels whose label is known.
    All measures of the readout are reported. A subclass gives `protocol`.

    Args:
        dataset: the data.
        task: the task's part of the specification.
        bank: how locations are sampled.
        probe: the fast probe's part.
        readout: what the fast probe learns, and the measure that is optimised.
    """

    def __init__(
        self,
        dataset: Dataset,
        task: DepthSpecification | NormalsSpecification,
        bank: BankSpecification,
        probe: ProbeSpecification,
        readout: RegressionReadout,
    ) -> None:
        super().__init__(dataset, task, bank, probe, readout.metric, task.folds)
        self._readout, self._optimised, self.class_names = readout, readout.measure, ()

    @property
    def readout(self) -> RegressionReadout:
        """The labels themselves."""
        return self._readout

    def evaluate(
        self, batch: Batch, maps: CapturedMaps, fitted: Sequence[FittedSelection]
    ) -> Mapping[str, Sequence[Evaluation]]:
        return {
            name: [self._evaluation(sample, output) for sample, output in zip(batch.samples, outputs, strict=True)]
            for name, outputs in dense_outputs(batch.samples, maps, fitted).items()
        }

    def measures(self, results: NDArray[np.float64], further: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
        """Every measure as a mean over images.

        Args:
            results: not used: they are among the further ones.
            further: (value, 1) of each image by the name of the measure.

        Returns:
            Values by name.
        """
        return {name: RatioMetric(name).value(entries) for name, entries in further.items()}

    def targets(self, sample: Sample) -> ImageTargets:
        shape = sample.label.shape[:2]
        known = np.asarray(np.isfinite(sample.label).reshape(*shape, -1).all(2))
        points = all_locations(np.zeros(shape, np.uint8)).points
        return ImageTargets(points[known.ravel()], sample.label[known], counted=known)

    def result(self, targets: ImageTargets, outputs: Float[np.ndarray, "targets outputs"]) -> NDArray[np.float64]:
        return ratio_of(self._readout.measures(outputs, targets.targets), self._readout.measure)

    def _evaluation(self, sample: Sample, output: Float[Tensor, "outputs height width"]) -> Evaluation:
        outputs = output.permute(1, 2, 0).flatten(0, 1).numpy()
        truth = sample.label.reshape(len(outputs), *sample.label.shape[2:])
        reported = self._reported(outputs, truth)
        return Evaluation(reported[self._optimised], reported, self._shown(outputs).reshape(sample.label.shape))

    def _reported(
        self, outputs: Float[np.ndarray, "pixels outputs"], truth: Float[np.ndarray, "pixels *axes"]
    ) -> dict[str, Float64[np.ndarray, "2"]]:
        """All measures of one test image by name, among them the one that is optimised, `_optimised`."""
        measured = self._readout.measures(outputs, truth)
        return {name: ratio_of(measured, name) for name in self._readout.names}

    def _shown(self, outputs: Float[np.ndarray, "pixels outputs"]) -> Float[np.ndarray, "pixels outputs"]:
        """Outputs as the report shows them: like labels."""
        return outputs

    def _protocol(self, task: str, metric: str, counted: str) -> EvaluationProtocol:
        """The protocol; `counted` says which pixels of the test split are scored."""
        return EvaluationProtocol(
            task=task,
            metric=metric,
            averaging="per image, then the mean over images",
            resolution=counted,
            sampling=(
                f"{self._bank.pixels_per_image} locations per image drawn uniformly over known pixels; {self._probe}"
            ),
            data=data_digest(self.dataset),
            search=searched_on(self.dataset, self.folds),
        )


def ratio_of(measured: dict[str, float], name: str) -> Float64[np.ndarray, "2"]:
    """(value, 1) of one image, or (0, 0)."""
    return np.asarray(per_image([measured], name)[0])
