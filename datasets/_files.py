"""A data set whose images and answers are files, whatever the layout of folders they lie in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, TypeVar, get_args

import numpy as np

from diffsift.errors import DataError

from ._base import IGNORE, MAX_CLASSES, Dataset, Sample, Samples, Split, check_split_name
from ._image_files import read_image
from ._progress import with_progress
from ._splits import SeedSplit

Label = np.ndarray[Any, Any]
Result = TypeVar("Result")

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
_SHOWN = 3  # files listed in a message
_THREADS = 4  # Pillow decodes and hashlib hashes outside the interpreter lock


@dataclass(frozen=True)
class Item:
    """One sample on disk.

    Attributes:
        name: unique within the data set.
        image: its file.
        read: gives the label for an image of some (height, width); raises `DataError`.
        answer: what the identity holds of the label: its file, or a text that says it all (a class's name).
        group: samples of one group never fall in different folds.
        prompt: see `Sample`.
        box: see `Sample`.
        label_size: (height, width) of a label per pixel; None: that of the image.
    """

    name: str
    image: Path
    read: Callable[[tuple[int, int]], Label]
    answer: Path | str
    group: str
    prompt: str | None = None
    box: tuple[float, float, float, float] | None = None
    label_size: tuple[int, int] | None = None


class FileDataset(Dataset):
    """Items by split, read when they are asked for.

    Args:
        task: what the labels are.
        layout: name of the layout, for the identity.
        find: lists the items of each split; called once, and raises `DataError` for what is missing.
        class_names: by class id; none for depth and correspondence.
        pairs: for correspondence, names of the items to match in each split.
        settings: what the labels depend on besides the files' content; part of the identity.
        expected: images of each split in the published protocol, by its name; what differs is noted.
    """

    def __init__(
        self,
        task: str,
        layout: str,
        find: Callable[[], Mapping[Split, Sequence[Item]]],
        class_names: Sequence[str] = (),
        pairs: Callable[[], Mapping[Split, Sequence[tuple[str, str]]]] | None = None,
        settings: Mapping[str, Any] | None = None,
        expected: tuple[str, Mapping[Split, int]] | None = None,
    ) -> None:
        self.task, self.class_names = task, tuple(class_names)
        self._layout, self._find, self._find_pairs = layout, find, pairs
        self._settings, self._expected = dict(settings or {}), expected
        self._unknown: dict[Split, tuple[int, int]] = {}

    @cached_property
    def _items(self) -> dict[Split, dict[str, Item]]:
        if len(self.class_names) > MAX_CLASSES:
            raise DataError(f"there must be at most {MAX_CLASSES} classes, but there are {len(self.class_names)}.")
        found = self._find()
        named: dict[Split, dict[str, Item]] = {split: {} for split in get_args(Split)}
        for split, items in found.items():
            for item in items:
                if any(item.name in members for members in named.values()):
                    raise DataError(f"samples must have different names, but there are two of {item.name!r}.")
                named[split][item.name] = item
        return named

    def split(self, name: Split) -> Samples:
        check_split_name(name)
        items = self._items[name]
        return Samples(partial(self._load, items), list(items), [item.group for item in items.values()])

    def pairs(self, name: Split) -> list[tuple[int, int]]:
        check_split_name(name)
        if self._find_pairs is None:
            return []
        position = {item: number for number, item in enumerate(self._items[name])}
        return [(position[source], position[target]) for source, target in self._find_pairs().get(name, ())]

    def _load(self, items: Mapping[str, Item], name: str) -> Sample:
        item = items[name]
        image = read_image(item.image)
        label = item.read((image.shape[0], image.shape[1]))
        if self.task in ("segmentation", "depth"):
            if label.shape != (item.label_size or image.shape[:2]):
                raise DataError(
                    f"{item.answer} must be as large as its image {item.image.name} ({image.shape[1]} x "
                    f"{image.shape[0]} px), but is {label.shape[1]} x {label.shape[0]} px."
                )
            counts = label != IGNORE if self.task == "segmentation" else np.isfinite(label)
            if not counts.any():
                raise DataError(f"{item.answer} must have a pixel that counts, but has none; leave this image out.")
        return Sample(item.name, image, label, item.group, item.prompt, item.box)

    def check(self) -> None:
        """Read every image and label of all splits once.

        Raises:
            DataError: a file is missing, does not decode, or does not fit its image or the classes; or a class has no
                image to learn it from.
        """
        if self.task == "classification":
            self._refuse_untaught()
        for split, items in self._items.items():
            members = [(items, name) for name in items]
            counts = list(_for_each(f"Checking {split} images and labels", members, self._count))
            self._unknown[split] = (sum(unknown for unknown, _ in counts), sum(pixels for _, pixels in counts))

    def notes(self) -> tuple[str, ...]:
        found = []
        if self.task == "depth":
            found += [unknown_depth(split, *counts) for split, counts in self._unknown.items() if counts[0]]
        if self._expected is not None:
            name, published = self._expected
            counts = {split: len(self._items[split]) for split in published}
            if counts != published:
                found.append(
                    f"the published protocol of {name} has {_counted(published)} images, but here are "
                    f"{_counted(counts)}: scores do not compare with published ones"
                )
        return tuple(found)

    def _refuse_untaught(self) -> None:
        """Every class that is asked for in another split must be in the training split."""
        taught = {item.answer for item in self._items["train"].values()}
        for split, items in self._items.items():
            for item in items.values():
                if item.answer not in taught:
                    raise DataError(
                        f"every class must have a training image, but {item.answer!r} has one in {split} alone "
                        f"({item.image}): add training images of it, or split otherwise."
                    )

    def _count(self, member: tuple[Mapping[str, Item], str]) -> tuple[int, int]:
        """(values that are not known, values) of a label; the image itself does not outlive its check."""
        label = self._load(*member).label
        return int(label.size - np.isfinite(label).sum()), int(label.size)

    def identity(self) -> dict[str, Any]:
        """Digests of the content of all used files, by split. Reads them all, once."""
        digests: dict[str, str] = {}
        for split, items in self._items.items():
            parts = list(_for_each("Hashing files", list(items.values()), _digest))
            digests[split] = hashlib.sha256("\n".join([*parts, *map(str, self.pairs(split))]).encode()).hexdigest()[:32]
        return {
            "kind": self._layout,
            "format": 1,
            "task": self.task,
            "classes": list(self.class_names),
            **self._settings,
            **digests,
        }


def _digest(item: Item) -> str:
    parts = [item.name, item.group, str(item.prompt), str(item.box)]
    for content in (item.image, item.answer):
        if isinstance(content, str):
            parts.append(content)
            continue
        try:
            with content.open("rb") as file:
                parts.append(hashlib.file_digest(file, "sha256").hexdigest())
        except OSError as error:
            raise DataError(f"{content} cannot be read: {error.strerror}.") from error
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _for_each(description: str, members: Sequence[Any], work: Callable[[Any], Result]) -> Iterator[Result]:
    """Results in order; an error or an interrupt stops the work at once."""
    pool = ThreadPoolExecutor(_THREADS)
    try:
        yield from with_progress(pool.map(work, members), len(members), description)
    finally:
        pool.shutdown(cancel_futures=True)


def unknown_depth(split: str, unknown: int, pixels: int) -> str:
    """What is said of values that do not count."""
    return (
        f"{unknown} of {pixels} depth values ({unknown / pixels:.1%}) of the {split} split are unknown (0, negative or "
        "not finite): they are masked"
    )


def _counted(images: Mapping[Split, int]) -> str:
    return " and ".join(f"{count} {split}" for split, count in images.items())


def divided(items: Sequence[Item], fractions: tuple[float, float, float], seed: int) -> dict[Split, list[Item]]:
    """Items split at random by seed, whole groups at a time."""
    by_name = {item.name: item for item in items}
    assigned = SeedSplit(fractions, seed).assign(by_name.keys(), lambda name: by_name[name].group)
    return {split: [by_name[name] for name in names] for split, names in assigned.items()}


def folder_of(root: Path, *parts: str) -> Path:
    """A folder that must exist."""
    found = root.joinpath(*parts)
    if not found.is_dir():
        inner = sorted(root.glob("/".join(("*", *parts)))) if root.is_dir() and parts else []
        hint = f"; is the root {root / inner[0].relative_to(root).parts[0]}?" if inner else "."
        raise DataError(f"the data set in {root} must have the folder {'/'.join(parts) or '.'}, but has none{hint}")
    return found


def lines_of(file: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(f"{file} must list the images of a split, but cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} must list the images of a split in UTF-8, but does not: {error}.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def existing(path: Path, of: str) -> Path:
    """A file that must exist; `of` says what it belongs to."""
    if not path.is_file():
        raise DataError(f"{of} must have the file {path}, but there is none.")
    return path


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, which must hold one; hidden files are left alone."""
    found = sorted(
        file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")
    )
    if not found:
        raise DataError(f"{folder} must hold images ({', '.join(IMAGE_SUFFIXES)}), but holds none.")
    return found


def paired(images: Path, answers: Path, suffixes: tuple[str, ...]) -> list[tuple[Path, Path]]:
    """Every image of a folder with the file of the same stem that holds its answer; none may be alone."""
    images_in(images)
    pictures = files_by_stem(images, IMAGE_SUFFIXES, "images")
    labels = files_by_stem(answers, suffixes, "answers")
    kinds = " or ".join(suffixes)
    refuse_partnerless(pictures, set(pictures) - set(labels), f"an image must have a {kinds} file in {answers}")
    refuse_partnerless(
        labels, set(labels) - set(pictures), f"a {kinds} file in {answers} must have an image in {images}"
    )
    return [(picture, labels[stem]) for stem, picture in pictures.items()]


def files_by_stem(folder: Path, suffixes: tuple[str, ...], role: str) -> dict[str, Path]:
    """Files of a folder by their name without suffix, sorted; hidden ones are left alone."""
    if not folder.is_dir():
        raise DataError(
            f"the folder of {role} must exist, but {folder} {'is a file' if folder.exists() else 'does not'}."
        )
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in suffixes or path.name.startswith(".") or not path.is_file():
            continue
        if path.stem in files:
            raise DataError(
                f"{role} must have different stems, but {folder} holds {files[path.stem].name} and {path.name}."
            )
        files[path.stem] = path
    return files


def refuse_partnerless(files: dict[str, Path], alone: set[str], condition: str) -> None:
    """Raise `DataError` with the names of files that have no partner."""
    if alone:
        shown = ", ".join(files[stem].name for stem in sorted(alone)[:_SHOWN])
        more = f" and {len(alone) - _SHOWN} more" if len(alone) > _SHOWN else ""
        raise DataError(
            f"{condition} of the same stem, but {len(alone)} of {len(files)} {'has' if len(alone) == 1 else 'have'} "
            f"none: {shown}{more}."
        )
