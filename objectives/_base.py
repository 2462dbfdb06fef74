"""The abstract objective: a task with its data, its probe and its metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Shaped
from numpy.typing import NDArray
from torch import Tensor

from diffsift.backbones import BackboneCache
from diffsift.bank import BankView, DevelopmentSet
from diffsift.common.context import RunContext
from diffsift.common.files import digest
from diffsift.common.reporting import Reporter
from diffsift.datasets import Dataset, Sample
from diffsift.errors import SpecificationError
from diffsift.extraction import Standardiser
from diffsift.spaces import Candidate, Selection

from .metrics import Metric
from .probes import Fitted, Head, Probe
from .specification import AnyTaskSpecification

SHOWN = 8
"""Test images whose predictions are stored for the report."""


@dataclass(frozen=True)
class FittedSelection:
    """A selection with its probe fitted on the development set, ready for the test split.

    Attributes:
        name: unique among the selections that are tested together, such as a row's name.
        selection: the candidates with their fusion weights.
        head: what `Probe.fit` returned; None where nothing is fitted.
        standardisers: the standardiser of each candidate of the selection; selections that are tested together have
            the same one for a candidate, that of the bank.
    """

    name: str
    selection: Selection
    head: Fitted
    standardisers: Mapping[Candidate, Standardiser]
    _folded: dict[Candidate, Tensor] = field(default_factory=dict, init=False, repr=False, compare=False)

    def folded(self, candidate: Candidate) -> Float32[Tensor, "raw_channels sums"]:
        """Scale, projection and the head's weights of a candidate in one matrix.

        Args:
            candidate: of the selection.

        Returns:
            On the CPU: ``(raw - mean) @ matrix`` is what the head's sums take over from the candidate, up to rounding.
            It is computed once, in float64.
        """
        if candidate not in self._folded:
            standardiser = self.standardisers[candidate]
            matrix = torch.from_numpy(head_of(self).weights[candidate]).double()
            if standardiser.projection is not None:
                matrix = standardiser.projection.double() @ matrix
            self._folded[candidate] = (standardiser.scale.double()[:, None] * matrix).float()
        return self._folded[candidate]


def head_of(fitted: FittedSelection) -> Head:
    """The head of a fitted selection.

    Args:
        fitted: of a task whose probe fits one.

    Returns:
        The head.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(fitted.head, Head):
        raise ValueError(f"{fitted.name} must have a fitted head, but has {fitted.head}.")
    return fitted.head


@dataclass(frozen=True)
class SplitResults:
    """How fitted selections did on the test split.

    Attributes:
        results: by the selection's name, the metric's results of each test image (of each pair for correspondence).
        measures: by the selection's name, other numbers by name, such as the IoU of each class.
        samples: the first few images.
        predictions: by the selection's name, what was predicted for these images, as maps like the labels; empty where
            there is no map.
        groups: one per entry of the results; entries of one group are resampled together. None: each by itself.
    """

    results: dict[str, NDArray[np.float64]]
    measures: dict[str, dict[str, float]]
    samples: list[Sample]
    predictions: dict[str, list[Shaped[np.ndarray, "_ _ ..."]]] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EvaluationProtocol:
    """How the scores of the final table come about. Scores of different protocols are not comparable.

    The texts of stored studies are compared with those of new ones, so their wording must not change.

    Attributes:
        task: kind of the task.
        metric: name of the metric, with thresholds and alignment.
        averaging: what the metric's mean is taken over.
        resolution: where predictions are scored.
        sampling: the locations that the probe is fitted on, and its penalty.
        data: digest of the data set's content, splits included.
        search: what trials are scored on.
        split: what the final table is scored on.
    """

    task: str
    metric: str
    averaging: str
    resolution: str
    sampling: str
    data: str
    search: str
    split: str = "test"

    def __str__(self) -> str:
        return (
            f"{self.metric}, {self.averaging}; search: {self.search}, {self.sampling}; final table: "
            f"{self.resolution} of the {self.split} split; 95 % percentile bootstrap intervals over images or groups"
        )

    def to_json(self) -> dict[str, Any]:
        """The fields by name, as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class ImageTargets:
    """The targets of one image at full resolution: what a reference probe learns and is scored on.

    Attributes:
        points: (x, y) in [0, 1] of every location that counts.
        targets: class ids, values or vectors: one per point, or one for the whole image.
        pooled: whether the one target holds for the feature pooled over all points.
        counted: where the points are pixels of a map, row by row: True at each of them. None: they are not.
    """

    points: Float32[np.ndarray, "points 2"]
    targets: Shaped[np.ndarray, "targets *axes"]
    pooled: bool = False
    counted: Bool[np.ndarray, "height width"] | None = None


class Objective(ABC):
    """A task on its data: it reads the data, makes the probe that scores trials, and scores the sealed test split.

    The life of an objective, and who calls what:

    1. `make_objective` builds one from the specification: ``kind(data, task, bank, probe)``. This must be cheap;
       mistakes in the specification are raised here.
    2. `diffsift.runs.prepare` calls `load` once. All data are checked, test images included, and the development set
       is returned. `protocol` may be read from now on.
    3. Once the bank holds features of that development set, `probe` is called in every process that scores trials.
    4. At the end of a search, `test` is called once with all rows of the final table. It is the only method that opens
       the test split; whoever calls it has recorded the opening in the ledger.
    5. Where reference probes are used, `dataset`, `targets` and `result` are called for each image. A task without
       reference probes need not define them.

    `SingleDatasetObjective` does most of this for tasks on one data set; subclass it unless you need another test loop.

    Attributes:
        task: the task's part of the specification.
        metric: what is optimised.
        class_names: by class id; empty where there are no classes.
        credits: whom to name where images are shown.
    """

    task: AnyTaskSpecification
    metric: Metric
    class_names: tuple[str, ...]
    credits: tuple[str, ...]

    @property
    @abstractmethod
    def protocol(self) -> EvaluationProtocol:
        """How scores come about; reads the data set's identity."""

    @abstractmethod
    def load(self, reporter: Reporter | None = None) -> DevelopmentSet:
        """Check all data, then draw what the search may look at.

        Args:
            reporter: told the progress of the check; default: nobody.

        Returns:
            Training and validation images with their locations and folds; no test image is among them.

        Raises:
            DataError: a file is not what it should be.
        """

    @abstractmethod
    def probe(self, bank: BankView) -> Probe:
        """Make the fast probe that scores selections.

        Args:
            bank: features of the development set that `load` returned.

        Returns:
            A probe whose metric is the objective's.
        """

    @abstractmethod
    def test(self, fitted: Sequence[FittedSelection], backbones: BackboneCache, context: RunContext) -> SplitResults:
        """Open the test split and score every fitted selection on all of it.

        Args:
            fitted: selections with their heads.
            backbones: the backbones of their candidates, by name.
            context: gives noise seed, batch size and reporter.

        Returns:
            Results of every selection on the same images, in the same order.
        """

    @property
    def dataset(self) -> Dataset:
        """The data set, for reference probes. Its test split is read only once its opening is recorded."""
        raise self._without_reference()

    def targets(self, sample: Sample) -> ImageTargets:
        """What reference probes learn from an image and are scored on.

        Args:
            sample: an image with its label.

        Returns:
            Every location that counts, with its target.

        Raises:
            SpecificationError: the task has no reference probes.
        """
        raise self._without_reference()

    def result(self, targets: ImageTargets, outputs: Float[np.ndarray, "targets outputs"]) -> NDArray[np.float64]:
        """The metric's result of an image.

        Args:
            targets: the image's targets.
            outputs: what a reference head says: class scores, or a value or vector per target.

        Returns:
            One row of the metric's results per image.

        Raises:
            SpecificationError: the task has no reference probes.
        """
        raise self._without_reference()

    def _without_reference(self) -> SpecificationError:
        return SpecificationError(
            f"the task {self.protocol.task!r} has no reference probes: its objective must define dataset, targets and "
            "result."
        )


def data_digest(dataset: Dataset) -> str:
    """Sixteen hexadecimal digits that are equal for data sets of equal content."""
    return digest(dataset.identity())
