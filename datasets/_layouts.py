"""Layouts of published data sets for segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffsift.errors import DataError

from ._base import IGNORE, Split
from ._files import FileDataset, Item, existing, folder_of, lines_of, paired
from ._image_files import read_array, read_mask

VOC_CLASSES = [
    "background",
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
]

CITYSCAPES_CLASSES = {  # name: label id, in the order of the training ids
    "road": 7,
    "sidewalk": 8,
    "building": 11,
    "wall": 12,
    "fence": 13,
    "pole": 17,
    "traffic light": 19,
    "traffic sign": 20,
    "vegetation": 21,
    "terrain": 22,
    "sky": 23,
    "person": 24,
    "rider": 25,
    "car": 26,
    "truck": 27,
    "bus": 28,
    "train": 31,
    "motorcycle": 32,
    "bicycle": 33,
}

_ADE_CLASSES = 150


@dataclass(frozen=True)
class DdpmSet:
    """Constants of one of the sets of Baranchuk et al. (ICLR 2022).

    Attributes:
        classes: ids in the label files, from 0; the ignored one counts as well.
        ignore: label that does not count.
        images: of the published protocol, by split.
        label_size: edge to which the protocol brings labels (and features).
    """

    classes: int
    ignore: int
    images: Mapping[Split, int]
    label_size: int = 256


DDPM_SETS = {
    "horse-21": DdpmSet(21, 255, {"train": 30, "test": 30}),
    "cat-15": DdpmSet(15, 255, {"train": 30, "test": 20}),
    "bedroom-28": DdpmSet(29, 0, {"train": 40, "test": 20}),  # 28 classes count: id 0 is the background
    "ffhq-34": DdpmSet(34, 255, {"train": 20, "test": 20}),
    "celeba-19": DdpmSet(19, 255, {"train": 20, "test": 500}),
    "ade-bedroom-30": DdpmSet(30, 255, {"train": 50, "test": 650}),
}


def voc(root: Path) -> FileDataset:
    """Pascal VOC: ``JPEGImages``, ``SegmentationClass`` and the lists in ``ImageSets/Segmentation``."""

    def find() -> dict[Split, list[Item]]:
        folder_of(root, "JPEGImages")
        found: dict[Split, list[Item]] = {}
        for split, name in _PUBLISHED_SPLITS.items():
            file = root / "ImageSets" / "Segmentation" / f"{name}.txt"
            found[split] = [item(stem) for stem in lines_of(file)]
            if not found[split]:
                raise DataError(f"{file} must name at least one image, but names none.")
        return found

    def item(stem: str) -> Item:
        image = existing(root / "JPEGImages" / f"{stem}.jpg", f"{stem} in {root}")
        mask = existing(root / "SegmentationClass" / f"{stem}.png", f"{stem} in {root}")
        return Item(stem, image, partial(_voc_label, mask), mask, stem)

    return FileDataset("segmentation", "voc", find, VOC_CLASSES)


_PUBLISHED_SPLITS: dict[Split, str] = {"train": "train", "test": "val"}
"""The labels of these sets' own test images are not public. So the published training images are what the search looks
at, and the published validation images, on which papers report, are the sealed test split."""


def _voc_label(mask: Path, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    return read_mask(mask, classes=len(VOC_CLASSES), ignore=IGNORE)


def ade20k(root: Path) -> FileDataset:
    """ADE20K scene parsing: ``images`` and ``annotations``, each with ``training`` and ``validation``; 0 is ignored."""

    def find() -> dict[Split, list[Item]]:
        found: dict[Split, list[Item]] = {}
        folders: dict[Split, str] = {"train": "training", "test": "validation"}
        for split, name in folders.items():
            masks = folder_of(root, "annotations", name)
            found[split] = [
                Item(f"{name}/{image.stem}", image, partial(_ade_label, mask), mask, image.stem)
                for image, mask in paired(folder_of(root, "images", name), masks, (".png",))
            ]
        return found

    return FileDataset("segmentation", "ade20k", find, [f"class {number + 1}" for number in range(_ADE_CLASSES)])


def _ade_label(mask: Path, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    values = read_mask(mask, classes=_ADE_CLASSES + 1, ignore=0).astype(np.int32)
    return np.where(values == IGNORE, IGNORE, values - 1).astype(np.uint8)


def cityscapes(root: Path) -> FileDataset:
    """Cityscapes: ``leftImg8bit`` and ``gtFine``, by split and city; label ids become the 19 training ids."""
    table = np.full(256, IGNORE, np.uint8)
    table[list(CITYSCAPES_CLASSES.values())] = np.arange(len(CITYSCAPES_CLASSES))

    def label(mask: Path, size: tuple[int, int]) -> np.ndarray[Any, Any]:
        ids: np.ndarray[Any, Any] = table[read_mask(mask, classes=256, ignore=IGNORE)]
        return ids

    def find() -> dict[Split, list[Item]]:
        return {split: frames(name) for split, name in _PUBLISHED_SPLITS.items()}

    def frames(split: str) -> list[Item]:
        images, masks = folder_of(root, "leftImg8bit", split), folder_of(root, "gtFine", split)
        found = []
        for image in sorted(images.glob(f"*/*{_FRAME}")):
            stem = image.name.removesuffix(_FRAME)
            mask = existing(masks / image.parent.name / f"{stem}{_LABEL_IDS}", image.name)
            found.append(Item(f"{split}/{stem}", image, partial(label, mask), mask, stem.rpartition("_")[0]))
        if not found:
            raise DataError(f"{images} must hold a folder with images *{_FRAME} for each city, but holds none.")
        for mask in sorted(masks.glob(f"*/*{_LABEL_IDS}")):
            image = images / mask.parent.name / f"{mask.name.removesuffix(_LABEL_IDS)}{_FRAME}"
            existing(image, mask.name)
        return found

    return FileDataset("segmentation", "cityscapes", find, list(CITYSCAPES_CLASSES))


_FRAME, _LABEL_IDS = "_leftImg8bit.png", "_gtFine_labelIds.png"


def ddpm_segmentation(
    root: Path,
    classes: int | Sequence[str] | None,
    ignore: int,
    *,
    preset: str = "",
    label_size: int | None = None,
) -> FileDataset:
    """The sets of Baranchuk et al. (ICLR 2022): ``train`` and ``test``, each image with a ``.npy`` of class ids.

    Args:
        root: the set's folder ``real``.
        classes: number or names, by the ids in the files; None takes those of the preset.
        ignore: label that does not count.
        preset: one of `DDPM_SETS`, whose published numbers of images are compared with; empty: none.
        label_size: edge of the square that labels are brought to, by the nearest pixel; None: as large as their images.
    """
    known = DDPM_SETS.get(preset)
    if classes is None:
        if known is None:
            raise ValueError("ddpm_segmentation needs classes or a preset.")
        classes = known.classes
    names = [f"class {number}" for number in range(classes)] if isinstance(classes, int) else list(classes)

    def find() -> dict[Split, list[Item]]:
        found: dict[Split, list[Item]] = {}
        splits: tuple[Split, ...] = ("train", "test")
        for split in splits:
            folder = folder_of(root, split)
            found[split] = []
            for image, labels in paired(folder, folder, (".npy",)):
                read, name = partial(_label_array, labels, len(names), ignore, label_size), f"{split}/{image.stem}"
                size = None if label_size is None else (label_size, label_size)
                found[split].append(Item(name, image, read, labels, name, label_size=size))
        return found

    return FileDataset(
        "segmentation",
        "ddpm-segmentation",
        find,
        names,
        settings={"ignore": ignore, "label_size": label_size},
        expected=(preset, known.images) if known else None,
    )


def _label_array(
    file: Path, classes: int, ignore: int, label_size: int | None, size: tuple[int, int]
) -> np.ndarray[Any, Any]:
    values = read_array(file)
    if label_size is not None:
        if size[0] != size[1] or values.shape[0] != values.shape[1]:
            raise DataError(
                f"{file} and its image must be square to be brought to {label_size} x {label_size} px, but are "
                f"{values.shape[1]} x {values.shape[0]} and {size[1]} x {size[0]} px."
            )
        # The pixel that OpenCV's nearest neighbour takes, as in the published protocol.
        nearest = np.arange(label_size) * values.shape[0] // label_size
        values = values[nearest[:, None], nearest]
    whole = np.nan_to_num(values, nan=-1, posinf=-1, neginf=-1).astype(np.int64)
    wrong = ((whole != ignore) & ((whole < 0) | (whole >= classes))) | (whole != values)
    if wrong.any():
        raise DataError(
            f"{file} must hold class ids from 0 to {classes - 1} or {ignore} (ignored), but holds "
            f"{np.unique(values[wrong])[:5].tolist()} in {int(wrong.sum())} pixels."
        )
    return np.where(whole == ignore, IGNORE, whole).astype(np.uint8)
