"""Depth, or any positive number per pixel, by regression."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Float64
from numpy.typing import NDArray
from torch import Tensor

from diffsift.bank import BankSpecification, all_locations
from diffsift.datasets import DataSpecification, Sample, open_dataset, searched_on

from ._base import EvaluationProtocol, FittedSelection, ImageTargets, data_digest
from ._capturing import CapturedMaps
from ._dense import dense_outputs
from ._test_loop import Batch, Evaluation
from .metrics import DEPTH_MEASURES, RatioMetric, depth_measures, per_image
from .probes import DepthReadout
from .single_dataset import SingleDatasetObjective
from .specification import DepthSpecification, ProbeSpecification


class DepthObjective(SingleDatasetObjective):
    """Depth with a fast probe on the depth itself.

    Trials are scored on sampled held-out locations, image by image; the final table on all pixels whose depth is
    known. All measures of `depth_measures` are reported, scale-aware and scale-and-shift aligned; `task.score` and
    `task.alignment` name the one that is optimised.

    Args:
        data: the data set's part of the specification.
        task: the task's part.
        bank: how locations are sampled.
        probe: the fast probe's part.

    Raises:
        SpecificationError: the data set has labels of another task.
    """

    def __init__(
        self, data: DataSpecification, task: DepthSpecification, bank: BankSpecification, probe: ProbeSpecification
    ) -> None:
        self._aligned = task.alignment == "scale-and-shift"
        self._readout = DepthReadout(task.score, aligned=self._aligned)
        super().__init__(open_dataset(data, "depth"), task, bank, probe, self._readout.metric, task.folds)
        self._score, self.class_names = task.score, ()

    @property
    def protocol(self) -> EvaluationProtocol:
        """How scores come about; reads the data set's identity."""
        return EvaluationProtocol(
            task="depth",
            metric=f"{self._score}, {'scale-and-shift aligned' if self._aligned else 'scale-aware'}",
            averaging="per image, then the mean over images",
            resolution="all pixels of known depth",
            sampling=(
                f"{self._bank.pixels_per_image} locations per image drawn uniformly over known pixels; {self._probe}"
            ),
            data=data_digest(self.dataset),
            search=searched_on(self.dataset, self.folds),
        )

    @property
    def readout(self) -> DepthReadout:
        """The values themselves."""
        return self._readout

    def evaluate(
        self, batch: Batch, maps: CapturedMaps, fitted: Sequence[FittedSelection]
    ) -> Mapping[str, Sequence[Evaluation]]:
        return {
            name: [self._evaluation(sample, output) for sample, output in zip(batch.samples, outputs, strict=True)]
            for name, outputs in dense_outputs(batch.samples, maps, fitted).items()
        }

    def measures(self, results: NDArray[np.float64], further: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
        """Every measure as a mean over images, plain and aligned.

        Args:
            results: not used: they are among the further ones.
            further: (value, 1) of each image by the name of the measure.

        Returns:
            Values by name.
        """
        return {name: RatioMetric(name).value(entries) for name, entries in further.items()}

    def targets(self, sample: Sample) -> ImageTargets:
        known = np.isfinite(sample.label)
        points = all_locations(np.zeros(sample.label.shape, np.uint8)).points
        return ImageTargets(points[known.ravel()], sample.label[known], counted=known)

    def result(self, targets: ImageTargets, outputs: Float[np.ndarray, "targets outputs"]) -> NDArray[np.float64]:
        return _ratio(depth_measures(outputs[:, 0], targets.targets, aligned=self._aligned), self._score)

    def _evaluation(self, sample: Sample, output: Float[Tensor, "1 height width"]) -> Evaluation:
        predicted = output[0].numpy()
        further: dict[str, NDArray[np.float64]] = {}
        for suffix, aligned in (("", False), (" aligned", True)):
            measured = depth_measures(predicted.ravel(), sample.label.ravel(), aligned=aligned)
            further |= {f"{name}{suffix}": _ratio(measured, name) for name in DEPTH_MEASURES}
        return Evaluation(further[f"{self._score}{' aligned' if self._aligned else ''}"], further, predicted)


def _ratio(measured: dict[str, float], name: str) -> Float64[np.ndarray, "2"]:
    """(value, 1) of one image, or (0, 0)."""
    return np.asarray(per_image([measured], name)[0])
