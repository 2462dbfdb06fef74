"""Images and answers listed in a CSV or JSON file."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any, get_args

import numpy as np

from diffsift.errors import DataError, SpecificationError, did_you_mean

from ._base import Split
from ._files import FileDataset, Item, existing
from ._image_files import read_mask
from ._layouts import read_depth

_REQUIRED = ("image", "label", "split")
_KNOWN = (*_REQUIRED, "group", "prompt")


def listed(file: Path, answers: str, classes: int | Sequence[str] | None, ignore: int) -> FileDataset:
    """Rows with the columns image, label, split and, if wanted, group and prompt.

    Args:
        file: CSV with a header, or a JSON list of mappings; paths are relative to it.
        answers: what the column label holds: ``segmentation`` mask files, ``depth`` files or class names.
        classes: number or names; None, for class names alone, takes all names in the list, sorted.
        ignore: mask value that does not count.
    """
    if answers == "segmentation" and classes is None:
        raise SpecificationError("data.classes must be given for masks: their number, or their names in order of id.")
    rows = cache(partial(_read_rows, file))
    names: tuple[str, ...] = ()
    if isinstance(classes, int):
        names = tuple(f"class {number}" for number in range(classes))
    elif classes is not None:
        names = tuple(classes)
    elif answers == "classification":
        names = tuple(sorted({row["label"] for row in rows()}))

    def label_of(row: dict[str, str]) -> tuple[Any, Path | str]:
        if answers == "classification":
            if row["label"] not in names:
                raise DataError(
                    f"{file} must name one of the classes as label, but has {row['label']!r}"
                    f"{did_you_mean(row['label'], names)}"
                )
            number = np.array(names.index(row["label"]), np.int64)
            return (lambda size: number), row["label"]
        answer = existing(file.parent / row["label"], row["image"])
        if answers == "depth":
            return partial(read_depth, answer), answer
        return (lambda size: read_mask(answer, classes=len(names), ignore=ignore)), answer

    def find() -> dict[Split, list[Item]]:
        found: dict[Split, list[Item]] = {split: [] for split in get_args(Split)}
        for row in rows():
            if row["split"] not in found:
                raise DataError(f"{file} must have train, validation or test as split, but has {row['split']!r}.")
            image = existing(file.parent / row["image"], f"a row of {file}")
            read, answer = label_of(row)
            item = Item(row["image"], image, read, answer, row.get("group") or row["image"], row.get("prompt"))
            found[row["split"]].append(item)
        _refuse_torn_groups(found, file)
        return found

    return FileDataset(answers, "list", find, names, ignore=ignore)


def _refuse_torn_groups(found: dict[Split, list[Item]], file: Path) -> None:
    home: dict[str, Split] = {}
    for split, items in found.items():
        for item in items:
            if home.setdefault(item.group, split) != split:
                raise DataError(
                    f"{file} must keep a group in one split, but {item.group!r} is in {home[item.group]} and {split}."
                )


def _read_rows(file: Path) -> list[dict[str, str]]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        rows: Any = json.loads(text) if file.suffix.lower() == ".json" else list(csv.DictReader(text.splitlines()))
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    except (ValueError, csv.Error) as error:
        raise DataError(f"{file} must be CSV with a header or a JSON list, but cannot be parsed: {error}.") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} must list at least one image with its label and split, but lists none.")
    for number, row in enumerate(rows, start=1):
        missing = [column for column in _REQUIRED if not row.get(column)]
        if missing:
            raise DataError(f"{file}: row {number} must have {', '.join(_REQUIRED)}, but lacks {', '.join(missing)}.")
        unknown = next((str(column) for column in row if column not in _KNOWN), None)
        if unknown is not None:
            raise DataError(f"{file}: {unknown!r} is not a column{did_you_mean(unknown, _KNOWN)}")
    prompts = [bool(row.get("prompt")) for row in rows]
    if any(prompts) and not all(prompts):
        raise DataError(
            f"{file} must have a prompt in every row or in none, but row {prompts.index(False) + 1} has none."
        )
    return [{key: str(value) for key, value in row.items() if value} for row in rows]
