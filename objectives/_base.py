"""The abstract objective: a task with its data, its probe and its metric."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from diffsift.backbones import BackboneCache
from diffsift.bank import BankView, DevelopmentSet
from diffsift.common.context import RunContext
from diffsift.common.reporting import Reporter
from diffsift.datasets import Dataset, Sample
from diffsift.errors import SpecificationError
from diffsift.extraction import Standardiser
from diffsift.spaces import Candidate, Selection

from .metrics import Metric
from .probes import Fitted, Probe

Array = np.ndarray[Any, Any]

SHOWN = 8
"""Test images whose predictions are kept for the report."""


@dataclass(frozen=True)
class FittedSelection:
    """A selection with its probe fit on the development set, ready for the test split; no head where nothing is fit."""

    name: str
    selection: Selection
    head: Fitted
    standardisers: Mapping[Candidate, Standardiser]


@dataclass(frozen=True)
class SplitResults:
    """How contenders did on the test split.

    Attributes:
        results: per contender, the metric's results of each test image (of each pair for correspondence).
        measures: per contender, other numbers by name, such as the IoU of each class.
        samples: the first few images.
        predictions: per contender, what was predicted for them, as maps like the labels; empty where there is no map.
        groups: per entry of the results, what is resampled together; None: each by itself.
    """

    results: dict[str, Array]
    measures: dict[str, dict[str, float]]
    samples: list[Sample]
    predictions: dict[str, list[Array]] = field(default_factory=dict)
    groups: tuple[str, ...] | None = None


@dataclass(frozen=True)
class EvaluationProtocol:
    """How scores of the final table come about. Scores of different protocols are not comparable.

    Attributes:
        task: kind.
        metric: name with thresholds and alignment.
        averaging: over what the metric's mean is taken.
        resolution: where predictions are scored.
        sampling: of the locations that the probe is fit on, and its penalty.
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
        return asdict(self)


@dataclass(frozen=True)
class Answers:
    """What is asked of an image at full resolution.

    Attributes:
        points: (x, y) in [0, 1] of every place that counts.
        targets: class ids or values: one per point, or one for the whole image.
        pooled: whether one feature, pooled over the points, answers for the whole image.
        counted: where the points are pixels of a map: (height, width), True at each of them, row by row; else None.
    """

    points: Array
    targets: Array
    pooled: bool = False
    counted: Array | None = None


class Objective(ABC):
    """A task: reads its data, scores selections on a bank, and scores contenders on the sealed test split.

    Made from the data's, task's, bank's and probe's parts of the specification. The test split is opened by `test`
    alone, and only once per study: whoever calls it records that.

    Attributes:
        metric: what is optimised.
        protocol: how the final scores come about.
        class_names: empty where there are none.
        credits: whom to name where images are shown.
    """

    metric: Metric
    class_names: tuple[str, ...]
    credits: tuple[str, ...]

    @property
    @abstractmethod
    def protocol(self) -> EvaluationProtocol:
        """How scores come about; reads the data set's identity."""

    @abstractmethod
    def load(self, reporter: Reporter | None = None) -> DevelopmentSet:
        """Check all data, then give what the search may look at.

        Args:
            reporter: told the progress of the check; default: nobody.

        Raises:
            DataError: a file is not what it should be.
        """

    @abstractmethod
    def probe(self, bank: BankView) -> Probe:
        """The probe that scores selections on the bank."""

    @abstractmethod
    def test(
        self,
        contenders: Sequence[FittedSelection],
        backbones: BackboneCache,
        context: RunContext,
    ) -> SplitResults:
        """Open the test split and score every contender on all of it."""

    # What follows is for reference probes alone: an objective without them need not define it.

    @property
    def dataset(self) -> Dataset:
        """The data; its test split is for `test` and for whoever records that it is opened."""
        raise self._without_reference()

    def answers(self, sample: Sample) -> Answers:
        """What reference probes learn from an image and are scored on."""
        raise self._without_reference()

    def result(self, answers: Answers, outputs: Array) -> Array:
        """The metric's result of an image, from outputs (points, outputs) of a reference head."""
        raise self._without_reference()

    def _without_reference(self) -> SpecificationError:
        return SpecificationError(
            f"the task {self.protocol.task!r} has no reference probes: its objective must define dataset, answers and "
            "result."
        )


def data_digest(dataset: Dataset) -> str:
    """Of a data set's identity: equal for equal content."""
    return hashlib.sha256(json.dumps(dataset.identity(), sort_keys=True).encode()).hexdigest()[:16]
