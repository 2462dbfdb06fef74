"""Semantic correspondence: keypoints of one image found again in another, zero-shot, scored by PCK."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor

from diffsift.backbones import BackboneCache
from diffsift.bank import BankSpecification, BankView, DevelopmentSet
from diffsift.bank.development import development_set, keypoints_of
from diffsift.bank.locations import grid_points
from diffsift.common.context import RunContext
from diffsift.common.reporting import Reporter
from diffsift.datasets import Dataset, DataSpecification, Sample, check_splits, open_dataset
from diffsift.errors import DataError, SpecificationError
from diffsift.extraction import block_scale, sample_map

from ._base import SHOWN, Array, EvaluationProtocol, FittedSelection, Objective, SplitResults, data_digest
from ._dense import captured, needed_by
from .metrics import RatioMetric, by_pair, correct_keypoints
from .probes import MatchingProbe, nearest_places, pck_metric
from .specification import CorrespondenceSpecification, ProbeSpecification


class CorrespondenceObjective(Objective):
    """The nearest neighbour in cosine similarity over a regular grid of the target image; nothing is fit.

    Features are those of the extractor: standardised with training statistics, so a cosine is taken about the mean of
    the training images. Trials are scored on the validation split's pairs, or on the training split's where there is
    none.
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
                "probe.kind must be left out for correspondence, where places are matched and nothing is fit, but is "
                f"{probe.kind!r}."
            )
        self._task, self._bank = task, bank
        self._dataset = open_dataset(data, "correspondence")
        self.metric = pck_metric(task)
        self.class_names, self.credits = (), self._dataset.credits

    @property
    def protocol(self) -> EvaluationProtocol:
        side = self._task.resolution
        return EvaluationProtocol(
            task="correspondence",
            metric=f"PCK@{self._task.threshold:g} of the longer edge of the {self._task.normalise}",
            averaging="over all keypoints" if self._task.average == "point" else "per pair, then the mean over pairs",
            resolution=f"cosine nearest neighbour among {side} x {side} places",
            sampling="nothing is fit",
            data=data_digest(self._dataset),
            search=f"pairs of the {'validation' if self._dataset.pairs('validation') else 'training'} split",
        )

    @property
    def dataset(self) -> Dataset:
        return self._dataset

    def load(self, reporter: Reporter | None = None) -> DevelopmentSet:
        check_splits(self._dataset, reporter)
        if not self._dataset.pairs("test"):
            raise DataError("the test split must hold at least one pair, but has none.")
        found = development_set(self._dataset, self._bank, folds=2, resolution=self._task.resolution)
        matching = found.matching
        if matching is None or not len(matching.pairs):
            raise DataError("the validation or the training split must hold at least one pair, but neither does.")
        if self._task.normalise == "box" and not np.isfinite(matching.boxes[matching.pairs[:, 1]]).all():
            raise DataError(
                "PCK by box needs a box in every target image, but one has none: use task.normalise: image."
            )
        return found

    def probe(self, bank: BankView) -> MatchingProbe:
        return MatchingProbe(bank, self._task)

    def test(
        self, contenders: Sequence[FittedSelection], backbones: BackboneCache, context: RunContext
    ) -> SplitResults:
        samples, pairs = self._dataset.split("test"), self._dataset.pairs("test")
        places = grid_points(self._task.resolution)
        settings = [*product({*self._task.thresholds, self._task.threshold}, ("image", "box"))]
        found: dict[str, dict[tuple[float, str], list[Array]]] = {
            contender.name: {setting: [] for setting in settings} for contender in contenders
        }
        shown: list[Sample] = []
        groups: list[str] = []
        bar = context.reporter.progress(len(pairs), "test split", "pair")
        for chunk in _chunks(pairs, context.batch_size):
            indices = sorted({index for pair in chunk for index in pair})
            batch = [samples[index] for index in indices]
            shown.extend(batch[: SHOWN - len(shown)])
            local = [(indices.index(source), indices.index(target)) for source, target in chunk]
            groups.extend(batch[source].group for source, _ in local)
            keypoints = keypoints_of(batch, "the test split")
            for name, predicted in _matched(
                batch, keypoints, places, local, contenders, backbones, context.noise_seed
            ).items():
                for (source, target), prediction in zip(local, predicted, strict=True):
                    truth = np.where(np.isfinite(keypoints[source]), keypoints[target], np.nan)
                    for threshold, by in settings:
                        counted = self._counted(batch[target], prediction, truth, threshold, by)
                        if counted is not None:
                            found[name][threshold, by].append(counted)
            bar.update(len(chunk))
        bar.close()
        chosen = (self._task.threshold, self._task.normalise)
        results = {name: np.array(entries[chosen]) for name, entries in found.items()}
        if self._task.average == "image":
            results = {name: by_pair(entries) for name, entries in results.items()}
        measures = {name: _measures(entries) for name, entries in found.items()}
        return SplitResults(results, measures, shown, {}, tuple(groups))

    def _counted(self, target: Sample, predicted: Array, truth: Array, threshold: float, by: str) -> Array | None:
        """(correct, counted); None by box where there is none, which is refused where the box is what is asked for."""
        if by == "box" and target.box is None:
            if self._task.normalise == "box":
                raise DataError(f"PCK by box needs a box, but {target.name} has none: use task.normalise: image.")
            return None
        box = target.box if by == "box" else None
        return correct_keypoints(predicted, truth, size=target.image.shape[:2], threshold=threshold, box=box)


def _chunks(pairs: Sequence[tuple[int, int]], images: int) -> Iterator[list[tuple[int, int]]]:
    """Pairs in order, as many as need at most `images` images (at least one pair)."""
    chunk: list[tuple[int, int]] = []
    for pair in pairs:
        if chunk and len({index for member in (*chunk, pair) for index in member}) > max(2, images):
            yield chunk
            chunk = []
        chunk.append(pair)
    if chunk:
        yield chunk


def _matched(
    batch: Sequence[Sample],
    keypoints: Array,
    places: Array,
    pairs: Sequence[tuple[int, int]],
    contenders: Sequence[FittedSelection],
    backbones: BackboneCache,
    noise_seed: int,
) -> dict[str, list[Array]]:
    """Per contender and pair, the predicted place (x, y) of every keypoint of the source; of hidden ones too."""
    at = np.concatenate([np.repeat(places[None], len(batch), axis=0), np.nan_to_num(keypoints, nan=0.5)], axis=1)
    points = torch.from_numpy(at.astype(np.float32))
    sources, targets = (list(side) for side in zip(*pairs, strict=True))
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    for candidate, feature_map in captured(batch, needed_by(contenders), backbones, noise_seed):
        sampled = sample_map(feature_map, points)
        for contender in contenders:
            if candidate not in contender.standardisers:
                continue
            standardiser = contender.standardisers[candidate]
            factor = block_scale(dict(contender.selection.members)[candidate], standardiser.raw_channels) ** 2
            features = standardiser.apply(sampled)
            there = features[targets, : len(places)]
            products = factor * features[sources, len(places) :] @ there.transpose(1, 2)
            norms = factor * there.square().sum(-1)
            before = sums.get(contender.name)
            sums[contender.name] = (products, norms) if before is None else (before[0] + products, before[1] + norms)
    return {
        name: list(places[nearest_places(products.numpy(), norms.numpy())]) for name, (products, norms) in sums.items()
    }


def _measures(found: dict[tuple[float, str], list[Array]]) -> dict[str, float]:
    """PCK at every threshold, by image and by box, per point and per image."""
    measures = {}
    for (threshold, by), entries in sorted(found.items()):
        if entries and np.array(entries)[:, 1].any():
            name = f"PCK@{threshold:g} by {by}"
            counted = np.array(entries)
            measures[f"{name}, per point"] = RatioMetric(name).value(counted)
            measures[f"{name}, per image"] = RatioMetric(name).value(by_pair(counted))
    return measures
