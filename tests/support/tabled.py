"""Trials of selections whose results on each image are written down."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from diffsift.objectives import Probe, Score
from diffsift.objectives.metrics import RatioMetric
from diffsift.spaces import Candidate, Selection
from diffsift.tracking import TrialRecord

A, B, C, D, E = (Candidate("main", name, 50) for name in "abcde")


def record(number: int, score: float, *members: Candidate) -> TrialRecord:
    return TrialRecord(str(number), number, Selection.of(members), score, (score,), 8, 0.0, "test")


@dataclass
class Table(Probe):
    """A probe that knows results (error, 1) of each image by selection."""

    results: dict[Selection, Any]
    metric: RatioMetric

    def score(self, selection: Selection) -> Score:
        return Score(self.metric.sign * self.metric.value(self.held_out(selection)), ())

    def held_out(self, selection: Selection) -> np.ndarray:
        values = np.asarray(self.results[selection], dtype=np.float64)
        return np.stack([values, np.ones_like(values)], axis=-1)

    def fit(self, selection: Selection) -> None:
        return None
