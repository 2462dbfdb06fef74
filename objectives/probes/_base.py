"""What every probe is: it scores selections on a bank, and is fitted for the test split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float32
from numpy.typing import NDArray

from diffsift.spaces import Candidate, Selection

from ..metrics import Metric
from ._elimination import Elimination


@dataclass(frozen=True)
class Score:
    """A selection's score: the metric times its sign, so that higher is better.

    Attributes:
        value: over all held-out images together.
        folds: over the held-out images of each fold alone.
    """

    value: float
    folds: tuple[float, ...]


@dataclass(frozen=True)
class Head(ABC):
    """A fitted probe. At every location it takes sums over blocks, ``features @ weights[candidate]``, plus `intercept`.

    The weights apply to standardised features of the bank; the factors of fusion are folded in. As the sums are linear
    in the features, they may be formed on each activation's own grid, and be enlarged or averaged afterwards.

    Attributes:
        weights: by candidate, one row per channel of the bank.
        intercept: one per sum.
    """

    weights: Mapping[Candidate, Float32[np.ndarray, "channels sums"]]
    intercept: Float32[np.ndarray, "sums"]

    @abstractmethod
    def outputs(self, sums: Float32[np.ndarray, "rows sums"]) -> Float32[np.ndarray, "rows outputs"]:
        """Turn sums into class scores or values.

        Args:
            sums: one row per location or image.

        Returns:
            What the head says of each row.
        """


@dataclass(frozen=True)
class RidgeHead(Head):
    """A linear function: the sums are the outputs."""

    def outputs(self, sums: Float32[np.ndarray, "rows sums"]) -> Float32[np.ndarray, "rows outputs"]:
        return sums


@dataclass(frozen=True)
class HeadPerDataSet:
    """What a probe on several data sets has fitted.

    Attributes:
        heads: one per data set; None where nothing is fitted.
    """

    heads: tuple[Fitted, ...]


Fitted: TypeAlias = Head | HeadPerDataSet | None
"""What `Probe.fit` returns; None where nothing is fitted."""


class Probe(ABC):
    """Scores selections.

    The life of a probe, and who calls what:

    1. `Objective.probe` makes a fast probe once the bank holds the pool; each worker process makes its own. A reference
       probe is made when a shortlist is reranked or a selection file is scored. Making one should be cheap.
    2. `eliminate` is called at most once, before the first trial, by samplers that start from an elimination.
    3. `score` is called once per trial, thousands of times; `held_out` for the few selections that are compared.
       Neither sees the test split, and equal selections must give equal results in any order of calls.
    4. `sampling_error` is called once, for the best selection of a finished search.
    5. `fit` is called once per row of the final table; the head goes to `Objective.test`.

    Attributes:
        metric: turns the results of `held_out` into a score.
        groups: one per result of `held_out`: results of one group are resampled together for intervals.
    """

    metric: Metric
    groups: Sequence[str]

    @abstractmethod
    def score(self, selection: Selection) -> Score:
        """Score a selection on held-out images.

        Args:
            selection: candidates of the bank with their weights.

        Returns:
            The score, signed so that higher is better.
        """

    @abstractmethod
    def held_out(self, selection: Selection) -> NDArray[np.float64]:
        """The metric's results of each held-out image, from which paired comparisons are made.

        Args:
            selection: candidates of the bank with their weights.

        Returns:
            Images first, the same ones in the same order for every selection.
        """

    def eliminate(self, pool: Sequence[Candidate], most: int) -> Elimination | None:
        """Order the pool by backward elimination.

        Args:
            pool: candidates of the bank.
            most: how many are to survive; those that go before them are listed behind them.

        Returns:
            The order; None where nothing is fitted.
        """
        return None

    def sampling_error(self, selection: Selection) -> float | None:
        """Standard error that the score has from sampled locations alone.

        Args:
            selection: candidates of the bank with their weights.

        Returns:
            The error in the unit of the score; None where nothing is sampled.
        """
        return None

    @abstractmethod
    def fit(self, selection: Selection) -> Fitted:
        """Fit a head on all development images, for the test split.

        Args:
            selection: candidates of the bank with their weights.

        Returns:
            The head; None where nothing is fitted.
        """


class FoldedProbe(Probe):
    """A probe whose results come fold by fold: a subclass gives `results_by_fold`."""

    @abstractmethod
    def results_by_fold(self, selection: Selection) -> list[NDArray[np.float64]]:
        """Score a selection on each fold.

        Args:
            selection: candidates with their weights.

        Returns:
            For each fold, the metric's results of its held-out images, images first.
        """

    def score(self, selection: Selection) -> Score:
        results = self.results_by_fold(selection)
        sign = self.metric.sign
        value = sign * self.metric.value(np.concatenate(results))
        return Score(value, tuple(sign * self.metric.value(result) for result in results))

    def held_out(self, selection: Selection) -> NDArray[np.float64]:
        return np.concatenate(self.results_by_fold(selection))
