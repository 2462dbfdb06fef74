"""From the data's part of the specification to a data set with the answers that a task needs."""

from __future__ import annotations

from diffsift.errors import DataError, SpecificationError

from .datasets import Dataset, DigitScenes, FileSplit, SeedSplit, SegmentationFolder, Split
from .specification import DataSpecification, DigitScenesSpecification


def open_dataset(data: DataSpecification, task: str) -> Dataset:
    """The data set that a specification describes; nothing is read yet.

    Raises:
        SpecificationError: its answers are those of another task.
    """
    dataset: Dataset
    if isinstance(data, DigitScenesSpecification):
        dataset = DigitScenes(data.train, data.validation, data.test, data.seed, detail=data.detail, task=task)
    else:
        split = FileSplit(data.split_file) if data.split_file else SeedSplit(data.fractions, data.seed)
        dataset = SegmentationFolder(
            data.images,
            data.labels,
            data.classes,
            split,
            ignore=data.ignore,
            group_separator=data.group_separator,
            prompts=data.prompts,
        )
    if dataset.task != task:
        raise SpecificationError(
            f"task.kind {task!r} needs data with answers to it, but data.kind {data.kind!r} has those of "
            f"{dataset.task!r}."
        )
    return dataset


def check_splits(dataset: Dataset) -> None:
    """Look at all data, and make sure that there is something to fit on and to test on.

    Raises:
        DataError: a file is not what it should be, or a split is empty.
    """
    dataset.check()
    required: tuple[Split, ...] = ("train", "test")
    for split in required:
        if not len(dataset.split(split)):
            raise DataError(f"the {split} split must hold at least one image, but is empty.")


def searched_on(dataset: Dataset, folds: int) -> str:
    """What trials are scored on, in words."""
    return "the validation split" if len(dataset.split("validation")) else f"{folds}-fold held-out images"
