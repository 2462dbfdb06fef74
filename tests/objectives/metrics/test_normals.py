"""Angular errors of normals, against plain arc cosines."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import special_ortho_group

from diffsift.objectives.metrics import NORMALS_MEASURES, normals_measures, unit_vectors

seeds = st.integers(0, 2**32 - 1)


def normals(seed: int, points: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions of any length, unit normals and weights."""
    rng = np.random.default_rng(seed)
    truth = rng.normal(size=(points, 3))
    truth /= np.linalg.norm(truth, axis=1, keepdims=True)
    predicted = rng.lognormal(0, 1, (points, 1)) * (truth + rng.normal(0, 0.4, (points, 3)))
    return predicted, truth, rng.uniform(0.1, 3, points)


@given(seeds)
@settings(max_examples=40, deadline=None)
def test_measures_are_those_of_arc_cosines(seed: int) -> None:
    predicted, truth, weights = normals(seed)
    found = normals_measures(predicted, truth, weights)
    angles = np.array(
        [
            math.degrees(math.acos(np.clip(p @ n / np.linalg.norm(p), -1, 1)))
            for p, n in zip(predicted, truth, strict=True)
        ]
    )
    assert tuple(found) == NORMALS_MEASURES
    assert found["mean-angle"] == pytest.approx(np.average(angles, weights=weights), abs=1e-6)
    assert found["rmse-angle"] == pytest.approx(np.average(angles**2, weights=weights) ** 0.5, abs=1e-6)
    for name, threshold in (("within-11.25", 11.25), ("within-22.5", 22.5), ("within-30", 30)):
        assert found[name] == pytest.approx(weights[angles < threshold].sum() / weights.sum(), abs=1e-9)
    below, above = (weights[angles < found["median-angle"] + step].sum() / weights.sum() for step in (-1e-6, 1e-6))
    assert below < 0.5 <= above
    assert normals_measures(predicted, truth)["median-angle"] == pytest.approx(np.sort(angles)[29], abs=1e-6)


@given(seeds)
@settings(max_examples=20, deadline=None)
def test_neither_lengths_nor_the_frame_matter(seed: int) -> None:
    predicted, truth, weights = normals(seed)
    plain = normals_measures(predicted, truth, weights)
    turned = special_ortho_group.rvs(3, random_state=seed) @ np.diag([1, -1, 1])
    assert normals_measures(predicted @ turned, truth @ turned, weights) == pytest.approx(plain, abs=1e-6)
    lengths = np.random.default_rng(seed).uniform(0.01, 100, (60, 1))
    assert normals_measures(lengths * predicted, truth, weights) == pytest.approx(plain, abs=1e-6)


def test_small_and_large_angles_are_exact() -> None:
    truth = np.array([[0.0, 0.0, 1.0]])
    for degrees in (1e-6, 1e-3, 90.0, 180 - 1e-6):
        angle = math.radians(degrees)
        found = normals_measures(np.array([[math.sin(angle), 0.0, math.cos(angle)]]), truth)
        assert found["mean-angle"] == pytest.approx(degrees, rel=1e-6)


def test_no_direction_is_a_right_angle_and_unknown_normals_do_not_count() -> None:
    truth = np.array([[0.0, 0.0, 1.0], [np.nan, np.nan, np.nan], [0.0, 1.0, 0.0]])
    predicted = np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    assert normals_measures(predicted, truth)["mean-angle"] == 45
    assert normals_measures(predicted, truth, np.array([1.0, 1.0, 0.0]))["mean-angle"] == 90
    assert normals_measures(predicted[:1], truth[1:2]) == {}
    with pytest.raises(ValueError, match="finite"):
        normals_measures(truth, truth)


@pytest.mark.unchecked
def test_other_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"one shape, but got \(2, 3\) and \(3, 3\)"):
        normals_measures(np.zeros((2, 3)), np.zeros((3, 3)))


def test_vectors_are_scaled_to_unit_length() -> None:
    found = unit_vectors(np.array([[[3.0, 0.0, 4.0], [0.0, 0.0, 0.0]]], np.float32))
    np.testing.assert_allclose(found, [[[0.6, 0, 0.8], [0, 0, 0]]])
