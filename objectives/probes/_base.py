"""What every probe is: it scores selections on a bank, and is fit for the test split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from diffsift.spaces import Candidate, Selection

from ..metrics import Metric

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Score:
    """The metric times its sign, so that higher is better: `value` of all folds together, `folds` of each alone."""

    value: float
    folds: tuple[float, ...]


@dataclass(frozen=True)
class RidgeHead:
    """A fitted probe: outputs are the sum over blocks of ``features @ weights[candidate]``, plus `intercept`.

    The weights apply to standardised features of the bank; the factors of fusion are folded in.
    """

    weights: Mapping[Candidate, Float32[np.ndarray, "channels outputs"]]
    intercept: Float32[np.ndarray, "outputs"]


@dataclass(frozen=True)
class HeadPerDataSet:
    """What a probe on several data sets has fit: a head for each, or None where nothing is fit."""

    heads: tuple[Head, ...]


Head = RidgeHead | HeadPerDataSet | None


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

    def sampling_error(self, selection: Selection) -> float | None:
        """Standard error that the score has from sampled locations alone; None where nothing is sampled."""
        return None

    @abstractmethod
    def fit(self, selection: Selection) -> Head:
        """The head for the test split, fit on all development images; None where nothing is fit."""
