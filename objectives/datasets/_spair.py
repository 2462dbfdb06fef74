"""SPair-71k: pairs of images of one category with keypoints of the same numbers (Min et al., 2019)."""

from __future__ import annotations

import json
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from diffsift.errors import DataError, did_you_mean

from ._base import Split
from ._files import FileDataset, Item, existing, folder_of, lines_of

_LISTS: dict[Split, str] = {"train": "trn", "validation": "val", "test": "test"}


def spair(root: Path, size: str, category: str | None, *, category_prompt: bool) -> FileDataset:
    """``JPEGImages``, ``ImageAnnotation`` and the lists of pairs in ``Layout/{large,small}``.

    Args:
        root: folder of the data set.
        size: which lists.
        category: only its pairs; None takes all.
        category_prompt: give ``a photo of a {category}`` as every image's prompt.
    """

    @cache
    def pairs() -> dict[Split, list[tuple[str, str]]]:
        folder_of(root, "Layout", size)
        found: dict[Split, list[tuple[str, str]]] = {}
        seen = set()
        for split, name in _LISTS.items():
            file = root / "Layout" / size / f"{name}.txt"
            found[split] = []
            for line in lines_of(file):
                of, source, target = _read_line(line, file)
                seen.add(of)
                if category in (None, of):
                    found[split].append((f"{of}/{source}", f"{of}/{target}"))
        if category is not None and category not in seen:
            raise DataError(f"{root} has no category {category!r}{did_you_mean(category, sorted(seen))}")
        return found

    def find() -> dict[Split, list[Item]]:
        return {
            split: [_item(root, name, category_prompt) for name in dict.fromkeys(n for pair in members for n in pair)]
            for split, members in pairs().items()
        }

    return FileDataset("correspondence", f"spair-{size}", find, pairs=pairs)


def _read_line(line: str, file: Path) -> tuple[str, str, str]:
    """Category, source and target of a line such as ``000001-2008_000585-2008_000716:aeroplane``."""
    numbers, colon, category = line.partition(":")
    parts = numbers.split("-")
    if not colon or len(parts) != 3:
        raise DataError(f"{file} must hold lines such as 000001-2008_000585-2008_000716:aeroplane, but holds {line!r}.")
    return category, parts[1], parts[2]


def _item(root: Path, name: str, category_prompt: bool) -> Item:
    category, _, stem = name.partition("/")
    image = existing(root / "JPEGImages" / category / f"{stem}.jpg", name)
    file = existing(root / "ImageAnnotation" / category / f"{stem}.json", name)
    try:
        annotation = json.loads(file.read_text(encoding="utf-8"))
        size = (int(annotation["image_height"]), int(annotation["image_width"]))
        points = annotation["kps"]
        left, top, right, bottom = (float(value) for value in annotation["bndbox"])
        numbers = max(int(number) for number in points) + 1
        keypoints = np.full((numbers, 2), np.nan, np.float32)
        for number, point in points.items():
            if point is not None:
                keypoints[int(number)] = (float(point[0]) / size[1], float(point[1]) / size[0])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{file} must hold image_width, image_height, kps and bndbox, but: {error!r}.") from error
    box = (left / size[1], top / size[0], right / size[1], bottom / size[0])
    article = "an" if category[0] in "aeiou" else "a"
    prompt = f"a photo of {article} {category}" if category_prompt else None
    return Item(name, image, partial(_checked, keypoints, size, image), file, name, prompt, box)


def _checked(
    keypoints: np.ndarray[Any, Any], declared: tuple[int, int], image: Path, size: tuple[int, int]
) -> np.ndarray[Any, Any]:
    if size != declared:
        raise DataError(f"{image} must be {declared[1]} x {declared[0]} px as annotated, but is {size[1]} x {size[0]}.")
    return keypoints
