"""Stability: how often an activation is selected when the held-out images are resampled."""

from __future__ import annotations

import pytest
from support.tabled import A, B, C, Table, record

from diffsift.evaluation import selection_stability
from diffsift.objectives.metrics import RatioMetric


def test_a_clear_winner_is_chosen_in_every_resample() -> None:
    best, other = record(0, 0.9, A, B), record(1, 0.1, B, C)
    probe = Table({best.selection: [0.9, 0.8, 0.9], other.selection: [0.1, 0.2, 0.1]}, RatioMetric("accuracy"))
    shares = {
        entry.activation: entry.share for entry in selection_stability([other, best], probe, [*"xyz"], resamples=200)
    }
    assert shares == {"a": 1.0, "b": 1.0}


def test_a_coin_toss_is_chosen_as_often_as_the_images_say() -> None:
    """One image of two is decisive; it is drawn twice in a quarter of resamples, once in a half."""
    steady, lucky = record(0, 0.5, A), record(1, 0.5, B)
    probe = Table({steady.selection: [0.5, 0.5], lucky.selection: [0.0, 1.0]}, RatioMetric("accuracy"))
    shares = {
        entry.activation: entry.share for entry in selection_stability([steady, lucky], probe, [*"xy"], resamples=4000)
    }
    assert shares["b"] == pytest.approx(0.25, abs=0.03)
    assert shares["a"] == pytest.approx(0.75, abs=0.03)


def test_images_of_a_group_are_drawn_together() -> None:
    steady, lucky = record(0, 0.5, A), record(1, 0.5, B)
    probe = Table({steady.selection: [0.5] * 4, lucky.selection: [0.0, 1.0, 0.0, 1.0]}, RatioMetric("accuracy"))
    found = selection_stability([steady, lucky], probe, ["x", "x", "y", "y"], resamples=500)
    assert [(entry.activation, entry.share) for entry in found] == [("a", 1.0)]


def test_only_the_best_trials_compete_and_errors_count_downwards() -> None:
    records = [record(0, -0.1, A), record(1, -0.2, B), record(2, -0.3, C)]
    values = {records[0].selection: [0.1, 0.1], records[1].selection: [0.2, 0.2], records[2].selection: [0.0, 0.0]}
    probe = Table(values, RatioMetric("error", higher_is_better=False))
    found = selection_stability(records, probe, [*"xy"], most=2, resamples=50)
    assert [(entry.activation, entry.share) for entry in found] == [("a", 1.0)]
    assert selection_stability([], probe, [*"xy"]) == ()
