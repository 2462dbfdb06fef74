"""From the data's part of the specification to a data set with the answers that a task needs."""

from __future__ import annotations

from diffsift.errors import DataError, SpecificationError

from ._base import Dataset, Split
from ._class_folders import class_folders
from ._depth_folder import depth_folder
from ._digit_scenes import DigitScenes
from ._folder import SegmentationFolder
from ._layouts import ade20k, cityscapes, ddpm_segmentation, voc
from ._list import listed
from ._spair import spair
from ._splits import FileSplit, SeedSplit
from .specification import (
    AdeSpecification,
    CityscapesSpecification,
    ClassFoldersSpecification,
    DataSpecification,
    DdpmSegmentationSpecification,
    DepthFolderSpecification,
    DigitScenesSpecification,
    FolderSpecification,
    LayoutSpecification,
    ListSpecification,
    PythonSpecification,
    SpairSpecification,
    VocSpecification,
)


def open_dataset(data: DataSpecification, task: str) -> Dataset:
    """The data set that a specification describes; nothing is read yet.

    Raises:
        SpecificationError: its answers are those of another task.
    """
    dataset: Dataset
    if isinstance(data, DigitScenesSpecification):
        dataset = DigitScenes(data.train, data.validation, data.test, data.seed, detail=data.detail, task=task)
    elif isinstance(data, FolderSpecification):
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
    else:
        dataset = _in_layout(data)
    if dataset.task != task:
        raise SpecificationError(
            f"task.kind {task!r} needs data with answers to it, but data.kind {data.kind!r} has those of "
            f"{dataset.task!r}."
        )
    return dataset


def _in_layout(data: LayoutSpecification) -> Dataset:
    """A data set in the layout in which it is published."""
    match data:
        case VocSpecification():
            return voc(data.root)
        case AdeSpecification():
            return ade20k(data.root)
        case CityscapesSpecification():
            return cityscapes(data.root)
        case DdpmSegmentationSpecification():
            return ddpm_segmentation(
                data.root, data.classes, data.ignored, preset=data.preset or "", label_size=data.label_edge
            )
        case DepthFolderSpecification():
            return depth_folder(data.root, data.fractions, data.seed, data.png_unit)
        case ClassFoldersSpecification():
            return class_folders(data.root, data.fractions, data.seed)
        case SpairSpecification():
            return spair(data.root, data.size, data.category, category_prompt=data.category_prompt)
        case ListSpecification():
            return listed(data.file, data.answers, data.classes, data.ignore, data.png_unit)

        case PythonSpecification():
            if data.dataset is None:
                raise SpecificationError(
                    "data.kind python needs the data set itself: call diffsift.select or diffsift.resume from Python "
                    "with dataset=..."
                )
            dataset: Dataset = data.dataset
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
    if len(dataset.split("validation")):
        return "the validation split"
    return f"{folds}-fold held-out images of the training split"
