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

Label = np.ndarray[Any, Any]
Result = TypeVar("Result")

_THREADS = 4  # Pillow decodes and hashlib hashes outside the interpreter lock


@dataclass(frozen=True)
class Item:
    """One sample on disk.

    Attributes:
        name: unique within the data set.
        image: its file.
        read: gives the label for an image of some (height, width); raises `DataError`.
        answer: what the identity holds of the label: its file, or a text that says it all.
        group: samples of one group never fall in different folds.
        prompt: see `Sample`.
        box: see `Sample`.
    """

    name: str
    image: Path
    read: Callable[[tuple[int, int]], Label]
    answer: Path | str
    group: str
    prompt: str | None = None
    box: tuple[float, float, float, float] | None = None


class FileDataset(Dataset):
    """Items by split, read when they are asked for.

    Args:
        task: what the labels are.
        layout: name of the layout, for the identity.
        find: lists the items of each split; called once, and raises `DataError` for what is missing.
        class_names: by class id; none for depth and correspondence.
        pairs: for correspondence, names of the items to match in each split.
        ignore: value in the files that does not count; part of the identity.
    """

    def __init__(
        self,
        task: str,
        layout: str,
        find: Callable[[], Mapping[Split, Sequence[Item]]],
        class_names: Sequence[str] = (),
        pairs: Callable[[], Mapping[Split, Sequence[tuple[str, str]]]] | None = None,
        ignore: int = IGNORE,
    ) -> None:
        self.task, self.class_names = task, tuple(class_names)
        self._layout, self._find, self._find_pairs, self._ignore = layout, find, pairs, ignore

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
            if label.shape != image.shape[:2]:
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
            DataError: a file is missing, does not decode, or does not fit its image or the classes.
        """
        members = [(items, name) for items in self._items.values() for name in items]
        for _ in _for_each("Checking images and labels", members, self._load_nothing):
            pass

    def _load_nothing(self, member: tuple[Mapping[str, Item], str]) -> None:
        self._load(*member)  # nothing is returned, so that no image outlives its check

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
            "ignore": self._ignore,
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


def folder_of(root: Path, *parts: str) -> Path:
    """A folder that must exist."""
    found = root.joinpath(*parts)
    if not found.is_dir():
        raise DataError(f"the data set in {root} must have the folder {'/'.join(parts) or '.'}, but has none.")
    return found


def lines_of(file: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as error:
        raise DataError(f"{file} must list the images of a split, but cannot be read: {error.strerror}.") from error
    return [line.strip() for line in text.splitlines() if line.strip()]


def existing(path: Path, of: str) -> Path:
    """A file that must exist; `of` says what it belongs to."""
    if not path.is_file():
        raise DataError(f"{of} must have the file {path}, but there is none.")
    return path
