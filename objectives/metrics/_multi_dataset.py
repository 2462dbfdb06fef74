"""The mean of a metric over several data sets, with intervals from resampling within each of them.

Notation: data set k has the metric f_k, and the statistics s_i of its images. The mean over K data sets,

    1/K sum_k f_k(sum_{i in k} s_i),

is again a function of sums, once each image's statistics stand in a block of columns of its data set's own. Data sets
weigh the same, however many images they have. As each of them is there in every resample with as many images as it has
(a stratified bootstrap), an interval says nothing of other data sets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from ._base import Metric


class MeanOverDataSets(Metric):
    """The mean of one metric over data sets; results per image are made by `pack`.

    Blocks are padded with zeros to the widest: to the metric a column of zeros must mean nothing, as a class without
    a pixel does.

    Args:
        metrics: one per data set; all of the same name and direction.

    Raises:
        ValueError: the metrics differ.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        first = metrics[0]
        if any((metric.name, metric.sign) != (first.name, first.sign) for metric in metrics):
            raise ValueError(f"all metrics must be the same, but got {', '.join(metric.name for metric in metrics)}.")
        self._metrics = tuple(metrics)
        self.name = f"{first.name}, mean over {len(metrics)} data sets"
        self.higher_is_better = first.higher_is_better

    def pack(self, results: Sequence[NDArray[np.float64]]) -> Float64[np.ndarray, "images *axes columns"]:
        """Results of all data sets as one array: statistics of each image, in the columns of its data set.

        Args:
            results: results per image of each data set, in the order of the metrics; shapes may differ.

        Returns:
            Images of one data set after another; the other data sets' columns are zero.

        Raises:
            ValueError: a data set has no result.
        """
        counts = [len(part) for part in results]
        if not all(counts) or len(counts) != len(self._metrics):
            raise ValueError(f"there must be results of each of {len(self._metrics)} data sets, but got {counts}.")
        statistics = [metric.statistics(part) for metric, part in zip(self._metrics, results, strict=True)]
        width = max(part.shape[-1] for part in statistics)
        blocks = np.zeros((sum(counts), *statistics[0].shape[1:-1], len(counts), width))
        for number, part in enumerate(statistics):
            start = sum(counts[:number])
            blocks[start : start + len(part), ..., number, : part.shape[-1]] = part
        return blocks.reshape(*blocks.shape[:-2], -1)

    def statistics(self, per_image: NDArray[np.float64]) -> Float64[np.ndarray, "images *axes columns"]:
        return per_image

    def of_sums(self, sums: Float64[np.ndarray, "resamples *axes columns"]) -> Float64[np.ndarray, "resamples"]:
        scores = [metric.of_sums(block) for metric, block in zip(self._metrics, self._blocks(sums), strict=True)]
        return np.asarray(np.mean(scores, axis=0))

    def completed(
        self,
        sums: Float64[np.ndarray, "resamples *axes columns"],
        whole: Float64[np.ndarray, "1 *axes columns"],
    ) -> Float64[np.ndarray, "resamples"]:
        parts = zip(self._metrics, self._blocks(sums), self._blocks(whole), strict=True)
        return np.asarray(np.mean([metric.completed(block, every) for metric, block, every in parts], axis=0))

    def counted(self, statistics: Float64[np.ndarray, "images *axes columns"]) -> Float64[np.ndarray, "images *kinds"]:
        blocks = zip(self._metrics, self._blocks(statistics), strict=True)
        return np.stack([metric.counted(block) for metric, block in blocks], axis=1)

    def strata(
        self, units: Float64[np.ndarray, "units *axes statistics"], columns: int
    ) -> list[Float64[np.ndarray, "stratum *axes statistics"]]:
        """The units of each data set: none is in two.

        Args:
            units: statistics of images or groups; two scores may stand side by side in the last axis.
            columns: how many entries of the last axis are statistics of one score.

        Returns:
            The units that are scored in each data set.
        """
        blocks = zip(self._metrics, self._blocks(units[..., :columns]), strict=True)
        chosen: list[Bool[np.ndarray, "units"]] = [metric.scored(block) for metric, block in blocks]
        return [units[entries] for entries in chosen]

    def _blocks(self, statistics: Float64[np.ndarray, "..."]) -> list[Float64[np.ndarray, "..."]]:
        return np.split(statistics, len(self._metrics), axis=-1)
