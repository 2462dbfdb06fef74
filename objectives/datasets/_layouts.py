"""Layouts of published data sets for segmentation, depth and classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from diffsift.errors import DataError

from ._base import IGNORE, Split
from ._files import FileDataset, Item, existing, folder_of, lines_of
from ._folder import IMAGE_SUFFIXES
from ._image_files import decoded, read_mask
from ._splits import SeedSplit

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
_MILLIMETRES = 0.001


def voc(root: Path) -> FileDataset:
    """Pascal VOC: ``JPEGImages``, ``SegmentationClass`` and the lists in ``ImageSets/Segmentation``."""

    def find() -> dict[Split, list[Item]]:
        folder_of(root, "JPEGImages")
        found: dict[Split, list[Item]] = {}
        for split, name in _OPEN_SPLITS.items():
            stems = lines_of(root / "ImageSets" / "Segmentation" / f"{name}.txt")
            found[split] = [item(stem) for stem in stems]
        return found

    def item(stem: str) -> Item:
        image = existing(root / "JPEGImages" / f"{stem}.jpg", f"{stem} in {root}")
        mask = existing(root / "SegmentationClass" / f"{stem}.png", f"{stem} in {root}")
        return Item(stem, image, partial(_voc_label, mask), mask, stem)

    return FileDataset("segmentation", "voc", find, VOC_CLASSES)


_OPEN_SPLITS: dict[Split, str] = {"train": "train", "test": "val"}
"""Labels of these sets' own test images are not public: their validation images are the test split."""


def _voc_label(mask: Path, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    return read_mask(mask, classes=len(VOC_CLASSES), ignore=IGNORE)


def ade20k(root: Path) -> FileDataset:
    """ADE20K scene parsing: ``images`` and ``annotations``, each with ``training`` and ``validation``; 0 is ignored."""

    def find() -> dict[Split, list[Item]]:
        found: dict[Split, list[Item]] = {}
        folders: dict[Split, str] = {"train": "training", "test": "validation"}
        for split, name in folders.items():
            masks = folder_of(root, "annotations", name)
            found[split] = []
            for image in _images(folder_of(root, "images", name)):
                mask = existing(masks / f"{image.stem}.png", image.name)
                item = Item(f"{name}/{image.stem}", image, partial(_ade_label, mask), mask, image.stem)
                found[split].append(item)
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
        found: dict[Split, list[Item]] = {}
        for split, name in _OPEN_SPLITS.items():
            found[split] = []
            for image in sorted(folder_of(root, "leftImg8bit", name).glob("*/*_leftImg8bit.png")):
                stem = image.name.removesuffix("_leftImg8bit.png")
                mask = root / "gtFine" / name / image.parent.name / f"{stem}_gtFine_labelIds.png"
                existing(mask, image.name)
                sequence = stem.rpartition("_")[0]
                found[split].append(Item(f"{name}/{stem}", image, partial(label, mask), mask, sequence))
        return found

    return FileDataset("segmentation", "cityscapes", find, list(CITYSCAPES_CLASSES))


def ddpm_segmentation(root: Path, classes: int | Sequence[str], ignore: int) -> FileDataset:
    """The sets of Baranchuk et al. (ICLR 2022): ``train`` and ``test``, each image with a ``.npy`` of class ids."""
    names = [f"class {number}" for number in range(classes)] if isinstance(classes, int) else list(classes)

    def find() -> dict[Split, list[Item]]:
        found: dict[Split, list[Item]] = {}
        splits: tuple[Split, ...] = ("train", "test")
        for split in splits:
            items = []
            for image in _images(folder_of(root, split)):
                labels = existing(image.with_suffix(".npy"), image.name)
                read = partial(_label_array, labels, len(names), ignore)
                items.append(Item(f"{split}/{image.stem}", image, read, labels, f"{split}/{image.stem}"))
            found[split] = items
        return found

    return FileDataset("segmentation", "ddpm-segmentation", find, names, ignore=ignore)


def _label_array(file: Path, classes: int, ignore: int, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    values = read_array(file)
    whole = values.astype(np.int64)
    wrong = ((whole != ignore) & ((whole < 0) | (whole >= classes))) | (whole != values)
    if wrong.any():
        raise DataError(
            f"{file} must hold class ids from 0 to {classes - 1} or {ignore} (ignored), but holds "
            f"{np.unique(values[wrong])[:5].tolist()} in {int(wrong.sum())} pixels."
        )
    return np.where(whole == ignore, IGNORE, whole).astype(np.uint8)


def depth_folder(root: Path, fractions: tuple[float, float, float], seed: int) -> FileDataset:
    """Images in ``images``; in ``depth`` 16-bit PNGs in millimetres or ``.npy`` in metres, of the same stems."""

    def find() -> Mapping[Split, Sequence[Item]]:
        depths = folder_of(root, "depth")
        items = []
        for image in _images(folder_of(root, "images")):
            files = [depths / f"{image.stem}{suffix}" for suffix in (".png", ".npy")]
            file = next((file for file in files if file.is_file()), None)
            if file is None:
                raise DataError(
                    f"{image.name} must have {files[0].name} or {files[1].name} in {depths}, but has neither."
                )
            items.append(Item(image.stem, image, partial(read_depth, file), file, image.stem))
        return divided(items, fractions, seed)

    return FileDataset("depth", "depth-folder", find)


def read_depth(file: Path, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Depth in metres, not a number where it is unknown (0, negative or not finite)."""
    if file.suffix == ".npy":
        values = read_array(file).astype(np.float32)
    else:
        with decoded(file, "depth") as picture:
            if picture.mode not in ("I", "I;16", "I;16B", "L"):
                raise DataError(
                    f"{file} must be a grayscale PNG of millimetres, but is of Pillow's mode {picture.mode!r}."
                )
            values = np.asarray(picture).astype(np.float32) * np.float32(_MILLIMETRES)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan).astype(np.float32)


def class_folders(root: Path, fractions: tuple[float, float, float], seed: int) -> FileDataset:
    """A folder of images per class, under ``train``, ``val`` (or ``validation``) and ``test``, or under the root."""
    splits: dict[Split, tuple[str, ...]] = {
        "train": ("train",),
        "validation": ("val", "validation"),
        "test": ("test",),
    }
    folders = {
        split: next((root / name for name in names if (root / name).is_dir()), None) for split, names in splits.items()
    }
    divided_already = folders["train"] is not None and folders["test"] is not None
    under = [folder for folder in folders.values() if folder is not None] if divided_already else [root]
    names = sorted({entry.name for folder in under if folder.is_dir() for entry in folder.iterdir() if entry.is_dir()})

    def items_of(folder: Path, prefix: str) -> list[Item]:
        return [
            Item(
                f"{prefix}{name}/{image.name}", image, partial(_class_id, number), name, f"{prefix}{name}/{image.name}"
            )
            for number, name in enumerate(names)
            if (folder / name).is_dir()
            for image in _images(folder / name)
        ]

    def find() -> Mapping[Split, Sequence[Item]]:
        folder_of(root)
        if len(names) < 2:
            raise DataError(f"{root} must hold a folder of images for each of at least two classes, but has {names}.")
        if not divided_already:
            return divided(items_of(root, ""), fractions, seed)
        return {split: items_of(folder, f"{split}/") for split, folder in folders.items() if folder is not None}

    return FileDataset("classification", "class-folders", find, names)


def _class_id(number: int, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    return np.array(number, np.int64)


def divided(items: Sequence[Item], fractions: tuple[float, float, float], seed: int) -> dict[Split, list[Item]]:
    """Items split at random by seed, whole groups at a time."""
    by_name = {item.name: item for item in items}
    assigned = SeedSplit(fractions, seed).assign(by_name.keys(), lambda name: by_name[name].group)
    return {split: [by_name[name] for name in names] for split, names in assigned.items()}


def read_array(file: Path) -> np.ndarray[Any, Any]:
    """A ``.npy`` file as a matrix; pickled objects are refused, since loading them can run code."""
    try:
        values = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read as an array of numbers: {error}.") from error
    if not isinstance(values, np.ndarray) or values.ndim != 2 or values.dtype.kind not in "iufb":
        raise DataError(f"{file} must hold a matrix of numbers, but holds {getattr(values, 'shape', type(values))}.")
    return values


def _images(folder: Path) -> list[Path]:
    found = sorted(
        file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    )
    if not found:
        raise DataError(f"{folder} must hold images ({', '.join(IMAGE_SUFFIXES)}), but holds none.")
    return found
