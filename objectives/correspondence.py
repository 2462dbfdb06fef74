"""Semantic correspondence: keypoints of one image matched in another, zero-shot, scored by PCK."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product

import numpy as np
import torch
from jaxtyping import Float, Float32
from numpy.typing import NDArray
from torch import Tensor

from diffsift.bank import BankSpecification, BankView, DevelopmentSet, development_set, grid_points, keypoints_of
from diffsift.datasets import DataSpecification, Sample, open_dataset
from diffsift.errors import DataError, SpecificationError
from diffsift.extraction import block_scale

from ._base import EvaluationProtocol, FittedSelection, data_digest
from ._capturing import CapturedMaps, standardised_at
from ._test_loop import Batch, Evaluation
from .metrics import RatioMetric, by_pair, correct_keypoints
from .probes import MatchingProbe, nearest_locations, pck_metric
from .single_dataset import SingleDatasetObjective
from .specification import CorrespondenceSpecification, ProbeSpecification


class CorrespondenceObjective(SingleDatasetObjective):
    """The nearest neighbour in cosine similarity over a regular grid of the target image; nothing is fitted.

    Features are those of the extractor: standardised with training statistics, so a cosine is taken about the mean of
    the training images. Trials are scored on the validation split's pairs, or on the training split's where there is
    none.

    Args:
        data: the data set's part of the specification.
        task: the task's part.
        bank: how features are compressed.
        probe: must keep its default kind.

    Raises:
        SpecificationError: the data set has labels of another task, or a probe is chosen.
    """

    def __init__(
        self,
        data: DataSpecification,
        task: CorrespondenceSpecification,
        bank: BankSpecification,
        probe: ProbeSpecification,
    ) -> None:
        if probe.kind != "ridge":
            raise SpecificationError(
                "probe.kind must be left out for correspondence, where locations are matched and nothing is fit, but "
                f"is {probe.kind!r}."
            )
        super().__init__(open_dataset(data, "correspondence"), task, bank, probe, pck_metric(task))
        self._matching, self.class_names = task, ()
        self.sampled = task.resolution**2

    @property
    def protocol(self) -> EvaluationProtocol:
        """How scores come about; reads the data set's identity."""
        task, side = self._matching, self._matching.resolution
        return EvaluationProtocol(
            task="correspondence",
            metric=f"PCK@{task.threshold:g} of the longer edge of the {task.normalise}",
            averaging="over all keypoints" if task.average == "point" else "per pair, then the mean over pairs",
            resolution=f"cosine nearest neighbour among {side} x {side} places",
            sampling="nothing is fit",
            data=data_digest(self.dataset),
            search=f"pairs of the {'validation' if self.dataset.pairs('validation') else 'training'} split",
        )

    def _development_set(self) -> DevelopmentSet:
        if not self.dataset.pairs("test"):
            raise DataError("the test split must hold at least one pair, but has none.")
        development = development_set(self.dataset, self._bank, folds=2, resolution=self._matching.resolution)
        matching = development.matching
        if matching is None or not len(matching.pairs):
            raise DataError("the validation or the training split must hold at least one pair, but neither does.")
        if self._matching.normalise == "box" and not np.isfinite(matching.boxes[matching.pairs[:, 1]]).all():
            raise DataError(
                "PCK by box needs a box in every target image, but one has none: use task.normalise: image."
            )
        return development

    def probe(self, bank: BankView) -> MatchingProbe:
        return MatchingProbe(bank, self._matching)

    def evaluate(
        self, batch: Batch, maps: CapturedMaps, fitted: Sequence[FittedSelection]
    ) -> Mapping[str, Sequence[Evaluation]]:
        keypoints = keypoints_of(batch.samples, "the test split")
        matched = _matched(batch, maps, fitted, grid_points(self._matching.resolution), keypoints)
        truths = [np.where(np.isfinite(keypoints[source]), keypoints[target], np.nan) for source, target in batch.pairs]
        return {
            name: [
                self._evaluation(batch.samples[target], prediction, truth)
                for (_, target), prediction, truth in zip(batch.pairs, predicted, truths, strict=True)
            ]
            for name, predicted in matched.items()
        }

    def measures(self, results: NDArray[np.float64], further: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
        """PCK at every threshold, by image and by box, per point and per image.

        Args:
            results: not used: they are among the further ones.
            further: (correct, counted) keypoints of each pair, by threshold and normalisation.

        Returns:
            Values by name.
        """
        measures = {}
        for name in (_name(threshold, by) for threshold, by in self._settings):
            if name in further and further[name][:, 1].any():
                measures[f"{name}, per point"] = RatioMetric(name).value(further[name])
                measures[f"{name}, per image"] = RatioMetric(name).value(by_pair(further[name]))
        return measures

    @property
    def _settings(self) -> list[tuple[float, str]]:
        """Thresholds and normalisations that are reported."""
        return sorted(product({*self._matching.thresholds, self._matching.threshold}, ("image", "box")))

    def _evaluation(
        self,
        target: Sample,
        predicted: Float[np.ndarray, "keypoints 2"],
        truth: Float[np.ndarray, "keypoints 2"],
    ) -> Evaluation:
        """One pair; by box nothing is counted where there is none, unless the box is what is asked for."""
        if target.box is None and self._matching.normalise == "box":
            raise DataError(f"PCK by box needs a box, but {target.name} has none: use task.normalise: image.")
        size, counts = target.image.shape[:2], {}
        for threshold, by in self._settings:
            box = target.box if by == "box" else None
            if box is not None or by == "image":
                counts[_name(threshold, by)] = correct_keypoints(
                    predicted, truth, size=size, threshold=threshold, box=box
                )
        result = counts[_name(self._matching.threshold, self._matching.normalise)]
        return Evaluation(by_pair(result[None])[0] if self._matching.average == "image" else result, counts)


def _name(threshold: float, by: str) -> str:
    return f"PCK@{threshold:g} by {by}"


def _matched(
    batch: Batch,
    maps: CapturedMaps,
    fitted: Sequence[FittedSelection],
    grid: Float32[np.ndarray, "locations 2"],
    keypoints: Float32[np.ndarray, "images keypoints 2"],
) -> dict[str, list[Float32[np.ndarray, "_ 2"]]]:
    """By selection and pair, the predicted location (x, y) of every keypoint of the source; of hidden ones too."""
    count = len(batch.samples)
    at = np.concatenate([np.repeat(grid[None], count, axis=0), np.nan_to_num(keypoints, nan=0.5)], axis=1)
    points = torch.from_numpy(at.astype(np.float32))
    sources, targets = (list(side) for side in zip(*batch.pairs, strict=True))
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    for candidate, features in maps.read(standardised_at(points, fitted)):
        on_grid = features[targets, : len(grid)]
        for entry in fitted:
            if candidate not in entry.standardisers:
                continue
            raw_channels = entry.standardisers[candidate].raw_channels
            factor = block_scale(dict(entry.selection.members)[candidate], raw_channels) ** 2
            products = factor * features[sources, len(grid) :] @ on_grid.transpose(1, 2)
            norms = factor * on_grid.square().sum(-1)
            before = sums.get(entry.name)
            sums[entry.name] = (products, norms) if before is None else (before[0] + products, before[1] + norms)
    return {
        name: list(grid[nearest_locations(products.numpy(), norms.numpy())]) for name, (products, norms) in sums.items()
    }
