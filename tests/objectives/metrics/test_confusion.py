"""Confusion matrices, IoU and bootstrap intervals, against scikit-learn and constructed cases."""

from __future__ import annotations

import time
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, confusion_matrix, jaccard_score

from diffsift.datasets import IGNORE
from diffsift.errors import DataError
from diffsift.objectives.metrics import (
    BalancedAccuracy,
    MeanIou,
    MeanOverDataSets,
    Metric,
    confusion,
    confusion_per_image,
    mean_iou,
    per_class_iou,
    pixel_accuracy,
)

bootstrap_interval, paired_difference = MeanIou().interval, MeanIou().paired_difference


def random_points(seed: int, classes: int, points: int = 300) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(classes, size=points), rng.integers(classes, size=points), rng.random(points)


def simulated(seed: int, images: int, skill: float, *, classes: int = 3, points: int = 40) -> np.ndarray:
    """Matrices of images in which each point is right with probability `skill`, else of a random class."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(classes, size=(images, points))
    guess = rng.integers(classes, size=(images, points))
    return confusion_per_image(truth, np.where(rng.random((images, points)) < skill, truth, guess), None, classes)


@given(st.integers(0, 2**32 - 1), st.integers(2, 12))
@settings(max_examples=60, deadline=None)
def test_agrees_with_scikit_learn(seed: int, classes: int) -> None:
    labels, predictions, weights = random_points(seed, classes)
    ours = confusion(labels, predictions, weights, classes)
    theirs = confusion_matrix(labels, predictions, labels=range(classes), sample_weight=weights)
    assert np.allclose(ours, theirs, rtol=0, atol=1e-12 * weights.sum())
    present = np.unique(labels)
    iou = jaccard_score(labels, predictions, labels=present, average=None, sample_weight=weights)
    assert np.allclose(per_class_iou(ours)[present], iou, rtol=0, atol=1e-12)
    assert mean_iou(ours) == pytest.approx(iou.mean(), abs=1e-12)
    assert pixel_accuracy(ours) == pytest.approx(accuracy_score(labels, predictions, sample_weight=weights), abs=1e-12)


def test_without_weights_points_are_counted() -> None:
    labels, predictions, _ = random_points(0, 4)
    matrix = confusion(labels, predictions, None, 4)
    assert matrix.dtype == np.float64
    assert np.array_equal(matrix, confusion_matrix(labels, predictions))


def test_ignored_labels_are_skipped_whatever_was_predicted() -> None:
    labels = np.array([0, IGNORE, 1, IGNORE], np.uint8)
    matrix = confusion(labels, np.array([0, 77, 0, 1]), np.array([1.0, 5.0, 2.0, np.nan]), 2)
    assert matrix.tolist() == [[1, 0], [2, 0]]


@given(st.integers(0, 2**32 - 1), st.integers(1, 6))
@settings(max_examples=40, deadline=None)
def test_per_image_matrices_sum_to_the_whole(seed: int, images: int) -> None:
    labels, predictions, weights = (part.reshape(images, 2, 30) for part in random_points(seed, 5, images * 60))
    each = confusion_per_image(labels, predictions, weights, 5)
    assert each.shape == (images, 5, 5)
    assert np.allclose(each.sum(0), confusion(labels, predictions, weights, 5), rtol=1e-12)
    assert np.allclose(each[0], confusion(labels[0], predictions[0], weights[0], 5), rtol=1e-12)


def test_classes_absent_from_the_truth_are_left_out() -> None:
    matrix = np.array([[6.0, 0, 2], [1, 3, 0], [0, 0, 0]])
    ious = per_class_iou(matrix)
    assert ious[:2].tolist() == pytest.approx([6 / 9, 3 / 4])
    assert np.isnan(ious[2])
    assert mean_iou(matrix) == pytest.approx((6 / 9 + 3 / 4) / 2)


def test_nothing_to_score_is_refused() -> None:
    nothing = np.zeros((3, 3))
    for score in (mean_iou, pixel_accuracy):
        with pytest.raises(DataError, match="at least one point"):
            score(nothing)
    with pytest.raises(DataError, match="at least one point"):
        bootstrap_interval(nothing[None])
    with pytest.raises(DataError, match="at least one point"):
        paired_difference(nothing[None], nothing[None])


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("labels", "predictions", "weights", "message"),
    [
        ([0, 3], [0, 1], [1.0, 1.0], r"labels must be in \[0, 2\], but range from 0 to 3"),
        ([0, 1], [0, -1], [1.0, 1.0], r"predictions must be in \[0, 2\], but range from -1 to 0"),
        ([0, 1], [0], [1.0, 1.0], "one shape"),
        ([0, 1], [0, 1], [1.0], "one shape"),
        ([0, 1], [0, 1], [1.0, -1.0], "weights must be finite"),
        ([0, 1], [0, 1], [1.0, np.nan], "weights must be finite"),
    ],
)
def test_bad_points_are_refused(labels: list[int], predictions: list[int], weights: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        confusion(np.array(labels), np.array(predictions), np.array(weights), 3)


@given(st.permutations(range(4)), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_mean_iou_does_not_depend_on_the_order_of_classes(order: list[int], seed: int) -> None:
    matrix = confusion(*random_points(seed, 4), 4)
    assert mean_iou(matrix[np.ix_(order, order)]) == pytest.approx(mean_iou(matrix), abs=1e-12)


def test_interval_equals_a_naive_bootstrap() -> None:
    matrices = simulated(3, 25, 0.6)
    rng = np.random.default_rng(11)
    naive = [mean_iou(matrices[rng.integers(25, size=25)].sum(0)) for _ in range(400)]
    low, high = bootstrap_interval(matrices, resamples=400, seed=11, level=0.9)
    assert (low, high) == pytest.approx(tuple(np.quantile(naive, [0.05, 0.95])), abs=1e-12)


def test_interval_covers_the_true_score_about_as_often_as_it_says() -> None:
    truth = mean_iou(simulated(0, 200_000, 0.6).sum(0))
    trials = 300
    covered = 0
    for seed in range(trials):
        low, high = bootstrap_interval(simulated(seed + 1, 40, 0.6), resamples=500, seed=seed)
        covered += low <= truth <= high
    assert 0.88 <= covered / trials <= 0.99


def test_interval_holds_the_score_and_is_the_same_again() -> None:
    matrices = simulated(5, 60, 0.5)
    interval = bootstrap_interval(matrices, seed=2)
    assert interval.low < mean_iou(matrices.sum(0)) < interval.high
    assert interval == bootstrap_interval(matrices, seed=2)
    wider = bootstrap_interval(matrices, seed=2, level=0.99)
    assert wider.low < interval.low < interval.high < wider.high


def test_images_in_one_group_are_resampled_together() -> None:
    matrices = simulated(6, 30, 0.5)
    repeated = np.repeat(matrices, 4, axis=0)
    groups = [f"group {number // 4}" for number in range(120)]
    by_group = bootstrap_interval(repeated, groups=groups, seed=1)
    by_image = bootstrap_interval(repeated, seed=1)
    single = bootstrap_interval(matrices, seed=1)
    assert by_group.high - by_group.low == pytest.approx(single.high - single.low, rel=0.15)
    assert by_image.high - by_image.low < 0.65 * (by_group.high - by_group.low)
    with pytest.raises(ValueError, match="one group per image, but got 2 for 120"):
        bootstrap_interval(repeated, groups=["a", "b"])


def test_one_image_gives_an_interval_without_width() -> None:
    matrices = simulated(7, 1, 0.5)
    assert bootstrap_interval(matrices) == pytest.approx((mean_iou(matrices[0]),) * 2)


def test_images_without_points_and_rare_classes_give_finite_intervals() -> None:
    matrices = np.zeros((12, 3, 3))
    matrices[:5, 0, 0] = 4
    matrices[0, 2, 1] = 1  # class 2 is in one image only
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = bootstrap_interval(matrices)
    assert 0 <= low <= high <= 1


def with_rare_classes(seed: int, images: int) -> np.ndarray:
    """Matrices in which classes 1 to 4 are the rarer, and the harder to find, the higher their number."""
    rng = np.random.default_rng(seed)
    matrices = np.zeros((images, 5, 5))
    for matrix in matrices:
        matrix[0, 0] = 400
        for number, (frequency, skill) in enumerate([(0.6, 0.6), (0.4, 0.5), (0.2, 0.3), (0.1, 0.2)], start=1):
            if rng.random() < frequency:
                matrix[number, number] = rng.binomial(30, np.clip(rng.normal(skill, 0.15), 0, 1))
                matrix[number, 0] = 30 - matrix[number, number]
    return matrices


@pytest.mark.parametrize("metric", [MeanIou(), BalancedAccuracy(), MeanOverDataSets([MeanIou()] * 2)])
def test_resamples_that_lack_a_class_do_not_make_the_interval_lean(metric: Metric) -> None:
    below = above = 0.0
    for seed in range(60):
        matrices = with_rare_classes(seed, 12)
        results = metric.pack([matrices, matrices]) if isinstance(metric, MeanOverDataSets) else matrices
        low, high = metric.interval(results, resamples=300, seed=seed)
        below, above = below + metric.value(results) - low, above + high - metric.value(results)
    assert 0.65 < below / above < 1.5


def test_an_interval_with_rare_classes_covers_the_true_score() -> None:
    truth = per_class_iou(with_rare_classes(10_000, 20_000).sum(0))
    covered = 0
    for seed in range(200):
        matrices = with_rare_classes(seed, 20)
        low, high = bootstrap_interval(matrices, resamples=300, seed=seed)
        covered += low <= truth[matrices.sum((0, 2)) > 0].mean() <= high
    assert covered / 200 >= 0.87


def test_paired_difference_is_sharper_than_two_intervals() -> None:
    worse = simulated(8, 80, 0.5)
    better = worse.copy()
    for matrix in better:  # in every image two points of class 0 are put right
        moved = min(2.0, matrix[0, 1])
        matrix[0, 1] -= moved
        matrix[0, 0] += moved
    difference, low, high = paired_difference(better, worse, seed=3)
    assert difference == pytest.approx(mean_iou(better.sum(0)) - mean_iou(worse.sum(0)))
    assert 0 < low < difference < high
    alone = bootstrap_interval(worse, seed=3)
    assert high - low < 0.5 * (alone.high - alone.low)


def test_paired_difference_with_itself_is_zero_and_turns_its_sign() -> None:
    first, second = simulated(9, 30, 0.5), simulated(9, 30, 0.7)
    assert paired_difference(first, first) == (0, 0, 0)
    forth, back = paired_difference(first, second, seed=4), paired_difference(second, first, seed=4)
    assert forth == pytest.approx((-back.difference, -back.high, -back.low), abs=1e-12)


def test_paired_difference_takes_groups() -> None:
    first, second = simulated(9, 30, 0.5), simulated(9, 30, 0.7)
    groups = [str(number // 3) for number in range(30)]
    grouped = paired_difference(first, second, groups=groups)
    alone = paired_difference(first, second)
    assert grouped.difference == alone.difference
    assert grouped[1:] != alone[1:]


def test_methods_scored_on_different_points_are_not_compared() -> None:
    with pytest.raises(ValueError, match="same points"):
        paired_difference(simulated(1, 10, 0.5), simulated(2, 10, 0.5))
    with pytest.raises(ValueError, match="same images"):
        paired_difference(simulated(1, 10, 0.5), simulated(1, 11, 0.5))


@pytest.mark.parametrize(("arguments", "message"), [({"level": 1.0}, "level"), ({"resamples": 0}, "resamples")])
def test_bootstrap_arguments_out_of_range_are_refused(arguments: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=f"{message} must be"):
        bootstrap_interval(simulated(1, 5, 0.5), **arguments)  # type: ignore[arg-type]


def test_a_thousand_images_of_many_classes_are_fast() -> None:
    matrices = np.random.default_rng(0).random((1000, 50, 50))
    begin = time.process_time()
    bootstrap_interval(matrices)
    assert time.process_time() - begin < 5
