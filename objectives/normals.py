"""Surface normals: a unit vector for every pixel, scored by the angle between prediction and truth."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from diffsift.bank import BankSpecification
from diffsift.datasets import DataSpecification, open_dataset

from ._base import EvaluationProtocol
from ._regression import RegressionObjective
from .metrics import unit_vectors
from .probes import NormalsReadout
from .specification import NormalsSpecification, ProbeSpecification


class NormalsObjective(RegressionObjective):
    """Surface normals with a fast probe on their three components.

    Trials are scored on sampled held-out locations, image by image; the final table on all pixels whose normal is
    known. All of `NORMALS_MEASURES` are reported; `task.score` names the one that is optimised. In which frame the
    normals are does not matter, as long as it is the same throughout: turning or flipping its axes changes no angle.

    Args:
        data: the data set's part of the specification.
        task: the task's part.
        bank: how locations are sampled.
        probe: the fast probe's part.

    Raises:
        SpecificationError: the data set has labels of another task.
    """

    def __init__(
        self, data: DataSpecification, task: NormalsSpecification, bank: BankSpecification, probe: ProbeSpecification
    ) -> None:
        super().__init__(open_dataset(data, "normals"), task, bank, probe, NormalsReadout(task.score))

    @property
    def protocol(self) -> EvaluationProtocol:
        """How scores come about; reads the data set's identity."""
        return self._protocol("normals", self.metric.name, "all pixels of known normal")

    def _shown(self, outputs: Float[np.ndarray, "pixels 3"]) -> Float[np.ndarray, "pixels 3"]:
        return unit_vectors(outputs).astype(np.float32)
