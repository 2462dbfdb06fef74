"""An objective on one data set: what all built-in tasks have in common."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from diffsift.backbones import BackboneCache
from diffsift.bank import BankSpecification, BankView, DevelopmentSet, development_set
from diffsift.common.context import RunContext
from diffsift.common.reporting import Reporter
from diffsift.datasets import Dataset, check_splits, explaining_refusals

from ._base import FittedSelection, Objective, SplitResults
from ._capturing import CapturedMaps
from ._test_loop import Batch, Evaluation, EvaluationLoop
from .metrics import Metric
from .probes import ClassReadout, Probe, Readout, fast_probe
from .specification import AnyTaskSpecification, ProbeSpecification


class SingleDatasetObjective(Objective):
    """A task on one data set, whose fast probe is fitted fold by fold.

    A subclass gives `protocol` and `evaluate`, and overrides `readout` unless it predicts classes, `measures` unless
    the metric says all, and `targets` and `result` where the task has reference probes. `test` is the same loop for
    all tasks: it reads a batch of test images, captures their feature maps once for all fitted selections, and calls
    `evaluate`; at the end it calls `measures` once per selection.

    Args:
        dataset: the data.
        task: the task's part of the specification.
        bank: how locations are sampled.
        probe: the fast probe's part of the specification.
        metric: what is optimised.
        folds: folds over images, where there is no validation split.

    Attributes:
        folds: folds over images, where there is no validation split.
        sampled: locations of each test image at which `evaluate` reads features (`CapturedMaps.read`); batches are
            smaller where these take much memory. 0, the default: only sums are read.
    """

    sampled: int = 0

    def __init__(
        self,
        dataset: Dataset,
        task: AnyTaskSpecification,
        bank: BankSpecification,
        probe: ProbeSpecification,
        metric: Metric,
        folds: int = 2,
    ) -> None:
        self.task, self.metric, self.folds = task, metric, folds
        self._dataset, self._bank, self._probe = dataset, bank, probe
        self.class_names, self.credits = dataset.class_names, dataset.credits

    @property
    def dataset(self) -> Dataset:
        """The data set. Its test split is read only once its opening is recorded."""
        return self._dataset

    @property
    def readout(self) -> Readout:
        """What the fast probe learns; one-hot classes unless a task overrides it."""
        return ClassReadout(self.metric)

    def load(self, reporter: Reporter | None = None) -> DevelopmentSet:
        with explaining_refusals(self._dataset, reporter):
            check_splits(self._dataset, reporter)
            return self._development_set()

    def _development_set(self) -> DevelopmentSet:
        return development_set(self._dataset, self._bank, folds=self.folds)

    def probe(self, bank: BankView) -> Probe:
        return fast_probe(bank, self._probe, self.readout)

    def test(self, fitted: Sequence[FittedSelection], backbones: BackboneCache, context: RunContext) -> SplitResults:
        loop = EvaluationLoop(self._dataset, self.evaluate, self.measures, self.sampled)
        return loop.run(fitted, backbones, context)

    @abstractmethod
    def evaluate(
        self, batch: Batch, maps: CapturedMaps, fitted: Sequence[FittedSelection]
    ) -> Mapping[str, Sequence[Evaluation]]:
        """Score fitted selections on a batch of test images.

        Args:
            batch: the images with their labels.
            maps: the feature maps, to be read once: as sums (`dense_outputs`), cut down, or one whole map after
                another.
            fitted: selections with their heads.

        Returns:
            By the selection's name, an evaluation of each image, or of each pair of the batch.
        """

    def measures(self, results: NDArray[np.float64], further: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
        """Numbers for the report beside the score. Default: none.

        Args:
            results: the metric's results of all test images, or pairs.
            further: results of other metrics that `evaluate` gave, by name.

        Returns:
            Values by name, in the order in which the report lists them.
        """
        return {}
