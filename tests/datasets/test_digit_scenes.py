"""The built-in data set: splits, determinism, disjoint sources, identity, speed."""

from __future__ import annotations

import time

import numpy as np
import pytest

from diffsift.datasets import CLASS_NAMES, Dataset, DigitScenes, SceneGenerator
from diffsift.errors import SpecificationError


def test_is_a_segmentation_dataset_with_credits() -> None:
    data = DigitScenes(train=1, test=1)
    assert isinstance(data, Dataset)
    assert data.class_names == CLASS_NAMES
    assert len(CLASS_NAMES) == 11
    assert all("CC BY 2.0" in credit for credit in data.credits)


def test_samples_are_images_with_labels_of_the_same_size() -> None:
    data = DigitScenes(train=5, validation=4, test=3, size=40)
    for name, count in (("train", 5), ("validation", 4), ("test", 3)):
        samples = data.split(name)
        assert len(samples) == len(list(samples)) == count
        for sample in samples:
            assert sample.image.shape == (40, 40, 3)
            assert sample.image.dtype == sample.label.dtype == np.uint8
            assert sample.label.shape == (40, 40)
            assert 1 <= len(set(np.unique(sample.label)) - {0}) <= 2
            assert sample.group == sample.name


def test_names_are_unique_over_splits() -> None:
    data = DigitScenes(train=5, validation=4, test=3)
    names = [sample.name for name in ("train", "validation", "test") for sample in data.split(name)]
    assert len(set(names)) == 12


def test_a_scene_depends_only_on_seed_split_and_number() -> None:
    few, many = DigitScenes(train=3, test=1, seed=4), DigitScenes(train=90, test=7, seed=4)
    for first, second in zip(few.split("train"), many.split("train")[:3], strict=True):
        assert first.name == second.name
        assert np.array_equal(first.image, second.image)
        assert np.array_equal(first.label, second.label)
    other_seed = DigitScenes(train=3, test=1, seed=5).split("train")[0]
    assert not np.array_equal(other_seed.image, few.split("train")[0].image)
    assert not np.array_equal(few.split("test")[0].image, few.split("train")[0].image)


def test_scenes_are_those_of_the_generator() -> None:
    scene = SceneGenerator("validation", 9).scene(2)
    sample = DigitScenes(seed=9).split("validation")[2]
    assert np.array_equal(sample.image, scene.image)
    assert np.array_equal(sample.label, scene.label)


def test_slices_and_negative_indices() -> None:
    samples = DigitScenes(train=6, test=1).split("train")
    assert samples[-1].name == samples[5].name
    assert [sample.name for sample in samples[4:]] == [samples[4].name, samples[5].name]
    assert samples[1::2].groups == samples[1::2].names
    with pytest.raises(IndexError):
        samples[6]


def test_no_validation_split() -> None:
    data = DigitScenes(train=2, validation=0, test=2)
    assert len(data.split("validation")) == 0
    data.check()


@pytest.mark.unchecked
def test_unknown_split_is_refused() -> None:
    with pytest.raises(ValueError, match="one of train, validation, test, but got 'val'"):
        DigitScenes().split("val")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "change", [{"train": 3}, {"validation": 3}, {"test": 3}, {"seed": 1}, {"size": 33}, {"detail": 4}]
)
def test_identity_changes_with_every_argument(change: dict[str, int]) -> None:
    assert DigitScenes().identity() == DigitScenes().identity()
    assert DigitScenes(**change).identity() != DigitScenes().identity()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train": 0}, "train of digit scenes must be at least 1, but got 0"),
        ({"validation": -1}, "validation .* at least 0"),
        ({"test": 0}, "test .* at least 1"),
        ({"seed": -1}, "seed .* at least 0"),
        ({"size": 16}, "size .* at least 32, but got 16"),
        ({"detail": 33}, "detail .* at most size"),
        ({"detail": 1}, "detail .* at least 2"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        DigitScenes(**arguments)


def test_scenes_are_drawn_fast_enough_to_be_drawn_on_the_fly() -> None:
    samples = DigitScenes(train=300, test=1).split("train")
    samples[0]  # reads the sources
    begin = time.process_time()
    for sample in samples:
        assert sample.label.size
    # About 1,000 a second on one idle core; the bound leaves room for a busy machine.
    assert time.process_time() - begin < 3.0
