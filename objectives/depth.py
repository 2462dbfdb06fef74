"""Depth, or any positive number per pixel, by ridge regression."""

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
from .metrics import DEPTH_MEASURES, RatioMetric, depth_measures, per_image
from .probes import DepthReadout, Probe, fast_probe
from .specification import DepthSpecification, ProbeSpecification


class DepthObjective(Objective):
    """Depth with a ridge probe on the depth itself.

    Trials are scored on sampled held-out locations, image by image; the final table on all pixels whose depth is
    known. All measures of `depth_measures` are reported, scale-aware and scale-and-shift aligned; `task.score` and
    `task.alignment` name the one that is optimised.
    """

    def __init__(
        self, data: DataSpecification, task: DepthSpecification, bank: BankSpecification, probe: ProbeSpecification
    ) -> None:
        self._task, self._bank, self._probe = task, bank, probe
        self._dataset = open_dataset(data, "depth")
        self._aligned = task.alignment == "scale-and-shift"
        self._readout = DepthReadout(task.score, aligned=self._aligned)
        self.metric = self._readout.metric
        self.class_names, self.credits = (), self._dataset.credits

    @property
    def protocol(self) -> EvaluationProtocol:
        return EvaluationProtocol(
            task="depth",
            metric=f"{self._task.score}, {'scale-and-shift aligned' if self._aligned else 'scale-aware'}",
            averaging="per image, then the mean over images",
            resolution="all pixels of known depth",
            sampling=(
                f"{self._bank.pixels_per_image} locations per image drawn uniformly over known pixels; {self._probe}"
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
        return fast_probe(bank, self._probe, self._readout)

    def test(
        self, contenders: Sequence[FittedSelection], backbones: BackboneCache, context: RunContext
    ) -> SplitResults:
        plain: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
        aligned: dict[str, list[dict[str, float]]] = {contender.name: [] for contender in contenders}
        predictions: dict[str, list[Array]] = {contender.name: [] for contender in contenders}
        shown: list[Sample] = []
        groups: list[str] = []
        for batch in batches(self._dataset.split("test"), context, contenders):
            shown.extend(batch[: SHOWN - len(shown)])
            groups.extend(sample.group for sample in batch)
            for name, outputs in dense_outputs(batch, contenders, backbones, context.noise_seed).items():
                for sample, output in zip(batch, outputs, strict=True):
                    predicted = output[0].numpy()
                    truth = sample.label
                    plain[name].append(depth_measures(predicted.ravel(), truth.ravel()))
                    aligned[name].append(depth_measures(predicted.ravel(), truth.ravel(), aligned=True))
                    if len(predictions[name]) < SHOWN:
                        predictions[name].append(predicted)
        chosen = aligned if self._aligned else plain
        results = {name: per_image(entries, self._task.score) for name, entries in chosen.items()}
        measures = {name: _means(plain[name], "") | _means(aligned[name], " aligned") for name in plain}
        return SplitResults(results, measures, shown, predictions, tuple(groups))

    def answers(self, sample: Sample) -> Answers:
        known = np.isfinite(sample.label)
        points = all_locations(np.zeros(sample.label.shape, np.uint8)).points
        return Answers(points[known.ravel()], sample.label[known], counted=known)

    def result(self, answers: Answers, outputs: Array) -> Array:
        found = depth_measures(outputs[:, 0], answers.targets, aligned=self._aligned)
        return np.asarray(per_image([found], self._task.score)[0])


def _means(found: Sequence[dict[str, float]], suffix: str) -> dict[str, float]:
    """Every measure as a mean over images."""
    return {f"{name}{suffix}": RatioMetric(name).value(np.asarray(per_image(found, name))) for name in DEPTH_MEASURES}
