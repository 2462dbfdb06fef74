"""What every probe is: it scores selections on a bank, and is fit for the test split."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32

from diffsift.spaces import Candidate, Selection

from ..metrics import Metric


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


class Probe(ABC):
    """Scores selections on a bank."""

    metric: Metric

    @abstractmethod
    def score(self, selection: Selection) -> Score:
        """The selection's score on held-out images."""

    @abstractmethod
    def held_out(self, selection: Selection) -> np.ndarray[Any, Any]:
        """Results of the metric for each held-out image: what paired comparisons are made from."""

    @abstractmethod
    def fit(self, selection: Selection) -> RidgeHead | None:
        """The head for the test split, fit on all development images; None where nothing is fit."""
