"""Semantic segmentation: a class for every pixel, scored by mean IoU."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from diffsift.backbones import Activation
from diffsift.errors import DataError
from diffsift.spaces import Candidate, Shelf, resample_map

from ._base import Contender, Objective, TestResult
from .bank import Bank, image_tensors, prompts_of
from .datasets import DigitScenes, FileSplit, Sample, SeedSplit, SegmentationDataset, SegmentationFolder, Split
from .development import DevelopmentSet, development_set
from .metrics import confusion
from .probes import RidgeProbe
from .specification import (
    BankSpecification,
    DataSpecification,
    DigitScenesSpecification,
    ProbeSpecification,
    TaskSpecification,
)

_SHOWN = 8  # test images whose predictions are kept for the report


class SegmentationObjective(Objective):
    """Semantic segmentation with a ridge probe.

    Trials are scored on sampled held-out locations with counts weighted to undo the sampling; the final table counts
    every pixel of every test image at the label's own resolution.
    """

    metric = "mean IoU"

    def __init__(
        self, data: DataSpecification, task: TaskSpecification, bank: BankSpecification, probe: ProbeSpecification
    ) -> None:
        self._task, self._bank, self._probe = task, bank, probe
        self._dataset = open_dataset(data)
        self.class_names, self.credits = self._dataset.class_names, self._dataset.credits
        scored = (
            "the validation split" if len(self._dataset.split("validation")) else f"{task.folds}-fold held-out images"
        )
        self.protocol = (
            f"mean IoU over {len(self.class_names)} classes from counts over the whole split; search: {scored}, "
            f"{bank.pixels_per_image} sampled locations per image, weighted to undo the sampling; final table: all "
            "pixels of the test split, probe refit on all development images; 95 % percentile bootstrap intervals over "
            "images"
        )

    def load(self) -> DevelopmentSet:
        self._dataset.check()
        required: tuple[Split, ...] = ("train", "test")
        for split in required:
            if not len(self._dataset.split(split)):
                raise DataError(f"the {split} split must hold at least one image, but is empty.")
        return development_set(self._dataset, self._bank, folds=self._task.folds)

    def probe(self, bank: Bank) -> RidgeProbe:
        return RidgeProbe(bank, self._probe)

    def test(
        self,
        contenders: Sequence[Contender],
        shelf: Shelf,
        *,
        noise_seed: int,
        batch_size: int,
        progress: bool,
    ) -> TestResult:
        samples = self._dataset.split("test")
        counts: dict[str, list[np.ndarray]] = {contender.name: [] for contender in contenders}
        predictions: dict[str, list[np.ndarray]] = {contender.name: [] for contender in contenders}
        shown: list[Sample] = []
        starts = range(0, len(samples), batch_size)
        for start in tqdm(starts, desc="test split", unit="batch", disable=not progress):
            batch = [samples[index] for index in range(start, min(start + batch_size, len(samples)))]
            shown.extend(batch[: _SHOWN - len(shown)] if len(shown) < _SHOWN else [])
            logits = _batch_logits(batch, contenders, shelf, noise_seed)
            for contender in contenders:
                for sample, scores in zip(batch, logits[contender.name], strict=True):
                    predicted = scores.argmax(0).numpy().astype(np.uint8)
                    counts[contender.name].append(
                        confusion(sample.label.ravel(), predicted.ravel(), None, len(self.class_names))
                    )
                    if len(predictions[contender.name]) < _SHOWN:
                        predictions[contender.name].append(predicted)
        return TestResult({name: np.stack(entries) for name, entries in counts.items()}, predictions, shown)


def open_dataset(data: DataSpecification) -> SegmentationDataset:
    """The data set that a specification describes; nothing is read yet."""
    if isinstance(data, DigitScenesSpecification):
        return DigitScenes(data.train, data.validation, data.test, data.seed, detail=data.detail)
    split = FileSplit(data.split_file) if data.split_file else SeedSplit(data.fractions, data.seed)
    return SegmentationFolder(
        data.images,
        data.labels,
        data.classes,
        split,
        ignore=data.ignore,
        group_separator=data.group_separator,
        prompts=data.prompts,
    )


def _batch_logits(
    batch: Sequence[Sample],
    contenders: Sequence[Contender],
    shelf: Shelf,
    noise_seed: int,
) -> dict[str, list[Float[Tensor, "classes height width"]]]:
    """Class scores at every label pixel.

    The head is linear, so it is applied on each activation's native grid, scores on the same grid are added up, and
    only their sum is enlarged: the same result as from enlarged features, at a fraction of the time and memory.
    """
    on_grid: dict[tuple[str, torch.Size], Tensor] = {}
    for candidate, feature_map in _captured(batch, contenders, shelf, noise_seed):
        grid = feature_map.shape[-2:]
        channels_last = feature_map.permute(0, 2, 3, 1)
        for contender in contenders:
            if candidate not in contender.head.weights:
                continue
            standardised = contender.standardisers[candidate].apply(channels_last)
            scores = (standardised @ torch.from_numpy(contender.head.weights[candidate])).permute(0, 3, 1, 2)
            key = (contender.name, grid)
            on_grid[key] = on_grid[key] + scores if key in on_grid else scores
    logits = {}
    for contender in contenders:
        maps = [scores for (name, _), scores in on_grid.items() if name == contender.name]
        intercept = torch.from_numpy(contender.head.intercept)[:, None, None]
        logits[contender.name] = [
            intercept + sum(resample_map(scores[index : index + 1], sample.label.shape)[0] for scores in maps)
            for index, sample in enumerate(batch)
        ]
    return logits


def _captured(
    batch: Sequence[Sample],
    contenders: Sequence[Contender],
    shelf: Shelf,
    noise_seed: int,
) -> Iterator[tuple[Candidate, Float[Tensor, "batch channels rows columns"]]]:
    """Every candidate that a contender needs, once."""
    needed = {candidate for contender in contenders for candidate in contender.head.weights}
    for backbone, activations in shelf.each({candidate.backbone for candidate in needed}):
        wanted: dict[int, list[Activation]] = {}
        for candidate in sorted(needed):
            if candidate.backbone == backbone.name:
                wanted.setdefault(candidate.timestep, []).append(activations[candidate.activation])
        images = image_tensors([sample.image for sample in batch])
        for timestep, maps in backbone.capture(images, wanted, seed=noise_seed, prompts=prompts_of(batch)):
            for name, feature_map in maps.items():
                yield Candidate(backbone.name, name, timestep), feature_map.cpu()
