"""SPair-71k: pairs of images of one category with keypoints of the same numbers (Min et al., 2019)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float32

from diffsift.errors import DataError, did_you_mean

from ._checks import all_of
from ._files import FileDataset, FileLayout, Item
from ._listing import read_lines, require_file, require_folder
from ._samples import Split

_LISTS: dict[Split, str] = {"train": "trn", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class _Pair:
    """A line of a list: the names of two images, and what the line is called in messages."""

    source: str
    target: str
    origin: str


@dataclass(frozen=True)
class _Annotation:
    """What is known of an image.

    Attributes:
        file: it was read from.
        size: (height, width) in px.
        keypoints: (x, y) by number, in [0, 1] of the image; not a number where not visible.
        box: (x0, y0, x1, y1) around the object, in shares of the image.
    """

    file: Path
    size: tuple[int, int]
    keypoints: Float32[np.ndarray, "keypoints 2"]
    box: tuple[float, float, float, float]


def spair(root: Path, size: str, category: str | None, *, category_prompt: bool = True) -> FileDataset:
    """``JPEGImages``, ``ImageAnnotation`` and the lists of pairs in ``Layout/{large,small}``.

    Args:
        root: folder of the data set.
        size: which lists, ``large`` or ``small``.
        category: only its pairs; None takes all.
        category_prompt: give ``a photo of a {category}`` as every image's prompt, as DIFT does (Tang et al., 2023).

    Returns:
        The data set.

    Raises:
        DataError: not now, but when the data set is first read: a folder or file is missing or damaged, or
            the category does not exist.
    """

    @cache
    def pairs() -> dict[Split, list[_Pair]]:
        require_folder(root, "Layout", size)
        found: dict[Split, list[_Pair]] = {}
        seen = set()
        for split, name in _LISTS.items():
            file = root / "Layout" / size / f"{name}.txt"
            found[split] = []
            for line in read_lines(file):
                of, source, target = _read_line(line, file)
                seen.add(of)
                if category in (None, of):
                    found[split].append(_Pair(f"{of}/{source}", f"{of}/{target}", f"{file}: pair {line}"))
        if category is not None and category not in seen:
            raise DataError(f"{root} has no category {category!r}{did_you_mean(category, sorted(seen))}")
        return found

    def find() -> dict[Split, list[Item]]:
        annotation = cache(partial(_annotation, root))

        def refuse_unmatched(pair: _Pair) -> None:
            _refuse_unmatched(pair, annotation(pair.source), annotation(pair.target))

        def item(name: str) -> Item:
            return _item(root, name, annotation(name), category_prompt)

        found: dict[Split, list[Item]] = {}
        for split, members in pairs().items():
            all_of(refuse_unmatched, members, lambda pair: pair.origin)
            names = dict.fromkeys(name for pair in members for name in (pair.source, pair.target))
            found[split] = all_of(item, names, str)
        return found

    def named() -> dict[Split, list[tuple[str, str]]]:
        return {split: [(pair.source, pair.target) for pair in members] for split, members in pairs().items()}

    return FileDataset(FileLayout(f"spair-{size}", "correspondence", find, pairs=named))


def _read_line(line: str, file: Path) -> tuple[str, str, str]:
    """Category, source and target of a line such as ``000001-2008_000585-2008_000716:aeroplane``."""
    numbers, colon, category = line.partition(":")
    parts = numbers.split("-")
    if not colon or not category or len(parts) != 3:
        raise DataError(f"{file} must hold lines such as 000001-2008_000585-2008_000716:aeroplane, but holds {line!r}.")
    return category, parts[1], parts[2]


def _annotation(root: Path, name: str) -> _Annotation:
    category, _, stem = name.partition("/")
    file = require_file(root / "ImageAnnotation" / category / f"{stem}.json", name)
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        height, width = int(values["image_height"]), int(values["image_width"])
        points = {int(number): point for number, point in values["kps"].items() if point is not None}
        left, top, right, bottom = (float(value) for value in values["bndbox"])
        keypoints = np.full((max(map(int, values["kps"]), default=-1) + 1, 2), np.nan, np.float32)
        for number, point in points.items():
            keypoints[number] = (float(point[0]) / width, float(point[1]) / height)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, ZeroDivisionError) as error:
        raise DataError(f"{file} must hold image_width, image_height, kps and bndbox, but: {error!r}.") from error
    if not (left < right and top < bottom):
        raise DataError(f"{file} must hold bndbox as x0, y0, x1, y1 around an area, but has {values['bndbox']}.")
    return _Annotation(file, (height, width), keypoints, (left / width, top / height, right / width, bottom / height))


def _refuse_unmatched(pair: _Pair, source: _Annotation, target: _Annotation) -> None:
    """Refuse a pair with a keypoint outside of its image, or with none that both images show."""
    for found in (source, target):
        known = np.isfinite(found.keypoints).all(-1)
        outside = known & ~((found.keypoints >= 0) & (found.keypoints <= 1)).all(-1)
        if outside.any():
            number, (height, width) = int(np.flatnonzero(outside)[0]), found.size
            x, y = found.keypoints[number] * (width, height)
            raise DataError(
                f"{pair.origin} must have its keypoints in its images, but {found.file} has keypoint {number} at "
                f"({x:g}, {y:g}), outside of {width} x {height} px: correct it, or take the pair out of the list."
            )
    shared = min(len(source.keypoints), len(target.keypoints))
    if not np.isfinite(source.keypoints[:shared] + target.keypoints[:shared]).all(-1).any():
        raise DataError(f"{pair.origin} must have a keypoint that both images show, but has none.")


def _item(root: Path, name: str, annotation: _Annotation, category_prompt: bool) -> Item:
    category, _, stem = name.partition("/")
    image = require_file(root / "JPEGImages" / category / f"{stem}.jpg", name)
    prompt = f"a photo of a {category}" if category_prompt else None
    read = partial(_checked, annotation.keypoints, annotation.size, image)
    return Item(name, image, read, annotation.file, name, prompt, annotation.box)


def _checked(
    keypoints: Float32[np.ndarray, "keypoints 2"], declared: tuple[int, int], image: Path, size: tuple[int, int]
) -> Float32[np.ndarray, "keypoints 2"]:
    if size != declared:
        raise DataError(f"{image} must be {declared[1]} x {declared[0]} px as annotated, but is {size[1]} x {size[0]}.")
    return keypoints
