"""Correspondence without compression: every pixel of the target image is a location, up to a stated resolution."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from diffsift.bank import grid_points, keypoints_of
from diffsift.spaces import Selection

from ..metrics import by_pair, correct_keypoints
from ..probes import Head, Probe, Score, nearest_locations, pck_metric
from ..specification import CorrespondenceSpecification
from ._maps import FeatureMaps


class ExactMatchingProbe(Probe):
    """The task's PCK by cosine nearest neighbour among `resolution` x `resolution` locations; nothing is fitted.

    Args:
        maps: feature maps of all images.
        pairs: (source, target) positions of images.
        task: threshold, normalisation and averaging; its resolution is not used.
        resolution: locations per edge of the target image.
    """

    def __init__(
        self,
        maps: FeatureMaps,
        pairs: Sequence[tuple[int, int]],
        task: CorrespondenceSpecification,
        *,
        resolution: int,
    ) -> None:
        self.metric = pck_metric(task)
        self._maps, self._task, self._grid = maps, task, grid_points(resolution)
        used = sorted({image for pair in pairs for image in pair})
        loaded = {image: maps.samples[image] for image in used}
        self._keypoints = dict(zip(used, keypoints_of([loaded[image] for image in used], "the data set"), strict=True))
        self._sizes = {image: sample.image.shape[:2] for image, sample in loaded.items()}
        self._boxes = {image: sample.box for image, sample in loaded.items()}
        self._pairs = tuple(pairs)
        self.groups = [loaded[source].group for source, _ in pairs]

    def score(self, selection: Selection) -> Score:
        value = self.metric.value(self.held_out(selection))
        return Score(value, (value,))

    def held_out(self, selection: Selection) -> Float64[np.ndarray, "pairs 2"]:
        """Match the keypoints of every pair.

        Args:
            selection: candidates with their weights.

        Returns:
            (correct, counted) keypoints of each pair, or (fraction correct, 1) where the task averages over images.
        """
        features = self._maps.of(selection)
        grids = {target: features.of_image(target, self._grid).numpy() for _, target in self._pairs}
        counts = []
        for source, target in self._pairs:
            keypoints = self._keypoints[source]
            visible = np.isfinite(keypoints).all(-1, keepdims=True)
            on_grid = grids[target]
            at = features.of_image(source, np.nan_to_num(keypoints, nan=0.5)).numpy()
            predicted = self._grid[nearest_locations(at @ on_grid.T, (on_grid**2).sum(-1))]
            truth = np.where(visible, self._keypoints[target], np.nan)
            box = self._boxes[target] if self._task.normalise == "box" else None
            counts.append(
                correct_keypoints(predicted, truth, size=self._sizes[target], threshold=self._task.threshold, box=box)
            )
        results = np.array(counts)
        return by_pair(results) if self._task.average == "image" else results

    def fit(self, selection: Selection) -> Head | None:
        return None
