"""A folder of images for each class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from diffsift.errors import DataError

from ._checks import all_of
from ._files import FileDataset, FileLayout, Item
from ._listing import images_in, is_litter, require_folder, split_by_fractions
from ._names import refuse_unreadable_names
from ._samples import Label, Split

_SPLIT_FOLDERS: dict[Split, tuple[str, ...]] = {
    "train": ("train",),
    "validation": ("val", "validation"),
    "test": ("test",),
}


def class_folders(
    root: Path, fractions: tuple[float, float, float], seed: int, *, allow_absent_classes: bool = False
) -> FileDataset:
    """A folder of images per class, under ``train``, ``val`` (or ``validation``) and ``test``, or under the root.

    With ``train`` and ``val`` alone, as ImageNet is published, ``val`` is the sealed test split. Without any of them
    images are split by `fractions` and `seed`.

    Args:
        root: folder of the data set.
        fractions: shares of train, validation and test; they sum to 1.
        seed: of the split by fractions.
        allow_absent_classes: whether a class may be absent from the training or test split.

    Returns:
        The data set; classes are the folders' names, in alphabetical order.

    Raises:
        DataError: a class's name is not UTF-8; and when the data set is first read: a folder is missing, only one of
            the splits has a folder, or there are fewer than two classes.
    """
    folders = _split_folders(root)
    under = list(folders.values()) or [root]
    names = sorted({entry.name for folder in under if folder.is_dir() for entry in _folders_in(folder)})
    refuse_unreadable_names(names)

    def items_of(folder: Path, prefix: str) -> list[Item]:
        inside = all_of(lambda name: images_in(folder / name) if (folder / name).is_dir() else [], names, str)
        found = dict(zip(names, inside, strict=True))
        return [
            Item(
                f"{prefix}{name}/{image.name}", image, partial(_class_id, number), name, f"{prefix}{name}/{image.name}"
            )
            for number, name in enumerate(names)
            for image in found[name]
        ]

    def find() -> Mapping[Split, Sequence[Item]]:
        require_folder(root)
        if folders and ("train" not in folders or "test" not in folders):
            present = " and ".join(folder.name for folder in folders.values())
            raise DataError(
                f"{root} must hold train and test, or train and val, to be split by folders, but of these holds "
                f"{present} alone: add the other, or give the folder {next(iter(folders.values()))} as root to split "
                "it by fractions."
            )
        if len(names) < 2:
            raise DataError(f"{root} must hold a folder of images for each of at least two classes, but has {names}.")
        if not folders:
            return split_by_fractions(items_of(root, ""), fractions, seed)
        return {split: items_of(folder, f"{split}/") for split, folder in folders.items()}

    def listed() -> list[Path]:
        return [root, *under, *(folder / name for folder in under for name in names if (folder / name).is_dir())]

    layout = FileLayout("class-folders", "classification", find, names, folders=listed)
    return FileDataset(replace(layout, allow_absent_classes=allow_absent_classes))


def _split_folders(root: Path) -> dict[Split, Path]:
    """Folders named as splits that hold folders themselves: a class may be called train, as in Pascal VOC."""
    found: dict[Split, Path] = {}
    for split, names in _SPLIT_FOLDERS.items():
        folder = next((root / name for name in names if (root / name).is_dir()), None)
        if folder is not None and _folders_in(folder):
            found[split] = folder
    if "test" not in found and "train" in found and "validation" in found:
        found["test"] = found.pop("validation")
    return found


def _folders_in(folder: Path) -> list[Path]:
    return [entry for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "." and not is_litter(entry)]


def _class_id(number: int, size: tuple[int, int]) -> Label:
    return np.array(number, np.int64)
