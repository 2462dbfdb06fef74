"""Metrics of depth, classification and correspondence, against scikit-learn or a plain loop."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.linear_model import LinearRegression
from sklearn.metrics import (
    accuracy_score,
    balanced_accuracy_score,
    mean_absolute_percentage_error,
    root_mean_squared_error,
)

from diffsift.errors import DataError
from diffsift.objectives.metrics import (
    Accuracy,
    BalancedAccuracy,
    RatioMetric,
    by_pair,
    confusion_per_image,
    correct_keypoints,
    depth_measures,
    per_image,
)

seeds = st.integers(0, 2**32 - 1)


def depths(seed: int, points: int = 50) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = rng.uniform(0.5, 10, points)
    return truth * rng.lognormal(0, 0.3, points), truth, rng.uniform(0.1, 3, points)


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_depth_agrees_with_scikit_learn(seed: int) -> None:
    predicted, truth, weights = depths(seed)
    found = depth_measures(predicted, truth, weights)
    assert found["rmse"] == pytest.approx(root_mean_squared_error(truth, predicted, sample_weight=weights), abs=1e-9)
    expected = mean_absolute_percentage_error(truth, predicted, sample_weight=weights)
    assert found["abs-rel"] == pytest.approx(expected, abs=1e-9)
    for n in (1, 2, 3):
        within = [w for p, d, w in zip(predicted, truth, weights, strict=True) if max(p / d, d / p) < 1.25**n]
        assert found[f"delta{n}"] == pytest.approx(sum(within) / weights.sum(), abs=1e-9)


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_alignment_is_a_weighted_linear_fit(seed: int) -> None:
    predicted, truth, weights = depths(seed)
    fit = LinearRegression().fit(predicted[:, None], truth, sample_weight=weights).predict(predicted[:, None])
    plain = depth_measures(fit, truth, weights)
    assert depth_measures(predicted, truth, weights, aligned=True) == pytest.approx(plain, abs=1e-9)
    changed = depth_measures(-3 * predicted + 7, truth, weights, aligned=True)
    assert changed == pytest.approx(plain, abs=1e-9)


def test_unknown_depths_do_not_count() -> None:
    truth = np.array([2.0, np.nan, 0.0, -1.0, np.inf])
    assert depth_measures(np.array([3.0, 9, 9, 9, 9]), truth)["rmse"] == 1
    assert depth_measures(np.ones(5), np.full(5, np.nan)) == {}
    rows = per_image([{"rmse": 3.0}, {}, {"rmse": 1.0}], "rmse")
    assert RatioMetric("rmse").value(rows) == 2
    with pytest.raises(DataError, match="at least one point"):
        RatioMetric("rmse").value(rows[1:2])
    with pytest.raises(ValueError, match="finite"):
        depth_measures(np.array([np.nan]), np.ones(1))
    assert math.isfinite(depth_measures(np.full(3, -2.0), np.arange(1.0, 4.0))["delta1"])


@given(seeds, st.integers(2, 8))
@settings(max_examples=40, deadline=None)
def test_accuracies_agree_with_scikit_learn(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    truth, predicted = rng.integers(classes, size=(2, 60))
    matrices = confusion_per_image(truth[:, None], predicted[:, None], None, classes)
    assert Accuracy().value(matrices) == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)
    expected = np.mean([(predicted[truth == c] == c).mean() for c in np.unique(truth)])
    assert BalancedAccuracy().value(matrices) == pytest.approx(expected, abs=1e-12)
    if set(predicted) <= set(truth):  # else scikit-learn warns
        assert expected == pytest.approx(balanced_accuracy_score(truth, predicted), abs=1e-12)


@given(seeds, st.booleans())
@settings(max_examples=40, deadline=None)
def test_pck_agrees_with_a_plain_loop(seed: int, with_box: bool) -> None:
    rng = np.random.default_rng(seed)
    height, width = rng.integers(20, 200, 2)
    results, points, shares = [], [], []
    for _ in range(5):
        predicted, truth = rng.random((2, 7, 2))
        truth[rng.random(7) < 0.3] = np.nan
        box = (0.1, 0.2, float(rng.uniform(0.3, 1)), float(rng.uniform(0.3, 1))) if with_box else None
        longer = max(width, height) if box is None else max((box[2] - box[0]) * width, (box[3] - box[1]) * height)
        right = [
            math.hypot((p[0] - t[0]) * width, (p[1] - t[1]) * height) <= 0.3 * longer
            for p, t in zip(predicted, truth, strict=True)
            if not np.isnan(t).any()
        ]
        points += right
        shares += [sum(right) / len(right)] if right else []
        results.append(correct_keypoints(predicted, truth, size=(int(height), int(width)), threshold=0.3, box=box))
    metric = RatioMetric("PCK")
    assert metric.value(np.array(results)) == pytest.approx(np.mean(points), abs=1e-12)
    assert metric.value(by_pair(np.array(results))) == pytest.approx(np.mean(shares), abs=1e-12)


def test_gains_are_above_zero_where_errors_are_lower() -> None:
    rng = np.random.default_rng(0)
    better = np.stack([rng.uniform(1, 2, 40), np.ones(40)], axis=1)
    worse = better + np.array([0.5, 0.0])
    error, score = RatioMetric("error", higher_is_better=False), RatioMetric("score")
    assert error.gain(better, worse) == pytest.approx((0.5, 0.5, 0.5))
    assert score.gain(better, worse) == pytest.approx((-0.5, -0.5, -0.5))
    assert (error.sign, error.maximised, score.maximised) == (-1, "minus error", "score")
    with pytest.raises(ValueError, match="same points"):
        error.gain(better, worse * np.array([1.0, 2.0]))


def test_bad_pck_arguments_are_refused() -> None:
    points = np.zeros((1, 2))
    with pytest.raises(ValueError, match="threshold must be above 0"):
        correct_keypoints(points, points, size=(9, 9), threshold=0)
    with pytest.raises(ValueError, match="extent above 0"):
        correct_keypoints(points, points, size=(9, 9), threshold=0.1, box=(0.5, 0.5, 0.5, 0.5))
