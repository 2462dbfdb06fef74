"""Rendered scenes as a data set: the answers to each task."""

from __future__ import annotations

import json

import numpy as np
import pytest

from diffsift.datasets import RenderedScenes, RenderedScenesSpecification, open_dataset
from diffsift.datasets._rendered_scenes import FARTHEST, KEYPOINTS
from diffsift.errors import SpecificationError

TASKS = ("segmentation", "depth", "normals", "classification", "correspondence")
SIZE = 32


def scenes(task: str, **changes) -> RenderedScenes:
    return RenderedScenes(**{"train": 4, "validation": 2, "test": 3, "size": SIZE, "task": task, **changes})


@pytest.mark.parametrize("task", TASKS)
def test_samples_are_what_the_task_says(task: str):
    data = scenes(task)
    sample = data.split("train")[1]
    assert sample.image.shape == (SIZE, SIZE, 3)
    assert sample.image.dtype == np.uint8
    label = sample.label
    expected = {
        "segmentation": ((SIZE, SIZE), np.uint8),
        "depth": ((SIZE, SIZE), np.float32),
        "normals": ((SIZE, SIZE, 3), np.float32),
        "classification": ((), np.int64),
        "correspondence": ((KEYPOINTS, 2), np.float32),
    }
    assert (label.shape, label.dtype) == expected[task]
    assert len(data.class_names) == {"segmentation": 8, "classification": 7}.get(task, 0)


def test_answers_are_in_range():
    for sample in scenes("segmentation").split("train"):
        assert sample.label.max() < 8
    for sample in scenes("depth").split("train"):
        known = sample.label[np.isfinite(sample.label)]
        assert known.size > 0.5 * sample.label.size
        assert known.min() > 0
        assert known.max() <= FARTHEST
    for sample in scenes("normals").split("train"):
        lengths = np.linalg.norm(sample.label, axis=-1)
        np.testing.assert_allclose(lengths[np.isfinite(lengths)], 1, atol=1e-4)
    for sample in scenes("classification").split("train"):
        assert 0 <= sample.label < 7


def test_classification_names_the_nearest_solid():
    labels, depths, answers = (scenes(task).split("train") for task in ("segmentation", "depth", "classification"))
    for label, depth, answer in zip(labels, depths, answers, strict=True):
        solid = label.label > 0
        nearest = np.where(solid, depth.label, np.inf).argmin()
        assert label.label.flat[nearest] - 1 == answer.label


def test_pairs_show_the_same_points():
    data = scenes("correspondence", train=5)
    assert data.pairs("train") == ((0, 1), (2, 3))
    split = data.split("train")
    for source, target in data.pairs("train"):
        first, second = split[source], split[target]
        assert first.group == second.group
        assert not np.array_equal(first.image, second.image)
        assert np.isfinite(first.label).all()  # all are seen in the first view
        visible = np.isfinite(second.label).all(-1)
        assert visible.any()
        assert ((second.label[visible] > 0) & (second.label[visible] < 1)).all()
        for sample in (first, second):
            x0, y0, x1, y1 = sample.box
            assert 0 <= x0 < x1 <= 1
            assert 0 <= y0 < y1 <= 1
    assert len(set(split.groups)) == 3
    assert data.pairs("test") == ((0, 1),)
    assert scenes("depth").pairs("train") == ()


def test_a_scene_does_not_depend_on_the_others():
    few, many = scenes("depth", train=2).split("train"), scenes("depth", train=20).split("train")
    for index in range(2):
        np.testing.assert_array_equal(few[index].image, many[index].image)
        np.testing.assert_array_equal(few[index].label, many[index].label)
    backwards = [sample.image for sample in reversed(many)]
    np.testing.assert_array_equal(backwards[-1], few[0].image)


def test_splits_and_seeds_differ():
    images = [scenes("segmentation").split(name)[0].image for name in ("train", "validation", "test")]
    images.append(scenes("segmentation", seed=1).split("train")[0].image)
    images.append(scenes("segmentation", difficulty="hard").split("train")[0].image)
    assert len({image.tobytes() for image in images}) == len(images)


def test_identity_tells_data_sets_apart():
    changes = [{}, {"train": 5}, {"validation": 0}, {"test": 4}, {"seed": 1}, {"size": 48}, {"difficulty": "easy"}]
    identities = [scenes("depth", **change).identity() for change in changes] + [scenes("normals").identity()]
    assert len({json.dumps(identity, sort_keys=True) for identity in identities}) == len(identities)
    assert scenes("depth").identity() == scenes("depth").identity()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": 0}, r"train of rendered scenes must be in \[1, 1000000\], but got 0"),
        ({"seed": -1}, "seed of rendered scenes must be at least 0, but got -1"),
        ({"size": 300}, r"size of rendered scenes must be in \[16, 256\], but got 300"),
        ({"difficulty": "harder"}, "difficulty of rendered scenes must be one of easy, medium, hard, but got 'harder'"),
        ({"task": "colour"}, "task of rendered scenes must be one of segmentation, depth, normals, classification"),
    ],
)
def test_wrong_arguments_are_named(changes, message):
    with pytest.raises(SpecificationError, match=message):
        RenderedScenes(**changes)


@pytest.mark.parametrize("task", TASKS)
def test_specification_opens_what_it_says(task: str):
    fields = {"train": 2, "validation": 0, "test": 1, "seed": 3, "size": 32, "difficulty": "hard"}
    opened = open_dataset(RenderedScenesSpecification(**fields), task)
    assert opened.identity() == RenderedScenes(**fields, task=task).identity()
    opened.check()


def test_every_second_pair_shows_two_scenes():
    data = scenes("correspondence", train=32)
    split = data.split("train")
    corners = [[split[index].image[-1, -1].astype(int) for index in pair] for pair in data.pairs("train")]
    differences = [np.abs(first - second).sum() for first, second in corners]  # of the ground's colour, about
    assert np.median(differences[1::2]) > 2 * np.median(differences[::2])
    assert all(np.isfinite(split[target].label).all(-1).sum() >= 4 for _, target in data.pairs("train")[1::2])
