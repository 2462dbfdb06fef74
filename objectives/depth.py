"""Depth, or any positive number per pixel, by regression."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

from diffsift.bank import BankSpecification
from diffsift.datasets import DataSpecification, open_dataset

from ._base import EvaluationProtocol
from ._regression import RegressionObjective, ratio_of
from .metrics import DEPTH_MEASURES, depth_measures
from .probes import DepthReadout
from .specification import DepthSpecification, ProbeSpecification


class DepthObjective(RegressionObjective):
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
        aligned = task.alignment == "scale-and-shift"
        super().__init__(open_dataset(data, "depth"), task, bank, probe, DepthReadout(task.score, aligned=aligned))
        self._optimised = f"{task.score} aligned" if aligned else task.score
        self._described = f"{task.score}, {'scale-and-shift aligned' if aligned else 'scale-aware'}"

    @property
    def protocol(self) -> EvaluationProtocol:
        """How scores come about; reads the data set's identity."""
        return self._protocol("depth", self._described, "all pixels of known depth")

    def _reported(
        self, outputs: Float[np.ndarray, "pixels 1"], truth: Float[np.ndarray, "pixels"]
    ) -> dict[str, Float64[np.ndarray, "2"]]:
        reported: dict[str, Float64[np.ndarray, "2"]] = {}
        for suffix, aligned in (("", False), (" aligned", True)):
            measured = depth_measures(outputs[:, 0], truth, aligned=aligned)
            reported |= {f"{name}{suffix}": ratio_of(measured, name) for name in DEPTH_MEASURES}
        return reported
