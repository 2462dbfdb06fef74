"""Images and answers listed in a CSV or JSON file."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from diffsift.errors import DataError, SpecificationError, did_you_mean

from ._checks import class_names_of, refuse_torn_groups, sorted_classes
from ._depth_folder import read_depth
from ._files import FileDataset, FileLayout, Item
from ._image_files import read_mask
from ._listing import require_file
from ._normals_folder import read_normals
from ._samples import IGNORE, SPLITS, Split

_REQUIRED = ("image", "label", "split")
_KNOWN = (*_REQUIRED, "group", "prompt")


def image_list(
    file: Path,
    answers: str,
    classes: int | Sequence[str] | None,
    ignore: int = IGNORE,
    png_unit: float | None = None,
) -> FileDataset:
    """Images and answers listed in rows with the columns image, label and split, optionally group and prompt.

    Args:
        file: CSV with a header, or a JSON list of mappings; paths are relative to it.
        answers: what the column label holds: ``segmentation`` mask files, ``depth`` or ``normals`` files, or for
            ``classification`` class names; with a number of `classes`, class ids.
        classes: number or names; None, for class names alone, takes all names in the list, sorted.
        ignore: mask value that does not count.
        png_unit: metres that one grey level of a PNG stands for; None: PNGs hold millimetres in 16 bits.

    Returns:
        The data set.

    Raises:
        SpecificationError: masks are listed without `classes`.
        DataError: class names are to be taken from the list, but it cannot be read.
    """
    if answers == "segmentation" and classes is None:
        raise SpecificationError("data.classes must be given for masks: their number, or their names in order of id.")
    rows = cache(partial(_read_rows, file))
    if classes is None and answers == "classification":
        names = sorted_classes(row["label"] for row in rows())
    else:
        names = () if classes is None else class_names_of(classes)
    ids = {str(number): number for number in range(classes)} if isinstance(classes, int) else {}
    ids |= {name: number for number, name in enumerate(names)}

    def label_of(row: dict[str, str]) -> tuple[Any, Path | str]:
        if answers == "classification":
            if row["label"] not in ids:
                raise DataError(
                    f"{file} must have one of the classes as label, but has {row['label']!r}"
                    f"{did_you_mean(row['label'], ids)}"
                )
            number = np.array(ids[row["label"]], np.int64)
            return (lambda size: number), names[ids[row["label"]]]
        answer = require_file(file.parent / row["label"], row["image"])
        if answers == "depth":
            return partial(read_depth, answer, png_unit), answer
        if answers == "normals":
            return partial(read_normals, answer), answer
        return (lambda size: read_mask(answer, classes=len(names), ignore=ignore)), answer

    def find() -> dict[Split, list[Item]]:
        found: dict[Split, list[Item]] = {split: [] for split in SPLITS}
        for row in rows():
            if row["split"] not in found:
                raise DataError(f"{file} must have train, validation or test as split, but has {row['split']!r}.")
            image = require_file(file.parent / row["image"], f"a row of {file}")
            read, answer = label_of(row)
            item = Item(row["image"], image, read, answer, row.get("group") or row["image"], row.get("prompt"))
            found[row["split"]].append(item)
        groups: dict[Split, list[tuple[str, str]]] = {
            split: [(item.group, item.name) for item in items] for split, items in found.items()
        }
        refuse_torn_groups(groups, str(file))
        return found

    settings = {"ignore": ignore, "png_unit": png_unit}
    return FileDataset(FileLayout("list", answers, find, names, settings=settings, ignore=ignore))


def _read_rows(file: Path) -> list[dict[str, str]]:
    try:
        text = file.read_bytes().decode("utf-8-sig")  # line breaks stay as they are: a quoted one belongs to its field
        rows: Any = json.loads(text) if file.suffix.lower() == ".json" else _read_csv(text, file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise DataError(
            f"{file} must be UTF-8, but byte {error.start} is not ({error.reason}): save it as UTF-8."
        ) from error
    except (ValueError, csv.Error, RecursionError) as error:
        raise DataError(f"{file} must be CSV with a header or a JSON list, but cannot be parsed: {error}.") from error
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise DataError(f"{file} must list at least one image with its label and split, but lists none.")
    found = [_as_text(row, f"{file}: row {number}") for number, row in enumerate(rows, start=1)]
    prompts = ["prompt" in row for row in found]
    if any(prompts) and not all(prompts):
        raise DataError(
            f"{file} must have a prompt in every row or in none, but row {prompts.index(False) + 1} has none."
        )
    return found


def _read_csv(text: str, file: Path) -> list[dict[str, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    header = list(reader.fieldnames or ())
    missing = [column for column in _REQUIRED if column not in header]
    if missing:
        hint = " (fields are parted by commas)" if any(mark in "".join(header) for mark in ";\t") else ""
        close = next((did_you_mean(name, _KNOWN) for name in header if name not in _KNOWN), "")
        raise DataError(
            f"{file}: the header must have {', '.join(_REQUIRED)}, but lacks {', '.join(missing)}{hint}{close or '.'}"
        )
    if len(set(header)) < len(header):
        raise DataError(f"{file}: the header must name each column once, but is {', '.join(header)}.")
    rows: list[dict[str, Any]] = []
    for row in reader:
        if None in row or None in row.values():
            raise DataError(
                f"{file}: row {len(rows) + 1} (it ends in line {reader.line_num}) must have {len(header)} fields as "
                "the header has; put quotes around a field with commas."
            )
        rows.append(row)
    return rows


def _as_text(row: dict[str, Any], place: str) -> dict[str, str]:
    """A row with its values as text, without empty ones. A class id 0 is not empty."""
    unknown = next((str(column) for column in row if column not in _KNOWN), None)
    if unknown is not None:
        raise DataError(f"{place}: {unknown!r} is not a column{did_you_mean(unknown, _KNOWN)}")
    for column, value in row.items():
        if not isinstance(value, str | int | None) or isinstance(value, bool):
            raise DataError(f"{place} must hold texts or whole numbers, but {column} is {value!r}.")
    given = {column: str(value) for column, value in row.items() if value is not None and value != ""}
    missing = [column for column in _REQUIRED if column not in given]
    if missing:
        raise DataError(f"{place} must have {', '.join(_REQUIRED)}, but lacks {', '.join(missing)}.")
    return given
