"""Sampled locations: probabilities, weights without bias, determinism."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from diffsift.bank.locations import all_locations, sample_locations, sample_values, sampling_probabilities
from diffsift.datasets import IGNORE
from diffsift.errors import DataError

LABEL = np.zeros((12, 9), np.uint8)
LABEL[2:4, 3:5] = 3
LABEL[8, 1:8] = 1
LABEL[:, 8] = IGNORE

labels_with_pixels = arrays.arrays(
    np.uint8, st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.sampled_from([0, 1, 2, 200, 254, IGNORE])
).filter(lambda label: bool((label != IGNORE).any()))


def pixels_of(points: np.ndarray, shape: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    columns, rows = points[:, 0] * shape[1] - 0.5, points[:, 1] * shape[0] - 0.5
    assert np.allclose(columns, columns.round(), atol=1e-4)
    assert np.allclose(rows, rows.round(), atol=1e-4)
    return rows.round().astype(int), columns.round().astype(int)


@given(labels_with_pixels, st.integers(1, 50), st.floats(0, 1), st.integers(-5, 2**40))
@settings(max_examples=100, deadline=None)
def test_points_are_valid_pixel_centers_with_their_labels_and_weights(
    label: np.ndarray, count: int, balance: float, seed: int
) -> None:
    drawn = sample_locations(label, count, seed=seed, name="image", balance=balance)
    rows, columns = pixels_of(drawn.points, label.shape)
    assert len(drawn) == count
    assert drawn.points.shape == (count, 2)
    assert drawn.points.dtype == drawn.weights.dtype == np.float32
    assert np.array_equal(drawn.labels, label[rows, columns])
    assert (drawn.labels != IGNORE).all()
    probability = sampling_probabilities(label, balance=balance)[rows, columns]
    assert np.allclose(drawn.weights * count * probability, 1, rtol=1e-5)


@given(labels_with_pixels, st.floats(0, 1))
@settings(deadline=None)
def test_expected_weights_are_pixel_counts_exactly(label: np.ndarray, balance: float) -> None:
    probability = sampling_probabilities(label, balance=balance)
    assert probability.sum() == pytest.approx(1)
    assert (probability[label == IGNORE] == 0).all()
    count = 200
    drawn = sample_locations(label, count, seed=0, name="image", balance=balance)
    present = np.unique(label[label != IGNORE])
    for value in present:
        size = (label == value).sum()
        of_class = probability[label == value]
        assert of_class == pytest.approx((1 - balance) / (label != IGNORE).sum() + balance / (len(present) * size))
        for weight in np.unique(drawn.weights[drawn.labels == value]):
            assert (count * of_class * weight).sum() == pytest.approx(size, rel=1e-5)


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_pixels_are_drawn_as_often_as_their_probability_says(balance: float) -> None:
    draws = 200_000
    drawn = sample_locations(LABEL, draws, seed=1, name="image", balance=balance)
    often = np.zeros(LABEL.shape)
    np.add.at(often, pixels_of(drawn.points, LABEL.shape), 1)
    probability = sampling_probabilities(LABEL, balance=balance)
    deviation = np.sqrt(draws * probability * (1 - probability))
    assert (np.abs(often - draws * probability) <= 5 * deviation).all()


def test_weighted_counts_are_unbiased_over_seeds() -> None:
    seeds, count = 2000, 20
    estimates = np.zeros((seeds, 4))
    for seed in range(seeds):
        drawn = sample_locations(LABEL, count, seed=seed, name="image")
        estimates[seed] = np.bincount(drawn.labels, drawn.weights, minlength=4)
    truth = np.bincount(LABEL[LABEL != IGNORE], minlength=4)
    error = estimates.std(0) / np.sqrt(seeds)
    assert (np.abs(estimates.mean(0) - truth) <= 4 * error + 1e-6).all()
    assert estimates[:, 2].max() == 0


def test_balance_favours_rare_classes() -> None:
    shares = [(sample_locations(LABEL, 4000, seed=0, name="a", balance=b).labels == 3).mean() for b in (0.0, 0.5, 1.0)]
    assert shares[0] == pytest.approx(4 / 96, abs=0.02)
    assert shares[2] == pytest.approx(1 / 3, abs=0.03)
    assert shares[0] < shares[1] < shares[2]


def test_a_draw_depends_on_seed_and_name_but_not_on_order() -> None:
    first = sample_locations(LABEL, 50, seed=3, name="a")
    other_name = sample_locations(LABEL, 50, seed=3, name="b")
    other_seed = sample_locations(LABEL, 50, seed=4, name="a")
    again = sample_locations(LABEL, 50, seed=3, name="a")
    assert np.array_equal(first.points, again.points)
    assert not np.array_equal(first.points, other_name.points)
    assert not np.array_equal(first.points, other_seed.points)


def test_a_draw_is_the_same_in_every_process() -> None:
    label = np.arange(35, dtype=np.uint8).reshape(5, 7)
    assert sample_locations(label, 8, seed=3, name="a").labels.tolist() == [13, 7, 5, 6, 23, 7, 8, 31]


def test_all_locations_are_every_pixel_row_by_row() -> None:
    every = all_locations(LABEL)
    rows, columns = pixels_of(every.points, LABEL.shape)
    assert np.array_equal(rows * 9 + columns, np.arange(LABEL.size))
    assert np.array_equal(every.labels, LABEL.ravel())
    assert np.array_equal(every.weights, (LABEL.ravel() != IGNORE).astype(np.float32))
    assert every.points[0].tolist() == pytest.approx([0.5 / 9, 0.5 / 12])


def test_a_label_without_any_valid_pixel_is_refused() -> None:
    nothing = np.full((3, 3), IGNORE, np.uint8)
    with pytest.raises(DataError, match="photo7 must have a pixel that counts"):
        sample_locations(nothing, 5, seed=0, name="photo7")
    assert (all_locations(nothing).weights == 0).all()


def test_vectors_are_drawn_where_all_components_are_known() -> None:
    label = np.random.default_rng(0).normal(size=(4, 6, 3)).astype(np.float32)
    label[:2] = np.nan
    label[3, 0, 1] = np.nan
    found = sample_values(label, 200, seed=0, name="a")
    assert found.labels.shape == (200, 3)
    columns, rows = (found.points * [6, 4]).astype(int).T
    assert set(zip(rows, columns, strict=True)) == {(2, x) for x in range(6)} | {(3, x) for x in range(1, 6)}
    np.testing.assert_array_equal(found.labels, label[rows, columns])
    np.testing.assert_allclose(found.weights, 11 / 200)
    with pytest.raises(DataError, match="a must have a pixel whose value is known"):
        sample_values(np.full_like(label, np.nan), 5, seed=0, name="a")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"count": 0}, "count must be at least 1"), ({"balance": 1.5}, r"balance must be in \[0, 1\], but got 1.5")],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        sample_locations(LABEL, **{"count": 5, "seed": 0, "name": "a", **arguments})  # type: ignore[arg-type]


@pytest.mark.unchecked
@pytest.mark.parametrize("label", [np.zeros(4, np.uint8), np.zeros((2, 2), np.int64)])
def test_labels_of_another_form_are_refused(label: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be a matrix of uint8"):
        all_locations(label)
