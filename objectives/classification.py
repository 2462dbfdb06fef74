"""A class for every image, from features pooled over a regular grid of locations."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from diffsift.backbones import BackboneCache
from diffsift.bank import BankSpecification, BankView, DevelopmentSet
from diffsift.bank.development import development_set, pooling_side
from diffsift.bank.locations import grid_points
from diffsift.common.context import RunContext
from diffsift.common.reporting import Reporter
from diffsift.datasets import Dataset, DataSpecification, Sample, check_splits, open_dataset, searched_on
from diffsift.extraction import pool, sample_map

from ._base import SHOWN, Answers, Array, EvaluationProtocol, FittedSelection, Objective, SplitResults, data_digest
from ._dense import batches, captured, head_of, needed_by
from .metrics import Accuracy, BalancedAccuracy, confusion
from .probes import ClassReadout, Probe, fast_probe
from .specification import ClassificationSpecification, ProbeSpecification


class ClassificationObjective(Objective):
    """Image classification from features pooled over each image; see `pool`."""

    def __init__(
        self,
        data: DataSpecification,
        task: ClassificationSpecification,
        bank: BankSpecification,
        probe: ProbeSpecification,
    ) -> None:
        self._task, self._bank, self._probe = task, bank, probe
        self._dataset = open_dataset(data, "classification")
        self.metric = Accuracy() if task.score == "accuracy" else BalancedAccuracy()
        self.class_names, self.credits = self._dataset.class_names, self._dataset.credits

    @property
    def protocol(self) -> EvaluationProtocol:
        side = pooling_side(self._bank)
        return EvaluationProtocol(
            task="classification",
            metric=f"{self.metric.name} over {len(self.class_names)} classes",
            averaging="from counts over the whole split",
            resolution="all images",
            sampling=f"features pooled over a regular grid of {side} x {side} places; {self._probe}",
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
        return fast_probe(bank, self._probe, ClassReadout(self.metric))

    def test(
        self, contenders: Sequence[FittedSelection], backbones: BackboneCache, context: RunContext
    ) -> SplitResults:
        grid = torch.from_numpy(grid_points(pooling_side(self._bank)))
        counts: dict[str, list[Array]] = {contender.name: [] for contender in contenders}
        shown: list[Sample] = []
        groups: list[str] = []
        for batch in batches(self._dataset.split("test"), context, contenders):
            shown.extend(batch[: SHOWN - len(shown)])
            groups.extend(sample.group for sample in batch)
            sums = {c.name: torch.from_numpy(head_of(c).intercept).repeat(len(batch), 1) for c in contenders}
            for candidate, feature_map in captured(batch, needed_by(contenders), backbones, context.noise_seed):
                sampled = sample_map(feature_map, grid.expand(len(batch), -1, -1))
                for contender in contenders:
                    if candidate in contender.standardisers:
                        weights = torch.from_numpy(head_of(contender).weights[candidate])
                        standardised = contender.standardisers[candidate].apply(sampled)
                        sums[contender.name] += pool(standardised, candidate.activation) @ weights
            truth = np.array([int(sample.label) for sample in batch])
            for contender in contenders:
                scores = head_of(contender).outputs(sums[contender.name].numpy())
                matrices = np.zeros((len(batch), len(self.class_names), len(self.class_names)))
                matrices[np.arange(len(batch)), truth, scores.argmax(1)] = 1
                counts[contender.name].append(matrices)
        results = {name: np.concatenate(entries) for name, entries in counts.items()}
        reported = (Accuracy(), BalancedAccuracy())
        measures = {name: {m.name: m.value(entries) for m in reported} for name, entries in results.items()}
        return SplitResults(results, measures, shown, {}, tuple(groups))

    def answers(self, sample: Sample) -> Answers:
        return Answers(grid_points(pooling_side(self._bank)), np.array([int(sample.label)]), pooled=True)

    def result(self, answers: Answers, outputs: Array) -> Array:
        return confusion(answers.targets, outputs.argmax(1), None, len(self.class_names))
