"""Correspondence without compression: every pixel of the target image is a place, up to a stated resolution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from diffsift.bank.development import LazySamples, keypoints_of
from diffsift.bank.locations import grid_points
from diffsift.spaces import Selection

from ..metrics import by_pair, correct_keypoints
from ..probes import Head, Probe, Score, nearest_places, pck_metric
from ..specification import CorrespondenceSpecification
from ._maps import FeatureMaps

Array = np.ndarray[Any, Any]


class ExactMatchingProbe(Probe):
    """The task's PCK by cosine nearest neighbour among `resolution` x `resolution` places; nothing is fit.

    Args:
        maps: feature maps of all images.
        samples: the images, by the same positions.
        pairs: (source, target) positions.
        task: threshold, normalisation and averaging; its resolution is not used.
        resolution: places per edge of the target image.
    """

    def __init__(
        self,
        maps: FeatureMaps,
        samples: LazySamples,
        pairs: Sequence[tuple[int, int]],
        task: CorrespondenceSpecification,
        *,
        resolution: int,
    ) -> None:
        self.metric = pck_metric(task)
        self._maps, self._task, self._places = maps, task, grid_points(resolution)
        used = sorted({image for pair in pairs for image in pair})
        loaded = {image: samples[image] for image in used}
        self._keypoints = dict(zip(used, keypoints_of([loaded[image] for image in used], "the data set"), strict=True))
        self._sizes = {image: sample.image.shape[:2] for image, sample in loaded.items()}
        self._boxes = {image: sample.box for image, sample in loaded.items()}
        self._pairs = tuple(pairs)
        self.groups = [loaded[source].group for source, _ in pairs]

    def score(self, selection: Selection) -> Score:
        value = self.metric.value(self.held_out(selection))
        return Score(value, (value,))

    def held_out(self, selection: Selection) -> Array:
        """(correct, counted) of each pair, or (share, 1) where the task averages over images."""
        features = self._maps.of(selection)
        targets = {target: features.of_image(target, self._places).numpy() for _, target in self._pairs}
        found = []
        for source, target in self._pairs:
            asked = self._keypoints[source]
            seen = np.isfinite(asked).all(-1, keepdims=True)
            there = targets[target]
            at = features.of_image(source, np.nan_to_num(asked, nan=0.5)).numpy()
            predicted = self._places[nearest_places(at @ there.T, (there**2).sum(-1))]
            truth = np.where(seen, self._keypoints[target], np.nan)
            box = self._boxes[target] if self._task.normalise == "box" else None
            found.append(
                correct_keypoints(predicted, truth, size=self._sizes[target], threshold=self._task.threshold, box=box)
            )
        results = np.array(found)
        return by_pair(results) if self._task.average == "image" else results

    def fit(self, selection: Selection) -> Head | None:
        return None
