"""A metric as a function of sums, with bootstrap intervals over images and paired differences.

Notation: image i of a split has statistics s_i, a vector of sums over its scored points. A metric is

    f(sum_i s_i)

for a function f of its own: a ratio of sums for a mean, a mean of ratios over classes for the mean IoU. All numbers
below follow from f and the s_i alone, so tasks differ in these two only.

Intervals are percentile bootstraps over images (Efron 1979), or over groups of images where images of a group are not
independent: per resample, as many units as there are are drawn with replacement and their statistics are summed. A
resample is thus a product of draw counts with the units' statistics. Where units fall into strata, such as data sets,
each stratum is resampled by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float64

from diffsift.errors import DataError

Array = np.ndarray[Any, Any]

_CHUNK = 4_000_000
"""Draws held in memory at once, of 8 bytes each."""


class Interval(NamedTuple):
    """Bounds of a confidence interval."""

    low: float
    high: float


class Difference(NamedTuple):
    """A difference of two scores with the bounds of its confidence interval."""

    difference: float
    low: float
    high: float


class Metric(ABC):
    """What a task is scored by.

    Results per image are arrays with images first; what the other axes hold is the metric's affair.

    Attributes:
        name: for people, as in tables.
        higher_is_better: False for errors.
    """

    name: str
    higher_is_better: bool = True

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1: a signed score is one to maximise."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def maximised(self) -> str:
        """The name of the signed score, as in curves of a search."""
        return self.name if self.higher_is_better else f"minus {self.name}"

    @abstractmethod
    def statistics(self, per_image: Array) -> Array:
        """The s_i of results per image: (images, ..., columns), float64."""

    @abstractmethod
    def of_sums(self, sums: Array) -> Float64[np.ndarray, "resamples"]:
        """The function f, for many sums at once; each of at least one scored image."""

    @abstractmethod
    def scored(self, statistics: Array) -> Array:
        """Per image, whether it has a point that was scored."""

    def strata(self, units: Array, columns: int) -> list[Array]:
        """Units that are resampled among themselves; the first `columns` of them are statistics of one score."""
        return [units]

    def check_comparable(self, first: Array, second: Array) -> None:
        """Raise `ValueError` where two results cannot be of the same images and points."""
        if first.shape != second.shape:
            raise ValueError(
                f"both must be scored on the same images, but got shapes {first.shape} and {second.shape}."
            )

    def value(self, per_image: Array) -> float:
        """The score over all images.

        Raises:
            DataError: there is nothing to score.
        """
        return float(self.of_sums(self._not_empty(per_image).sum(0)[None])[0])

    def interval(
        self,
        per_image: Array,
        *,
        level: float = 0.95,
        draws: int = 2000,
        seed: int = 0,
        groups: Sequence[str] | None = None,
    ) -> Interval:
        """Percentile bootstrap interval of the score over images.

        A resample may miss a rare class; its mean is then over the classes it has. Units without any scored point
        carry no information and are left out of the resampling.

        Args:
            per_image: results of each image.
            level: confidence in (0, 1).
            draws: number of resamples.
            seed: of the resampling, 0 or above.
            groups: one per image; images of one group are resampled together. Default: each image by itself.

        Raises:
            ValueError: an argument is out of range or of another length.
            DataError: there is nothing to score.
        """
        return _percentiles(self.resampled(per_image, draws=draws, seed=seed, groups=groups), level)

    def resampled(
        self, per_image: Array, *, draws: int = 2000, seed: int = 0, groups: Sequence[str] | None = None
    ) -> Float64[np.ndarray, "draws"]:
        """The score of each bootstrap resample; the draws are the same for all results of the same images.

        For arguments and errors see `interval`.
        """
        statistics = self._not_empty(per_image)
        units = self._units(statistics, groups, statistics.shape[-1])
        strata = self.strata(units, statistics.shape[-1])
        return np.concatenate([self.of_sums(resampled) for resampled in _resample(strata, draws, seed)])

    def paired_difference(
        self,
        first: Array,
        second: Array,
        *,
        level: float = 0.95,
        draws: int = 2000,
        seed: int = 0,
        groups: Sequence[str] | None = None,
    ) -> Difference:
        """The score of `first` minus that of `second`, with an interval from the same resamples for both.

        The difference is that of the scores as they are: for an error, a negative one speaks for `first`; see `gain`.
        For the other arguments see `interval`.

        Raises:
            ValueError: the two were not scored on the same points, or an argument is out of range.
            DataError: there is nothing to score.
        """
        self.check_comparable(first, second)
        one, other = self._not_empty(first), self._not_empty(second)
        columns = one.shape[-1]
        units = self._units(np.concatenate([one, other], axis=-1), groups, columns)
        differences = np.concatenate(
            [
                self.of_sums(resampled[..., :columns]) - self.of_sums(resampled[..., columns:])
                for resampled in _resample(self.strata(units, columns), draws, seed)
            ]
        )
        return Difference(self.value(first) - self.value(second), *_percentiles(differences, level))

    def gain(self, first: Array, second: Array, *, groups: Sequence[str] | None = None) -> Difference:
        """By how much `first` is better than `second`: above 0 is better, for errors too."""
        better, worse = (first, second) if self.higher_is_better else (second, first)
        return self.paired_difference(better, worse, groups=groups)

    def _not_empty(self, per_image: Array) -> Array:
        statistics = self.statistics(per_image)
        if not len(statistics) or not self.scored(statistics).any():
            raise DataError("at least one point that is not ignored must be scored, but there is none.")
        return statistics

    def _units(self, statistics: Array, groups: Sequence[str] | None, columns: int) -> Array:
        """Statistics summed over the images of each group, without groups that have no scored point."""
        if groups is not None:
            if len(groups) != len(statistics):
                raise ValueError(
                    f"there must be one group per image, but got {len(groups)} for {len(statistics)} images."
                )
            names, number = np.unique(np.asarray(groups), return_inverse=True)
            if len(names) < len(groups):
                summed = np.zeros((len(names), *statistics.shape[1:]))
                np.add.at(summed, number, statistics)
                statistics = summed
        kept: Array = statistics[self.scored(statistics[..., :columns])]
        return kept


class RatioMetric(Metric):
    """A ratio of sums: results per image are (numerator, denominator), (0, 0) where nothing was scored.

    A mean over points has the number of points of the image as denominator, a mean over images has 1.

    Examples:
        >>> error = RatioMetric("error", higher_is_better=False)
        >>> error.value(np.array([[1.0, 1.0], [3.0, 1.0]])), error.sign
        (2.0, -1.0)
    """

    def __init__(self, name: str, *, higher_is_better: bool = True) -> None:
        self.name, self.higher_is_better = name, higher_is_better

    def statistics(self, per_image: Array) -> Array:
        return np.asarray(per_image, dtype=np.float64)

    def of_sums(self, sums: Array) -> Float64[np.ndarray, "resamples"]:
        return np.asarray(sums[:, 0] / sums[:, 1])

    def scored(self, statistics: Array) -> Array:
        return np.asarray(statistics[:, 1] > 0)

    def check_comparable(self, first: Array, second: Array) -> None:
        super().check_comparable(first, second)
        if not np.allclose(first[:, 1], second[:, 1], rtol=1e-6):
            raise ValueError("both must be scored on the same points, but their counts per image differ.")


def _resample(strata: Sequence[Array], draws: int, seed: int) -> Iterator[Array]:
    """Statistics of `draws` resamples, some at a time; each has as many units of every stratum as there are."""
    if draws < 1:
        raise ValueError(f"draws must be at least 1, but got {draws}.")
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // max(map(len, strata)))
    for begin in range(0, draws, at_once):
        rows = min(at_once, draws - begin)
        yield np.sum([_drawn(units, rows, rng) for units in strata], axis=0)


def _drawn(units: Array, rows: int, rng: np.random.Generator) -> Array:
    """Sums over `rows` draws of as many units as there are, with replacement."""
    count = len(units)
    drawn = rng.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
    how_often = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
    sums: Array = (how_often.astype(np.float64) @ units.reshape(count, -1)).reshape(rows, *units.shape[1:])
    return sums


def _percentiles(scores: Float64[np.ndarray, "resamples"], level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), but got {level}.")
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
