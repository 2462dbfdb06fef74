"""Data sets whose images and answers are files, whatever the layout of folders they lie in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from diffsift.common.reporting import Reporter
from diffsift.errors import DataError

from ._base import Dataset
from ._cache import SampleCache
from ._checks import check_label, refuse_twice, refuse_untaught
from ._image_files import has_turned_size, read_image
from ._samples import MAX_CLASSES, SPLITS, Label, Sample, Samples, Split, check_split_name

_ROLES = {"segmentation": "mask ", "depth": "depth ", "normals": "normals "}


@dataclass(frozen=True)
class Item:
    """One sample on disk.

    Attributes:
        name: unique within the data set.
        image: its file.
        read: reads the label for an image of some (height, width); raises `DataError`.
        answer: what the identity holds of the label: its file, or a text that says it all (a class's name).
        group: samples of one group never fall in different folds or splits.
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


@dataclass(frozen=True)
class FileLayout:
    """Where a data set's files lie and what they mean.

    Attributes:
        name: of the layout, for the identity.
        task: what the labels are.
        find: lists the items of each split; called once, and raises `DataError` for what is missing.
        class_names: by class id; none for depth, normals and correspondence.
        pairs: for correspondence, names of the items to match in each split.
        settings: what the labels depend on besides the files' content; part of the identity.
        ignore: value of masks that does not count, for messages.
        published: name of the published protocol, and its number of images in each split; `notes` names a difference.
    """

    name: str
    task: str
    find: Callable[[], Mapping[Split, Sequence[Item]]]
    class_names: Sequence[str] = ()
    pairs: Callable[[], Mapping[Split, Sequence[tuple[str, str]]]] | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    ignore: int | None = None
    published: tuple[str, Mapping[Split, int]] | None = None


class FileDataset(Dataset):
    """Images and answers in files.

    A file is decoded when its sample is first needed; the first samples stay in memory (see `SampleCache`). Files are
    hashed once, while they are checked.

    Args:
        layout: where the files lie and what they mean.
    """

    _threads = 4  # Pillow decodes and hashlib hashes outside the interpreter lock

    def __init__(self, layout: FileLayout) -> None:
        self._layout = layout
        self.task, self.class_names = layout.task, tuple(layout.class_names)
        self._cache = SampleCache()

    def split(self, name: Split) -> Samples:
        check_split_name(name)
        items = self._items[name]
        return Samples(self._load, list(items), [item.group for item in items.values()])

    def pairs(self, name: Split) -> list[tuple[int, int]]:
        check_split_name(name)
        if self._layout.pairs is None:
            return []
        position = {item: number for number, item in enumerate(self._items[name])}
        return [(position[source], position[target]) for source, target in self._layout.pairs().get(name, ())]

    @property
    def has_prompts(self) -> bool:
        items = self._items["train"] or self._items["validation"]
        return any(item.prompt is not None for item in items.values())

    def check(self, reporter: Reporter | None = None) -> None:
        if self.task == "classification":  # known from names alone, so said before all files are read
            found = self._items.items()
            refuse_untaught({split: [(str(i.answer), str(i.image)) for i in items.values()] for split, items in found})
        super().check(reporter)

    def content(self) -> dict[str, Any]:
        return {
            "kind": self._layout.name,
            "format": 1,
            "task": self.task,
            "classes": list(self.class_names),
            **self._layout.settings,
            **{split: self._split_digest(split) for split in SPLITS},
        }

    def notes(self) -> tuple[str, ...]:
        notes = list(super().notes())
        if self._layout.published is not None:
            name, published = self._layout.published
            counts: dict[Split, int] = {split: len(self._items[split]) for split in published}
            if counts != published:
                notes.append(
                    f"the published protocol of {name} has {_counted(published)} images, but here are "
                    f"{_counted(counts)}: scores are not comparable with published ones"
                )
        return tuple(notes)

    @cached_property
    def _items(self) -> dict[Split, dict[str, Item]]:
        if len(self.class_names) > MAX_CLASSES:
            raise DataError(f"there must be at most {MAX_CLASSES} classes, but there are {len(self.class_names)}.")
        found = self._layout.find()
        refuse_twice(item.name for items in found.values() for item in items)
        return {split: {item.name: item for item in found.get(split, ())} for split in SPLITS}

    def _load(self, name: str) -> Sample:
        return self._cache.get(name, self._read)

    def _read(self, name: str) -> Sample:
        item = next(items[name] for items in self._items.values() if name in items)
        image = read_image(item.image)
        size = (image.shape[0], image.shape[1])
        label = item.read(size)
        try:
            check_label(
                self.task,
                label,
                item.label_size or size,
                f"{_ROLES.get(self.task, '')}{item.answer}",
                image=item.image.name,
                nothing="has none" if self._layout.ignore is None else f"all hold {self._layout.ignore} (ignored)",
            )
        except DataError as error:
            if label.shape[:2] == size[::-1] != size and has_turned_size(item.image):
                raise DataError(
                    f"{str(error).rstrip('.')}; the image is turned by its EXIF orientation: turn the "
                    f"{_ROLES[self.task]}too."
                ) from None
            raise
        return Sample(item.name, image, label, item.group, item.prompt, item.box)

    def _check_sample(self, sample: Sample) -> None:
        pass  # done when it was read, with the names of its files

    def _sample_digest(self, split: Split, index: int, sample: Sample | None) -> str:
        name = self._names[split][index] if sample is None else sample.name
        return self._item_digest(self._items[split][name])

    @cached_property
    def _names(self) -> dict[Split, list[str]]:
        return {split: list(items) for split, items in self._items.items()}

    def _item_digest(self, item: Item) -> str:
        """The digest of everything that an item's sample is made of."""
        answer = item.answer if isinstance(item.answer, str) else file_digest(item.answer)
        parts = [item.name, item.group, str(item.prompt), str(item.box), file_digest(item.image), answer]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def file_digest(file: Path) -> str:
    """SHA-256 of a file's content, in hexadecimal.

    Raises:
        DataError: it cannot be read.
    """
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error


def _counted(images: Mapping[Split, int]) -> str:
    return " and ".join(f"{count} {split}" for split, count in images.items())
