"""Shortlist, confirmation by a slow probe, and stability over resamples of the held-out images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from diffsift.evaluation import FOUND, stability, verdict
from diffsift.objectives import Score
from diffsift.objectives.metrics import RatioMetric
from diffsift.search.rerank import confirmation_words, confirmed, shortlist
from diffsift.spaces import Candidate, Selection
from diffsift.tracking import FinalRow, Reranked, TrialRecord

A, B, C, D, E = (Candidate("main", name, 50) for name in "abcde")


def record(number: int, score: float, *members: Candidate) -> TrialRecord:
    return TrialRecord(str(number), number, Selection.of(members), score, (score,), 8, 0.0, "test")


@dataclass
class Table:
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


def row(name: str, gain: float, *, noise: float = 0.01) -> FinalRow:
    return FinalRow(name, Selection.of([A]), 0.3 - gain, 0.2, 0.4, 8, 1, gain, gain - noise, gain + noise)


def test_a_verdict_names_every_row_that_is_better_and_the_best_of_them() -> None:
    found = FinalRow(FOUND, Selection.of([A, B]), 0.3, 0.25, 0.35, 16, 2)
    table = [row("latents", -0.02), row("pixels", -0.05), row("older practice", 0.03), row("single", 0.005), found]
    said = verdict(table)
    assert said.startswith("The selection found scores 0.300 [0.250, 0.350] on the sealed test split. ")
    assert (
        "It is not better than pixels (-0.050 [-0.060, -0.040], 8 channels against 16), nor than latents: use" in said
    )
    assert "It is better than older practice; the closest of them is older practice" in said
    assert "It is not shown to be better than single" in said
    assert "nor than" not in verdict([row("pixels", -0.05), found])


def test_a_shortlist_has_no_copies_of_a_better_one() -> None:
    best, copy, half, other = record(3, 0.9, A, B, C), record(1, 0.8, A, B, D), record(2, 0.7, A, D), record(0, 0.6, E)
    assert shortlist([other, copy, half, best], 4) == [best, half, other]
    assert shortlist([other, copy, half, best], 2) == [best, half]
    assert shortlist([copy], 3) == [copy]


def test_the_same_candidates_at_other_weights_are_a_copy() -> None:
    weighted = TrialRecord("w", 9, Selection.of({A: 1.0, B: 0.5}), 0.5, (), 8, 0.0, "test")
    assert shortlist([record(0, 0.6, A, B), weighted], 5) == [record(0, 0.6, A, B)]


def test_the_slow_probe_decides_and_errors_are_minimised() -> None:
    first, second = record(0, -0.1, A), record(1, -0.2, B)
    probe = Table(
        {first.selection: [0.5, 0.7], second.selection: [0.2, 0.4]}, RatioMetric("error", higher_is_better=False)
    )
    found = confirmed([first, second], probe)  # type: ignore[arg-type]
    assert [entry.taken for entry in found] == [False, True]
    assert [entry.confirmed for entry in found] == pytest.approx([-0.6, -0.3])
    assert confirmation_words(found, "linear") == (
        " It is the best of 2 different selections by the linear probe, and number 2 by the fast probe."
    )
    assert confirmation_words((), "") == ""
    agreed = [Reranked(first.selection, 0, 0.5, 0.5, True), Reranked(second.selection, 1, 0.4, 0.4, False)]
    assert confirmation_words(agreed, "mlp").endswith("by the mlp probe, and the best by the fast probe too.")


def test_a_clear_winner_is_chosen_in_every_resample() -> None:
    best, other = record(0, 0.9, A, B), record(1, 0.1, B, C)
    probe = Table({best.selection: [0.9, 0.8, 0.9], other.selection: [0.1, 0.2, 0.1]}, RatioMetric("accuracy"))
    shares = {entry.activation: entry.share for entry in stability([other, best], probe, [*"xyz"], draws=200)}  # type: ignore[arg-type]
    assert shares == {"a": 1.0, "b": 1.0}


def test_a_coin_toss_is_chosen_as_often_as_the_images_say() -> None:
    """One image of two is decisive; it is drawn twice in a quarter of resamples, once in a half."""
    steady, lucky = record(0, 0.5, A), record(1, 0.5, B)
    probe = Table({steady.selection: [0.5, 0.5], lucky.selection: [0.0, 1.0]}, RatioMetric("accuracy"))
    shares = {entry.activation: entry.share for entry in stability([steady, lucky], probe, [*"xy"], draws=4000)}  # type: ignore[arg-type]
    assert shares["b"] == pytest.approx(0.25, abs=0.03)
    assert shares["a"] == pytest.approx(0.75, abs=0.03)


def test_images_of_a_group_are_drawn_together() -> None:
    steady, lucky = record(0, 0.5, A), record(1, 0.5, B)
    probe = Table({steady.selection: [0.5] * 4, lucky.selection: [0.0, 1.0, 0.0, 1.0]}, RatioMetric("accuracy"))
    found = stability([steady, lucky], probe, ["x", "x", "y", "y"], draws=500)  # type: ignore[arg-type]
    assert [(entry.activation, entry.share) for entry in found] == [("a", 1.0)]


def test_only_the_best_trials_compete_and_errors_count_downwards() -> None:
    records = [record(0, -0.1, A), record(1, -0.2, B), record(2, -0.3, C)]
    values = {records[0].selection: [0.1, 0.1], records[1].selection: [0.2, 0.2], records[2].selection: [0.0, 0.0]}
    probe = Table(values, RatioMetric("error", higher_is_better=False))
    found = stability(records, probe, [*"xy"], most=2, draws=50)  # type: ignore[arg-type]
    assert [(entry.activation, entry.share) for entry in found] == [("a", 1.0)]
    assert stability([], probe, [*"xy"]) == ()  # type: ignore[arg-type]
