"""Semantic segmentation: a class for every pixel, scored by mean IoU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffsift.backbones import BackboneCache
from diffsift.bank import BankSpecification, BankView, DevelopmentSet
from diffsift.bank.development import development_set
from diffsift.bank.locations import all_locations
from diffsift.common.context import RunContext
from diffsift.common.reporting import Reporter
from diffsift.datasets import Dataset, DataSpecification, Sample, check_splits, open_dataset, searched_on

from ._base import SHOWN, Answers, Array, EvaluationProtocol, FittedSelection, Objective, SplitResults, data_digest
from ._dense import batches, dense_outputs
from .metrics import MeanIou, confusion, per_class_iou, pixel_accuracy
from .probes import Probe, fast_probe
from .specification import ProbeSpecification, TaskSpecification


class SegmentationObjective(Objective):
    """Semantic segmentation with a ridge probe.

    Trials are scored on sampled held-out locations with counts weighted to undo the sampling; the final table counts
    every pixel of every test image at the label's own resolution.
    """

    def __init__(
        self, data: DataSpecification, task: TaskSpecification, bank: BankSpecification, probe: ProbeSpecification
    ) -> None:
        self._task, self._bank, self._probe = task, bank, probe
        self._dataset = open_dataset(data, "segmentation")
        self.metric = MeanIou()
        self.class_names, self.credits = self._dataset.class_names, self._dataset.credits

    @property
    def protocol(self) -> EvaluationProtocol:
        return EvaluationProtocol(
            task="segmentation",
            metric=f"mean IoU over {len(self.class_names)} classes",
            averaging="from counts over the whole split, classes absent from its truth left out",
            resolution="all pixels",
            sampling=(
                f"{self._bank.pixels_per_image} sampled locations per image, weighted to undo the sampling; "
                f"{self._probe}"
            ),
            data=data_digest(self._dataset),
            search=searched_on(self._dataset, self._task.folds),
        )

    @property
    def dataset(self) -> Dataset:
        return self._dataset

    def load(self, reporter: Reporter | None = None) -> DevelopmentSet:
        check_splits(self._dataset, reporter)
        return development_set(self._dataset, self._bank, folds=self._task.folds)

    def probe(self, bank: BankView) -> Probe:
        return fast_probe(bank, self._probe)

    def test(
        self, contenders: Sequence[FittedSelection], backbones: BackboneCache, context: RunContext
    ) -> SplitResults:
        counts: dict[str, list[Array]] = {contender.name: [] for contender in contenders}
        predictions: dict[str, list[Array]] = {contender.name: [] for contender in contenders}
        shown: list[Sample] = []
        groups: list[str] = []
        for batch in batches(self._dataset.split("test"), context, contenders):
            shown.extend(batch[: SHOWN - len(shown)])
            groups.extend(sample.group for sample in batch)
            for name, outputs in dense_outputs(batch, contenders, backbones, context.noise_seed).items():
                for sample, scores in zip(batch, outputs, strict=True):
                    predicted = scores.argmax(0).numpy().astype(np.uint8)
                    counts[name].append(confusion(sample.label.ravel(), predicted.ravel(), None, len(self.class_names)))
                    if len(predictions[name]) < SHOWN:
                        predictions[name].append(predicted)
        results = {name: np.stack(entries) for name, entries in counts.items()}
        measures = {name: self._measures(entries.sum(0)) for name, entries in results.items()}
        return SplitResults(results, measures, shown, predictions, tuple(groups))

    def answers(self, sample: Sample) -> Answers:
        found = all_locations(sample.label)
        counted = found.weights > 0
        return Answers(found.points[counted], found.labels[counted], counted=counted.reshape(sample.label.shape))

    def result(self, answers: Answers, outputs: Array) -> Array:
        return confusion(answers.targets, outputs.argmax(1), None, len(self.class_names))

    def _measures(self, matrix: Array) -> dict[str, float]:
        """Pixel accuracy, and the IoU of each class that is present in the truth."""
        ious = zip(self.class_names, per_class_iou(matrix), strict=True)
        found = {f"IoU {name}": float(iou) for name, iou in ious if not np.isnan(iou)}
        return {"pixel accuracy": pixel_accuracy(matrix), **found}
