"""A metric as a function of sums, with bootstrap intervals over images and paired differences.

Notation: image i of a split has statistics s_i, a vector of sums over its scored points. A metric is

    f(sum_i s_i)

for a function f of its own: a ratio of sums for a mean, a mean of ratios over classes for the mean IoU. All numbers
below follow from f and the s_i alone, so tasks differ in these two only.

Intervals are percentile bootstraps over images (Efron 1979), or over groups of images where images of a group are not
independent. Each resample draws as many units as there are, with replacement, and sums their statistics. A resample is
thus a product of draw counts with the units' statistics. Where units fall into strata, such as data sets, each stratum
is resampled by itself.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float64
from numpy.typing import NDArray

from diffsift.errors import DataError

_CHUNK = 4_000_000
"""Draw counts held in memory at once, of 8 bytes each."""


class Interval(NamedTuple):
    """Bounds of a confidence interval, in the unit of the score."""

    low: float
    high: float


class Difference(NamedTuple):
    """A difference of two scores with the bounds of its confidence interval."""

    difference: float
    low: float
    high: float


class Metric(ABC):
    """What a task is scored by: a function of sums over images.

    A subclass gives `name` and three methods. A probe or an objective turns predictions into *results per image*:
    float arrays with images first, whose other axes are the metric's own choice. From then on every number is made
    here: `statistics` is called once on all results, `counted` says which images hold a scored point, and `of_sums` is
    called on sums of statistics: once for `value`, and on thousands of resampled sums at once for `interval` and
    `paired_difference`. A metric holds no state, so one object may serve a whole run.

    Attributes:
        name: how tables call it.
        higher_is_better: False for errors.
    """

    name: str
    higher_is_better: bool = True

    @property
    def sign(self) -> float:
        """1 where higher is better, else -1: the score times the sign is to be maximised."""
        return 1.0 if self.higher_is_better else -1.0

    @property
    def maximised(self) -> str:
        """The name of the score times its sign, as in curves of a search."""
        return self.name if self.higher_is_better else f"minus {self.name}"

    @abstractmethod
    def statistics(self, per_image: NDArray[np.float64]) -> Float64[np.ndarray, "images *axes columns"]:
        """The statistics s_i of each image.

        Args:
            per_image: results, images first.

        Returns:
            One row per image; the rows of several images may be added up.
        """

    @abstractmethod
    def of_sums(self, sums: Float64[np.ndarray, "resamples *axes columns"]) -> Float64[np.ndarray, "resamples"]:
        """The function f, for many sums at once.

        Args:
            sums: sums of `statistics`, each over images of which at least one has a scored point.

        Returns:
            The score of each sum, in the metric's own unit and direction.
        """

    @abstractmethod
    def counted(self, statistics: Float64[np.ndarray, "images *axes columns"]) -> Float64[np.ndarray, "images *kinds"]:
        """How much was scored in each image, such as its number of pixels of each class.

        It depends on the truth alone, so two results are comparable only where it is equal.

        Args:
            statistics: of images, or sums over groups of them.

        Returns:
            Numbers that are 0 or above, all 0 where an image has no scored point.
        """

    def scored(self, statistics: Float64[np.ndarray, "images *axes columns"]) -> Bool[np.ndarray, "images"]:
        """Whether each image has a point that was scored.

        Args:
            statistics: of images, or sums over groups of them.

        Returns:
            One truth value per image or group.
        """
        return np.asarray(self.counted(statistics).reshape(len(statistics), -1).sum(1) > 0)

    def strata(
        self, units: Float64[np.ndarray, "units *axes statistics"], columns: int
    ) -> list[Float64[np.ndarray, "stratum *axes statistics"]]:
        """Divide units into strata that are resampled among themselves. Default: one stratum.

        Args:
            units: statistics of images or groups; two scores may stand side by side in the last axis.
            columns: how many entries of the last axis are statistics of one score.

        Returns:
            The units of each stratum.
        """
        return [units]

    def check_comparable(self, first: NDArray[np.float64], second: NDArray[np.float64]) -> None:
        """Refuse two results that cannot be of the same images and points.

        Args:
            first: results per image.
            second: results per image.

        Raises:
            ValueError: their shapes or what was counted in an image differ.
        """
        if first.shape != second.shape:
            raise ValueError(
                f"both must be scored on the same images, but got shapes {first.shape} and {second.shape}."
            )
        one, other = (self.counted(self.statistics(results)) for results in (first, second))
        if not np.allclose(one, other, rtol=1e-6):
            raise ValueError("both must be scored on the same points, but their counts per image differ.")

    def value(self, per_image: NDArray[np.float64]) -> float:
        """The score over all images.

        Args:
            per_image: results, images first.

        Returns:
            The score in the metric's own unit and direction.

        Raises:
            DataError: there is nothing to score.
        """
        return float(self.of_sums(self._not_empty(per_image).sum(0)[None])[0])

    def interval(
        self,
        per_image: NDArray[np.float64],
        *,
        level: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
        groups: Sequence[str] | None = None,
    ) -> Interval:
        """Percentile bootstrap interval of the score over images.

        A resample may miss a rare class; its mean is then over the classes it has. Units without any scored point
        carry no information and are left out of the resampling.

        Args:
            per_image: results of each image.
            level: confidence in (0, 1).
            resamples: how many, at least 1.
            seed: seed of the resampling, 0 or above.
            groups: one per image; images of one group are resampled together. Default: each image by itself.

        Returns:
            The bounds, in the unit of the score.

        Raises:
            ValueError: an argument is out of range or has another length.
            DataError: there is nothing to score.
        """
        return _percentiles(self.resampled(per_image, resamples=resamples, seed=seed, groups=groups), level)

    def resampled(
        self,
        per_image: NDArray[np.float64],
        *,
        resamples: int = 2000,
        seed: int = 0,
        groups: Sequence[str] | None = None,
    ) -> Float64[np.ndarray, "resamples"]:
        """The score of each bootstrap resample; equal seeds draw the same images for all results of those images.

        Args:
            per_image: results of each image.
            resamples: how many, at least 1.
            seed: seed of the resampling, 0 or above.
            groups: one per image; images of one group are resampled together. Default: each image by itself.

        Returns:
            One score per resample.

        Raises:
            ValueError: an argument is out of range or has another length.
            DataError: there is nothing to score.
        """
        statistics = self._not_empty(per_image)
        units = self._units(statistics, groups, statistics.shape[-1])
        strata = self.strata(units, statistics.shape[-1])
        return np.concatenate([self.of_sums(sums) for sums in _resample(strata, resamples, seed)])

    def paired_difference(
        self,
        first: NDArray[np.float64],
        second: NDArray[np.float64],
        *,
        level: float = 0.95,
        resamples: int = 2000,
        seed: int = 0,
        groups: Sequence[str] | None = None,
    ) -> Difference:
        """The score of `first` minus that of `second`, with an interval from the same resamples for both.

        The difference is that of the scores as they are: for an error, a negative one is in favour of `first`; see
        `gain`.

        Args:
            first: results of each image.
            second: results of the same images.
            level: confidence in (0, 1).
            resamples: how many, at least 1.
            seed: seed of the resampling, 0 or above.
            groups: one per image; images of one group are resampled together. Default: each image by itself.

        Returns:
            The difference with its bounds, in the unit of the score.

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
                self.of_sums(sums[..., :columns]) - self.of_sums(sums[..., columns:])
                for sums in _resample(self.strata(units, columns), resamples, seed)
            ]
        )
        return Difference(self.value(first) - self.value(second), *_percentiles(differences, level))

    def gain(
        self, first: NDArray[np.float64], second: NDArray[np.float64], *, groups: Sequence[str] | None = None
    ) -> Difference:
        """By how much `first` is better than `second`: above 0 is better, for errors too.

        Args:
            first: results of each image.
            second: results of the same images.
            groups: one per image; images of one group are resampled together. Default: each image by itself.

        Returns:
            The gain with its 95 % bounds, in the unit of the score.

        Raises:
            ValueError: the two were not scored on the same points.
            DataError: there is nothing to score.
        """
        better, worse = (first, second) if self.higher_is_better else (second, first)
        return self.paired_difference(better, worse, groups=groups)

    def _not_empty(self, per_image: NDArray[np.float64]) -> NDArray[np.float64]:
        statistics = self.statistics(per_image)
        if not len(statistics) or not self.scored(statistics).any():
            raise DataError("at least one point that is not ignored must be scored, but there is none.")
        return statistics

    def _units(
        self, statistics: NDArray[np.float64], groups: Sequence[str] | None, columns: int
    ) -> NDArray[np.float64]:
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
        return np.asarray(statistics[self.scored(statistics[..., :columns])])


class RatioMetric(Metric):
    """A ratio of sums: results per image are (numerator, denominator), (0, 0) where nothing was scored.

    A mean over points has the number of points of the image as denominator, a mean over images has 1.

    Args:
        name: how tables call it.
        higher_is_better: False for errors.

    Examples:
        >>> error = RatioMetric("error", higher_is_better=False)
        >>> error.value(np.array([[1.0, 1.0], [3.0, 1.0]])), error.sign
        (2.0, -1.0)
    """

    def __init__(self, name: str, *, higher_is_better: bool = True) -> None:
        self.name, self.higher_is_better = name, higher_is_better

    def statistics(self, per_image: NDArray[np.float64]) -> Float64[np.ndarray, "images 2"]:
        return np.asarray(per_image, dtype=np.float64)

    def of_sums(self, sums: Float64[np.ndarray, "resamples 2"]) -> Float64[np.ndarray, "resamples"]:
        return np.asarray(sums[:, 0] / sums[:, 1])

    def counted(self, statistics: Float64[np.ndarray, "images columns"]) -> Float64[np.ndarray, "images"]:
        return np.asarray(statistics[:, 1])


def per_image(measures: Sequence[dict[str, float]], name: str) -> Float64[np.ndarray, "images 2"]:
    """One measure of each image, as results for a `RatioMetric`.

    Args:
        measures: those of each image by name, such as `depth_measures` gives; empty where no point counted.
        name: of the measure.

    Returns:
        (value, 1) of each image; (0, 0) where no point counted.
    """
    return np.array([(entry[name], 1.0) if entry else (0.0, 0.0) for entry in measures]).reshape(-1, 2)


def _resample(
    strata: Sequence[Float64[np.ndarray, "..."]], resamples: int, seed: int
) -> Iterator[Float64[np.ndarray, "..."]]:
    """Sums of statistics, some resamples at a time; each has as many units of every stratum as there are."""
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, but got {resamples}.")
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // max(map(len, strata)))
    for begin in range(0, resamples, at_once):
        rows = min(at_once, resamples - begin)
        yield np.sum([_resampled_sums(units, rows, rng) for units in strata], axis=0)


def _resampled_sums(
    units: Float64[np.ndarray, "units *axes"], rows: int, rng: np.random.Generator
) -> Float64[np.ndarray, "rows *axes"]:
    """Each row is the sum over as many units as there are, drawn with replacement."""
    count = len(units)
    drawn = rng.integers(count, size=(rows, count)) + np.arange(rows)[:, None] * count
    how_often = np.bincount(drawn.ravel(), minlength=rows * count).reshape(rows, count)
    return np.asarray((how_often.astype(np.float64) @ units.reshape(count, -1)).reshape(rows, *units.shape[1:]))


def _percentiles(scores: Float64[np.ndarray, "resamples"], level: float) -> Interval:
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), but got {level}.")
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
