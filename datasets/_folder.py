"""A data set made of a folder of images and a folder of label PNGs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar, get_args

import yaml

from diffsift.errors import DataError, SpecificationError

from ._base import IGNORE, MAX_CLASSES, Dataset, Sample, Samples, Split, check_split_name
from ._files import IMAGE_SUFFIXES, files_by_stem, refuse_partnerless
from ._image_files import has_turned_size, read_image, read_mask
from ._progress import with_progress
from ._splits import Assignment, SplitRule

_THREADS = 4  # Pillow decodes and hashlib hashes outside the interpreter lock
_MAX_LABEL = 2**16 - 1

Result = TypeVar("Result")


@dataclass(frozen=True)
class _Index:
    """Which files there are and how they are split."""

    images: dict[str, Path]
    masks: dict[str, Path]
    splits: Assignment

    @property
    def stems(self) -> list[str]:
        return [stem for members in self.splits.values() for stem in members]


class SegmentationFolder(Dataset):
    """Images in one folder, masks of the same stems (file names without suffix) in another.

    Images are PNG, JPEG, WebP or BMP, read as RGB: turned upright as EXIF says, grayscale converted, transparent ones
    laid on white. Masks are PNGs of the image's size whose values are class ids: palette, grayscale or 16-bit. Hidden
    files and subfolders are left alone.

    With `SeedSplit` every image needs a mask and the other way round; with `ListSplit` and `FileSplit` only what is
    listed is used and looked at. Files are read when a sample is asked for, so memory does not grow with the folder.

    Args:
        images: folder of images.
        labels: folder of masks, another than `images`.
        classes: names of the classes, by class id from 0; or how many there are, 2 to 255.
        split: which files belong to which split.
        ignore: mask value of pixels that do not count, 0 to 65535. A class id may be given, to leave that class out.
        group_separator: what stands in a stem before its last occurrence is the sample's group (``"_"``:
            ``street3_017`` is of group ``street3``); default: each sample is a group of its own.
        prompts: YAML or JSON file that maps every used stem to what the model is told of the image.

    Raises:
        SpecificationError: an argument is out of range. What is wrong with files is raised by `check` (and by the
            other methods as far as they get) as `DataError`.
    """

    task = "segmentation"

    def __init__(
        self,
        images: Path,
        labels: Path,
        classes: int | Sequence[str],
        split: SplitRule,
        *,
        ignore: int = IGNORE,
        group_separator: str | None = None,
        prompts: Path | None = None,
    ) -> None:
        self.class_names = _names_of(classes)
        if not 0 <= ignore <= _MAX_LABEL:
            raise SpecificationError(f"ignore must be a mask value from 0 to {_MAX_LABEL}, but got {ignore}.")
        if group_separator == "":
            raise SpecificationError("group_separator must not be empty; leave it out for one group per image.")
        self._images, self._labels = Path(images), Path(labels)
        self._rule, self._ignore, self._separator = split, ignore, group_separator
        self._prompts_file = prompts

    def identity(self) -> dict[str, Any]:
        """Digests of the content of all used files, by split. Reads them all, once."""
        splits = self._index.splits
        digests = dict(
            zip(self._index.stems, self._for_each("Hashing files", self._index.stems, self._digest), strict=True)
        )
        return {
            "kind": "segmentation-folder",
            "format": 1,
            "classes": len(self.class_names),
            "ignore": self._ignore,
            **{name: _joined_digest([digests[stem] for stem in members]) for name, members in splits.items()},
        }

    def split(self, name: Split) -> Samples:
        check_split_name(name)
        stems = self._index.splits[name]
        return Samples(self._load, stems, [self._group(stem) for stem in stems])

    def check(self) -> None:
        """Read every image and mask of all splits once.

        Raises:
            DataError: a folder or file is missing, does not decode, does not fit its partner or the classes, has no
                pixel that counts, or the split rule does not fit the files.
        """
        for _ in self._for_each("Checking images and masks", self._index.stems, self._load_nothing):
            pass

    @cached_property
    def _index(self) -> _Index:
        images = files_by_stem(self._images, IMAGE_SUFFIXES, "images")
        masks = files_by_stem(self._labels, (".png",), "labels")
        if self._images.samefile(self._labels):
            raise DataError(f"images and labels must lie in different folders, but both are {self._images}.")
        if not images:
            raise DataError(f"{self._images} must hold images ({', '.join(IMAGE_SUFFIXES)}), but holds none.")
        mask_needed = f"an image must have a mask (PNG) in {self._labels}"
        if self._rule.covers_all:
            refuse_partnerless(images, set(images) - set(masks), mask_needed)
            refuse_partnerless(masks, set(masks) - set(images), f"a mask must have an image in {self._images}")
        splits = self._rule.assign(images.keys(), self._group)
        used = {stem for members in splits.values() for stem in members}
        refuse_partnerless(images, used - set(masks), mask_needed)
        self._refuse_torn_groups(splits)
        missing = sorted(used - set(self._prompts)) if self._prompts_file else []
        if missing:
            raise DataError(
                f"{self._prompts_file} must have a prompt for every image that is used, but has none for {missing[0]!r}"
                f"{f' and {len(missing) - 1} more' if len(missing) > 1 else ''}."
            )
        return _Index(images, masks, splits)

    @cached_property
    def _prompts(self) -> dict[str, str]:
        return {} if self._prompts_file is None else read_prompts(self._prompts_file)

    def _refuse_torn_groups(self, splits: Assignment) -> None:
        home: dict[str, tuple[Split, str]] = {}
        for name in get_args(Split):
            for stem in splits[name]:
                split, first = home.setdefault(self._group(stem), (name, stem))
                if split != name:
                    raise DataError(
                        f"images of one group must be in one split, but {first!r} is in {split} and {stem!r} in "
                        f"{name} (group {self._group(stem)!r}, by group_separator {self._separator!r})."
                    )

    def _group(self, stem: str) -> str:
        if self._separator is None:
            return stem
        return stem.rpartition(self._separator)[0] or stem

    def _load(self, stem: str) -> Sample:
        image_path, mask_path = self._index.images[stem], self._index.masks[stem]
        image = read_image(image_path)
        label = read_mask(mask_path, classes=len(self.class_names), ignore=self._ignore)
        if label.shape != image.shape[:2]:
            turned = label.shape == image.shape[1::-1] and has_turned_size(image_path)
            hint = "; the image is turned by its EXIF orientation: turn the mask too" if turned else ""
            raise DataError(
                f"mask {mask_path} must be as large as its image {image_path.name} "
                f"({image.shape[1]} x {image.shape[0]} px), but is {label.shape[1]} x {label.shape[0]} px{hint}."
            )
        if (label == IGNORE).all():
            raise DataError(
                f"mask {mask_path} must have a pixel that counts, but all hold {self._ignore} (ignored); "
                "leave this image out."
            )
        return Sample(stem, image, label, self._group(stem), self._prompts.get(stem))

    def _load_nothing(self, stem: str) -> None:
        self._load(stem)  # nothing is returned, so that no image outlives its check

    def _digest(self, stem: str) -> str:
        """Over the name, the group and the content of both files; which suffix the image has does not matter."""
        parts = [stem.encode(), self._group(stem).encode()]
        if stem in self._prompts:
            parts.append(self._prompts[stem].encode())
        for path in (self._index.images[stem], self._index.masks[stem]):
            try:
                with path.open("rb") as file:
                    parts.append(hashlib.file_digest(file, "sha256").digest())
            except OSError as error:
                raise DataError(f"{path} cannot be read: {error.strerror}.") from error
        return _joined_digest([part.hex() for part in parts])

    def _for_each(self, description: str, stems: Sequence[str], work: Callable[[str], Result]) -> Iterator[Result]:
        """Results in the order of `stems`; an error or an interrupt stops the work at once."""
        pool = ThreadPoolExecutor(_THREADS)
        try:
            yield from with_progress(pool.map(work, stems), len(stems), description)
        finally:
            pool.shutdown(cancel_futures=True)


def read_prompts(file: Path) -> dict[str, str]:
    """Prompts by stem of an image's file name.

    Raises:
        DataError: the file cannot be read, or is not a mapping of stems to texts.
    """
    try:
        values = yaml.safe_load(file.read_text(encoding="utf-8"))  # JSON is YAML
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise DataError(f"{file} must be YAML or JSON, but cannot be parsed: {error}") from error
    if not isinstance(values, dict) or not all(isinstance(value, str) for value in values.values()):
        raise DataError(f"{file} must map stems of image files to prompts, such as 'street3_017: a street at night'.")
    return {str(stem): value for stem, value in values.items()}


def _names_of(classes: int | Sequence[str]) -> tuple[str, ...]:
    names = tuple(f"class {number}" for number in range(classes)) if isinstance(classes, int) else tuple(classes)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise SpecificationError(f"there must be 2 to {MAX_CLASSES} classes, but got {len(names)}.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecificationError(f"class names must differ, but got {twice[0]!r} twice.")
    return names


def _joined_digest(parts: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]
