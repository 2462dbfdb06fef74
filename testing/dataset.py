"""What every data set must do."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import pytest

from diffsift.common.reporting import NullReporter
from diffsift.datasets import IGNORE, MAX_CLASSES, SPLITS, Dataset, Sample, Split
from diffsift.errors import DataError

_TASKS = ("segmentation", "depth", "normals", "classification", "correspondence")


class DatasetContract(ABC):
    """The contract of `Dataset`: subclass it in your tests as ``class TestMine(DatasetContract)``.

    Each test calls `make` with a folder of its own, makes what it needs there, and looks at the result. `changed` and
    `damaged` are optional: where they give None, the tests that need them are skipped.

    Examples:
        .. code-block:: python

            class TestShapes(DatasetContract):
                def make(self, folder: Path) -> Dataset:
                    return Shapes(count=12)
    """

    @abstractmethod
    def make(self, folder: Path) -> Dataset:
        """Make a small data set that is as it should be.

        Args:
            folder: an empty folder, where files can be written; called again with the same folder, the method finds
                what it wrote.

        Returns:
            A new object, of the same content each time, with a training and a test split.
        """

    def changed(self, folder: Path) -> Dataset | None:
        """Make the same data set with another image or label; None where that cannot be made.

        Args:
            folder: the folder that `make` was called with before.

        Returns:
            The other data set; its identity must differ.
        """
        return None

    def damaged(self, folder: Path) -> Dataset | None:
        """Make a data set that `check` must refuse with a `DataError`; None where that cannot be made.

        Args:
            folder: an empty folder.

        Returns:
            The data set, not checked.
        """
        return None

    @pytest.fixture
    def dataset(self, tmp_path: Path) -> Dataset:
        """A data set that was checked."""
        dataset = self.make(tmp_path)
        dataset.check()
        return dataset

    def test_attributes_are_what_the_task_needs(self, tmp_path: Path) -> None:
        dataset = self.make(tmp_path)
        assert isinstance(dataset, Dataset)
        assert dataset.task in _TASKS
        assert len(set(dataset.class_names)) == len(dataset.class_names) <= MAX_CLASSES
        assert bool(dataset.class_names) == (dataset.task in ("segmentation", "classification"))
        assert all(isinstance(line, str) for line in dataset.credits)

    def test_there_is_something_to_fit_on_and_to_test_on(self, dataset: Dataset) -> None:
        assert len(dataset.split("train"))
        assert len(dataset.split("test"))

    def test_names_and_groups_are_in_one_split(self, dataset: Dataset) -> None:
        names: dict[str, Split] = {}
        groups: dict[str, Split] = {}
        for split in SPLITS:
            for sample in _all(dataset, split):
                assert sample.name not in names, "two samples have the same name"
                names[sample.name] = split
                assert groups.setdefault(sample.group, split) == split, "a group is in two splits"

    def test_samples_are_what_the_task_says(self, dataset: Dataset) -> None:
        for split in SPLITS:
            for sample in _all(dataset, split):
                _check_sample(sample, dataset)

    def test_samples_are_the_same_each_time(self, dataset: Dataset) -> None:
        for split in SPLITS:
            for first, again in zip(_all(dataset, split), _all(dataset, split), strict=True):
                assert (first.name, first.group, first.prompt, first.box) == (
                    again.name,
                    again.group,
                    again.prompt,
                    again.box,
                )
                assert np.array_equal(first.image, again.image)
                assert np.array_equal(first.label, again.label, equal_nan=first.label.dtype.kind == "f")

    def test_prompts_are_for_all_images_or_none(self, dataset: Dataset) -> None:
        prompts = [sample.prompt is not None for split in SPLITS for sample in _all(dataset, split)]
        assert set(prompts) == {dataset.has_prompts}

    def test_pairs_are_of_different_images_of_a_split(self, dataset: Dataset) -> None:
        for split in SPLITS:
            pairs, count = dataset.pairs(split), len(dataset.split(split))
            assert all(0 <= source < count and 0 <= target < count and source != target for source, target in pairs)
            if dataset.task != "correspondence":
                assert not pairs
        if dataset.task == "correspondence":
            assert dataset.pairs("validation") or dataset.pairs("train")

    def test_other_names_of_splits_are_refused(self, dataset: Dataset) -> None:
        with pytest.raises((ValueError, KeyError, TypeError)):
            dataset.split("val")  # type: ignore[arg-type]
        with pytest.raises((ValueError, KeyError, TypeError)):
            dataset.pairs("val")  # type: ignore[arg-type]

    def test_identity_is_json_and_the_same_before_and_after_a_check(self, tmp_path: Path) -> None:
        first, second = self.make(tmp_path), self.make(tmp_path)
        second.check(NullReporter())
        assert first.identity() == second.identity() == second.identity()
        assert json.loads(json.dumps(first.identity())) == first.identity()

    def test_identity_changes_with_the_content(self, tmp_path: Path) -> None:
        before = self.make(tmp_path).identity()
        other = self.changed(tmp_path)
        if other is None:
            pytest.skip("no other content")
        assert other.identity() != before

    def test_check_refuses_damage(self, tmp_path: Path) -> None:
        dataset = self.damaged(tmp_path)
        if dataset is None:
            pytest.skip("no damage")
        with pytest.raises(DataError) as caught:
            dataset.check()
        assert "\n" not in str(caught.value), "a message is one line"

    def test_the_summary_counts_all_images(self, dataset: Dataset) -> None:
        found = {split.name: split.images for split in dataset.summary().splits}
        assert found == {split: len(dataset.split(split)) for split in SPLITS if len(dataset.split(split))}

    def test_notes_are_words(self, dataset: Dataset) -> None:
        assert all(note.strip() for note in dataset.notes())


def _all(dataset: Dataset, split: Split) -> list[Sample]:
    samples = dataset.split(split)
    return [samples[index] for index in range(len(samples))]


def _check_sample(sample: Sample, dataset: Dataset) -> None:
    image, label, classes = sample.image, sample.label, len(dataset.class_names)
    assert image.dtype == np.uint8
    assert image.ndim == 3
    assert image.shape[2] == 3
    assert sample.box is None or (
        0 <= sample.box[0] < sample.box[2] <= 1 and 0 <= sample.box[1] < sample.box[3] <= 1
    ), "a box is (x0, y0, x1, y1) in [0, 1]"
    if dataset.task == "segmentation":
        assert (label.dtype, label.ndim) == (np.dtype(np.uint8), 2)
        counted = label[label != IGNORE]
        assert counted.size
        assert counted.max() < classes
    elif dataset.task == "depth":
        assert (label.dtype, label.ndim) == (np.dtype(np.float32), 2)
        known = label[~np.isnan(label)]
        assert known.size
        assert np.isfinite(known).all()
        assert known.min() > 0
    elif dataset.task == "normals":
        assert (label.dtype, label.shape) == (np.dtype(np.float32), image.shape)
        lengths = np.linalg.norm(label, axis=2)
        assert np.isfinite(lengths).any()
        assert np.abs(lengths[np.isfinite(lengths)] - 1).max() < 1e-3
    elif dataset.task == "classification":
        assert (label.dtype, label.ndim) == (np.dtype(np.int64), 0)
        assert 0 <= int(label) < classes
    else:
        assert (label.dtype, label.shape[1:]) == (np.dtype(np.float32), (2,))
        visible = label[~np.isnan(label).any(1)]
        assert ((visible >= 0) & (visible <= 1)).all()
