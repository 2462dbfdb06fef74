"""Layouts of published data sets for segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from diffsift.errors import DataError

from ._checks import all_of, class_names_of
from ._files import FileDataset, FileLayout, Item
from ._image_files import read_array, read_mask
from ._listing import pair_by_stem, read_lines, require_file, require_folder
from ._published import ADE_CLASSES, CITYSCAPES_CLASSES, DDPM_SETS, VOC_CLASSES
from ._samples import IGNORE, Label, Split


def voc(root: Path, *, allow_absent_classes: bool = False) -> FileDataset:
    """Pascal VOC: ``JPEGImages``, ``SegmentationClass`` and the lists in ``ImageSets/Segmentation``.

    Args:
        root: folder of the data set.
        allow_absent_classes: whether a class may be absent from the training or test split.

    Returns:
        The data set: the published training images, and the published validation images as the test split.

    Raises:
        DataError: not now, but when the data set is first read: a folder, list, image or mask is missing, or a list is
            empty.
    """

    def find() -> dict[Split, list[Item]]:
        require_folder(root, "JPEGImages")
        found: dict[Split, list[Item]] = {}
        for split, name in _PUBLISHED_SPLITS.items():
            file = root / "ImageSets" / "Segmentation" / f"{name}.txt"
            found[split] = all_of(item, read_lines(file), str)
            if not found[split]:
                raise DataError(f"{file} must name at least one image, but names none.")
        return found

    def item(stem: str) -> Item:
        image = require_file(root / "JPEGImages" / f"{stem}.jpg", f"{stem} in {root}")
        mask = require_file(root / "SegmentationClass" / f"{stem}.png", f"{stem} in {root}")
        return Item(stem, image, partial(_voc_label, mask), mask, stem)

    layout = FileLayout("voc", "segmentation", find, VOC_CLASSES, ignore=IGNORE)
    return FileDataset(replace(layout, allow_absent_classes=allow_absent_classes))


_PUBLISHED_SPLITS: dict[Split, str] = {"train": "train", "test": "val"}
"""The labels of these sets' own test images are not public. So the published training images are what the search looks
at, and the published validation images, on which papers report, are the sealed test split."""


def _voc_label(mask: Path, size: tuple[int, int]) -> Label:
    return read_mask(mask, classes=len(VOC_CLASSES), ignore=IGNORE)


def ade20k(root: Path, *, allow_absent_classes: bool = False) -> FileDataset:
    """ADE20K scene parsing: ``images`` and ``annotations``, each with ``training`` and ``validation``; 0 is ignored.

    Args:
        root: folder of the data set.
        allow_absent_classes: whether a class may be absent from the training or test split.

    Returns:
        The data set: the published training images, and the published validation images as the test split.
    """
    parts: dict[Split, str] = {"train": "training", "test": "validation"}

    def find() -> dict[Split, list[Item]]:
        found: dict[Split, list[Item]] = {}
        for split, name in parts.items():
            masks = require_folder(root, "annotations", name)
            found[split] = [
                Item(f"{name}/{image.stem}", image, partial(_ade_label, mask), mask, image.stem)
                for image, mask in pair_by_stem(require_folder(root, "images", name), masks, (".png",))
            ]
        return found

    def folders() -> list[Path]:
        return [root / kind / name for kind in ("images", "annotations") for name in parts.values()]

    names = [f"class {number + 1}" for number in range(ADE_CLASSES)]
    layout = FileLayout("ade20k", "segmentation", find, names, ignore=0, folders=folders)
    return FileDataset(replace(layout, allow_absent_classes=allow_absent_classes))


def _ade_label(mask: Path, size: tuple[int, int]) -> Label:
    values = read_mask(mask, classes=ADE_CLASSES + 1, ignore=0).astype(np.int32)
    return np.where(values == IGNORE, IGNORE, values - 1).astype(np.uint8)


def cityscapes(root: Path, *, allow_absent_classes: bool = False) -> FileDataset:
    """Cityscapes: ``leftImg8bit`` and ``gtFine``, by split and city; label ids become the 19 training ids.

    Args:
        root: folder of the data set.
        allow_absent_classes: whether a class may be absent from the training or test split.

    Returns:
        The data set: the published training images, and the published validation images as the test split.

    Raises:
        DataError: not now, but when the data set is first read: a folder or file is missing, or there are no images.
    """
    table = np.full(256, IGNORE, np.uint8)
    table[list(CITYSCAPES_CLASSES.values())] = np.arange(len(CITYSCAPES_CLASSES))

    def label(mask: Path, size: tuple[int, int]) -> Label:
        ids: Label = table[read_mask(mask, classes=256, ignore=IGNORE)]
        return ids

    def find() -> dict[Split, list[Item]]:
        return {split: frames(name) for split, name in _PUBLISHED_SPLITS.items()}

    def frames(split: str) -> list[Item]:
        images, masks = require_folder(root, "leftImg8bit", split), require_folder(root, "gtFine", split)

        def item(image: Path) -> Item:
            stem = image.name.removesuffix(_FRAME)
            mask = require_file(masks / image.parent.name / f"{stem}{_LABEL_IDS}", image.name)
            return Item(f"{split}/{stem}", image, partial(label, mask), mask, stem.rpartition("_")[0])

        found = all_of(item, sorted(images.glob(f"*/*{_FRAME}")), lambda image: image.name)
        if not found:
            raise DataError(f"{images} must hold a folder with images *{_FRAME} for each city, but holds none.")

        def image_of(mask: Path) -> Path:
            stem = mask.name.removesuffix(_LABEL_IDS)
            return require_file(images / mask.parent.name / f"{stem}{_FRAME}", mask.name)

        all_of(image_of, sorted(masks.glob(f"*/*{_LABEL_IDS}")), lambda mask: mask.name)
        return found

    def folders() -> list[Path]:  # those of the masks hold other files of each image too, as they are published
        splits = [root / "leftImg8bit" / split for split in _PUBLISHED_SPLITS.values()]
        return [*splits, *(city for split in splits for city in sorted(split.iterdir()) if city.is_dir())]

    layout = FileLayout("cityscapes", "segmentation", find, list(CITYSCAPES_CLASSES), folders=folders)
    return FileDataset(replace(layout, allow_absent_classes=allow_absent_classes))


_FRAME, _LABEL_IDS = "_leftImg8bit.png", "_gtFine_labelIds.png"


def ddpm_segmentation(
    root: Path,
    classes: int | Sequence[str] | None,
    ignore: int,
    *,
    preset: str = "",
    label_size: int | None = None,
    allow_absent_classes: bool = False,
) -> FileDataset:
    """The sets of Baranchuk et al. (ICLR 2022): ``train`` and ``test``, each image with a ``.npy`` of class ids.

    Args:
        root: the set's folder ``real``.
        classes: number or names, by the ids in the files; None takes those of the preset.
        ignore: label that does not count.
        preset: one of `DDPM_SETS`, whose published numbers of images are compared with; empty: none.
        label_size: edge of the square that labels are brought to, by the nearest pixel; None: as large as their images.
        allow_absent_classes: whether a class may be absent from the training or test split.

    Returns:
        The data set.

    Raises:
        ValueError: neither classes nor a preset is given.
    """
    known = DDPM_SETS.get(preset)
    if classes is None:
        if known is None:
            raise ValueError("ddpm_segmentation needs classes or a preset.")
        classes = known.classes
    names = class_names_of(classes)

    def find() -> dict[Split, list[Item]]:
        found: dict[Split, list[Item]] = {}
        splits: tuple[Split, ...] = ("train", "test")
        for split in splits:
            folder = require_folder(root, split)
            found[split] = []
            for image, labels in pair_by_stem(folder, folder, (".npy",)):
                read, name = partial(_label_array, labels, len(names), ignore, label_size), f"{split}/{image.stem}"
                size = None if label_size is None else (label_size, label_size)
                found[split].append(Item(name, image, read, labels, name, label_size=size))
        return found

    return FileDataset(
        FileLayout(
            "ddpm-segmentation",
            "segmentation",
            find,
            names,
            settings={"ignore": ignore, "label_size": label_size},
            ignore=ignore,
            ignored_class=ignore,
            folders=lambda: (root / "train", root / "test"),
            allow_absent_classes=allow_absent_classes,
            published=(preset, known.images) if known else None,
        )
    )


def _label_array(file: Path, classes: int, ignore: int, label_size: int | None, size: tuple[int, int]) -> Label:
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
