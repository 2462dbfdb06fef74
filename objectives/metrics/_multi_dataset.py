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
from jaxtyping import Float64

from ._base import Array, Metric


class MeanOverDataSets(Metric):
    """The mean of one metric over data sets; results per image are those of `pack_results`.

    Blocks are padded with zeros to the widest: to the metric a column of zeros must mean nothing, as a class without
    a pixel does.

    Args:
        metrics: of each data set; all of the same name and direction.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        first = metrics[0]
        if any((metric.name, metric.sign) != (first.name, first.sign) for metric in metrics):
            raise ValueError(f"all metrics must be the same, but got {', '.join(metric.name for metric in metrics)}.")
        self._metrics = tuple(metrics)
        self.name = f"{first.name}, mean over {len(metrics)} data sets"
        self.higher_is_better = first.higher_is_better

    def statistics(self, per_image: Array) -> Array:
        parts = unpack_results(per_image, len(self._metrics))
        found = [metric.statistics(part) for metric, part in zip(self._metrics, parts, strict=True)]
        width = max(part.shape[-1] for part in found)
        blocks = np.zeros((len(per_image), *found[0].shape[1:-1], len(found), width))
        numbers = np.array([number for number, _ in per_image])
        for number, part in enumerate(found):
            blocks[numbers == number, ..., number, : part.shape[-1]] = part
        return blocks.reshape(*blocks.shape[:-2], -1)

    def of_sums(self, sums: Array) -> Float64[np.ndarray, "resamples"]:
        scores = [metric.of_sums(block) for metric, block in zip(self._metrics, self._blocks(sums), strict=True)]
        return np.asarray(np.mean(scores, axis=0))

    def scored(self, statistics: Array) -> Array:
        return np.asarray(self._scored_in(statistics).any(0))

    def check_comparable(self, first: Array, second: Array) -> None:
        super().check_comparable(first, second)
        count = len(self._metrics)
        pairs = zip(self._metrics, unpack_results(first, count), unpack_results(second, count), strict=True)
        for metric, one, other in pairs:
            metric.check_comparable(one, other)

    def strata(self, units: Array, columns: int) -> list[Array]:
        return [units[chosen] for chosen in self._scored_in(units[..., :columns])]

    def _scored_in(self, statistics: Array) -> Array:
        """Per data set and unit, whether the unit is scored there: none is in two data sets."""
        blocks = self._blocks(statistics)
        return np.stack([metric.scored(block) for metric, block in zip(self._metrics, blocks, strict=True)])

    def _blocks(self, statistics: Array) -> list[Array]:
        return np.split(statistics, len(self._metrics), axis=-1)


def pack_results(parts: Sequence[Array]) -> Array:
    """Results of several data sets, whose shapes may differ, as one array of (number of the data set, result)."""
    entries = [(number, result) for number, part in enumerate(parts) for result in part]
    packed = np.empty(len(entries), dtype=object)
    for place, entry in enumerate(entries):  # at once, NumPy would make a matrix of them
        packed[place] = entry
    return packed


def unpack_results(packed: Array, count: int) -> list[Array]:
    """The results of each of `count` data sets; each must have at least one.

    Raises:
        ValueError: a data set has none.
    """
    parts = [[result for number, result in packed if number == wanted] for wanted in range(count)]
    if not all(parts):
        raise ValueError(f"there must be a result of each of {count} data sets, but {parts.index([])} has none.")
    return [np.stack(part) for part in parts]
