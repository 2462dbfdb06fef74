"""What every probe is: it scores selections on a bank, and is fit for the test split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Float32

from diffsift.spaces import Candidate, Selection

from ..metrics import Metric
from ._elimination import Elimination

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Score:
    """The metric times its sign, so that higher is better: `value` of all folds together, `folds` of each alone."""

    value: float
    folds: tuple[float, ...]


@dataclass(frozen=True)
class Head(ABC):
    """A fitted probe. At every place it takes sums over blocks, ``features @ weights[candidate]``, plus `intercept`.

    The weights apply to standardised features of the bank; the factors of fusion are folded in. As the sums are linear
    in the features, they may be formed on each activation's own grid, and be enlarged or averaged afterwards.
    """

    weights: Mapping[Candidate, Float32[np.ndarray, "channels sums"]]
    intercept: Float32[np.ndarray, "sums"]

    @abstractmethod
    def outputs(self, sums: Float32[np.ndarray, "rows sums"]) -> Float32[np.ndarray, "rows outputs"]:
        """What the probe says, from the sums."""


@dataclass(frozen=True)
class RidgeHead(Head):
    """A linear function: the sums are the outputs."""

    def outputs(self, sums: Float32[np.ndarray, "rows sums"]) -> Float32[np.ndarray, "rows outputs"]:
        return sums


@dataclass(frozen=True)
class HeadPerDataSet:
    """What a probe on several data sets has fit: a head for each, or None where nothing is fit."""

    heads: tuple[Fitted, ...]


Fitted: TypeAlias = "Head | HeadPerDataSet | None"
"""What `Probe.fit` gives; None where nothing is fit."""


class Probe(ABC):
    """Scores selections on a bank.

    Attributes:
        metric: of the results.
        groups: per result of `held_out`, what is resampled together for intervals.
    """

    metric: Metric
    groups: Sequence[str]

    @abstractmethod
    def score(self, selection: Selection) -> Score:
        """The selection's score on held-out images."""

    @abstractmethod
    def held_out(self, selection: Selection) -> Array:
        """Results of the metric for each held-out image: what paired comparisons are made from."""

    def eliminate(self, pool: Sequence[Candidate], most: int) -> Elimination | None:
        """The pool in the order in which backward elimination leaves it; None where nothing is fit.

        Args:
            pool: candidates of the bank.
            most: how many are to survive; those that go before them are listed behind them.
        """
        return None

    def sampling_error(self, selection: Selection) -> float | None:
        """Standard error that the score has from sampled locations alone; None where nothing is sampled."""
        return None

    @abstractmethod
    def fit(self, selection: Selection) -> Fitted:
        """The head for the test split, fit on all development images; None where nothing is fit."""


class FoldedProbe(Probe):
    """A probe whose results come fold by fold."""

    @abstractmethod
    def _by_fold(self, selection: Selection) -> list[np.ndarray[Any, Any]]:
        """Per fold, the metric's results of its held-out images."""

    def score(self, selection: Selection) -> Score:
        results = self._by_fold(selection)
        sign = self.metric.sign
        value = sign * self.metric.value(np.concatenate(results))
        return Score(value, tuple(sign * self.metric.value(result) for result in results))

    def held_out(self, selection: Selection) -> np.ndarray[Any, Any]:
        return np.concatenate(self._by_fold(selection))
