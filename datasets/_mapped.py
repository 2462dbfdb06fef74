"""Data sets that exist in Python: PyTorch's, Hugging Face's, or any sequence of rows with named columns."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Protocol, get_args, runtime_checkable

import numpy as np

from diffsift.errors import DataError, SpecificationError, did_you_mean

from ._base import IGNORE, MAX_CLASSES, Dataset, Sample, Samples, Split, check_split_name
from ._files import unknown_depth
from ._list import class_names_of
from ._progress import with_progress
from ._row_values import class_of, depth_of, image_of, mask_of
from ._splits import SeedSplit, refuse_torn_groups

Column = str | int
"""A key of rows that are mappings, or a place in rows that are tuples."""

_TASKS = ("segmentation", "depth", "classification")


@runtime_checkable
class Rows(Protocol):
    """Rows by position, the same ones each time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class _Row:
    """What is remembered of a row once it was read.

    Attributes:
        part: which rows it lies in; empty where there is one part alone.
        index: its position there.
        name: of the sample.
        group: of the sample.
        split: it belongs to; None until it is split by fractions.
        answer: its class, for classification.
        unknown: (values that are not known, values), for depth.
        digest: of all that the sample is made of.
    """

    part: str
    index: int
    name: str
    group: str
    split: str | None
    answer: int | str | None
    unknown: tuple[int, int]
    digest: str

    @property
    def place(self) -> str:
        """Where it lies, for messages."""
        return _place(self.part, self.index)


class MappedDataset(Dataset):
    """Rows with an image and its answer in named columns, for segmentation, depth or classification.

    Takes any ``torch.utils.data.Dataset`` with a length, any Hugging Face data set or ``DatasetDict``, and any sequence
    of mappings. Rows are read when they are needed and not kept, so memory does not grow with the data. All are read
    once to check them and to know their content; a row that is another one later (a random transform) is refused.

    Args:
        data: the rows; or a mapping of ``train``, ``test`` and, if wanted, ``validation`` to rows of their own.
        image: column of images: Pillow's, arrays of 0 to 255 or of 0 to 1 with channels first or last, or paths.
        label: column of answers. Segmentation: class ids per pixel (picture, array or path of a PNG). Depth: metres per
            pixel. Classification: class names or ids.
        group: column of what belongs together: rows of one group are never in different splits or folds.
        split: column with ``train``, ``validation`` or ``test``.
        prompt: column of what the model is told of each image; not to be made from labels.
        task: what the labels are.
        classes: names in order of id, or how many there are. None, for classification alone: the names that a Hugging
            Face data set declares, or those found in the rows.
        ignore: label of pixels that do not count.
        depth_unit: metres that 1 stands for where depths are whole numbers; None: such depths are refused.
        fractions: shares of train, validation and test, where neither `data` nor a column says.
        seed: of the split by fractions.

    Raises:
        SpecificationError: an argument is not what it must be. What is wrong with rows is raised by `check` (and by the
            other methods as far as they get) as `DataError`.

    Examples:
        >>> image = np.zeros((4, 4, 3), np.uint8)
        >>> rows = [{"img": image + n, "kind": "ab"[n % 2], "scene": n // 4} for n in range(20)]
        >>> data = MappedDataset(rows, image="img", label="kind", group="scene", task="classification")
        >>> data.class_names, len(data.split("train")), len(data.split("test"))
        (('a', 'b'), 12, 8)
    """

    def __init__(
        self,
        data: Rows | Mapping[str, Rows],
        *,
        image: Column = "image",
        label: Column = "label",
        group: Column | None = None,
        split: Column | None = None,
        prompt: Column | None = None,
        task: str = "segmentation",
        classes: int | Sequence[str] | None = None,
        ignore: int = IGNORE,
        depth_unit: float | None = None,
        fractions: tuple[float, float, float] = (0.6, 0.0, 0.4),
        seed: int = 0,
    ) -> None:
        if task not in _TASKS:
            raise SpecificationError(
                f"task must be one of {', '.join(_TASKS)}, but got {task!r}: for keypoint pairs, write a subclass of "
                "diffsift.objectives.datasets.Dataset."
            )
        if isinstance(data, Mapping) and split is not None:
            raise SpecificationError("data must be rows where a split column is named, but is a mapping of splits.")
        self.task = task
        self._parts = _parts_of(data)
        self._columns = {"image": image, "label": label, "group": group, "split": split, "prompt": prompt}
        self._ignore, self._unit, self._rule = ignore, depth_unit, SeedSplit(fractions, seed)
        self._declared = self._names(classes, label)
        self.class_names = () if task == "depth" else self._declared or self._names_in_rows()

    def identity(self) -> dict[str, Any]:
        """Digests of the content of all rows, by split."""
        digests: dict[str, str] = {
            split: hashlib.sha256("\n".join(row.digest for row in rows).encode()).hexdigest()[:32]
            for split, rows in self._splits.items()
        }
        fixed = {"kind": "mapped", "format": 1, "task": self.task, "classes": list(self.class_names)}
        return {**fixed, "ignore": self._ignore, **digests}

    def split(self, name: Split) -> Samples:
        check_split_name(name)
        rows = self._splits[name]
        by_name = {row.name: row for row in rows}
        return Samples(partial(self._load, by_name), list(by_name), [row.group for row in rows])

    def check(self) -> None:
        """Read every row once.

        Raises:
            DataError: a column is missing, a value is not what it should be, a group is in two splits, or a class has
                no training image; the message says which row.
        """
        taught = {row.answer for row in self._splits["train"]}
        for rows in self._splits.values() if self.task == "classification" else ():
            for row in rows:
                if row.answer not in taught:
                    raise DataError(
                        f"every class must have a training image, but {row.answer!r} of {row.place} has none: add "
                        "training images of it, or split otherwise."
                    )

    def notes(self) -> tuple[str, ...]:
        found = []
        for split, rows in self._splits.items():
            unknown, pixels = (sum(row.unknown[part] for row in rows) for part in (0, 1))
            if unknown:
                found.append(unknown_depth(split, unknown, pixels))
        return tuple(found)

    @cached_property
    def _rows(self) -> list[_Row]:
        """All rows, each read once; what is remembered of them does not hold images."""
        found = list(with_progress(self._read_all(), sum(map(len, self._parts.values())), "Reading rows"))
        if not found:
            raise DataError("data must have at least one row, but has none.")
        return found

    def _read_all(self) -> Iterator[_Row]:
        for part, rows in self._parts.items():
            for index in range(len(rows)):
                yield self._read(part, index)[0]

    @cached_property
    def _splits(self) -> dict[Split, list[_Row]]:
        if any(row.split is None for row in self._rows):
            by_name = {row.name: row for row in self._rows}
            assigned = self._rule.assign(by_name.keys(), lambda name: by_name[name].group)
            return {split: [by_name[name] for name in sorted(names, key=int)] for split, names in assigned.items()}
        found: dict[Split, list[_Row]] = {
            split: [row for row in self._rows if row.split == split] for split in get_args(Split)
        }
        refuse_torn_groups({split: [row.group for row in rows] for split, rows in found.items()}, "data")
        return found

    def _load(self, rows: Mapping[str, _Row], name: str) -> Sample:
        known = rows[name]
        row, sample = self._read(known.part, known.index)
        if row.digest != known.digest:
            raise DataError(
                f"{known.place} must be the same each time it is read, but has changed: turn random transforms off."
            )
        return sample if self.task != "classification" else replace(sample, label=self._class_id(known))

    def _read(self, part: str, index: int) -> tuple[_Row, Sample]:
        """A row and what it holds; the label of a classification's sample is not known before all rows are."""
        place = _place(part, index)
        row = self._parts[part][index]
        image = image_of(self._value(row, "image", place), f"the image of {place}")
        label, answer = self._label(self._value(row, "label", place), f"the label of {place}")
        if self.task != "classification":
            self._refuse_unfit(image, label, place)
        name = f"{part}/{index}" if part else str(index)
        group, split, prompt = (self._text(row, role, place) for role in ("group", "split", "prompt"))
        if split is not None and split not in get_args(Split):
            raise DataError(f"the split of {place} must be train, validation or test, but is {split!r}.")
        parts = [name, str(group), str(prompt), str(answer), str(image.shape)]
        content = hashlib.sha256("\n".join(parts).encode() + image.tobytes() + label.tobytes())
        unknown = (int(np.isnan(label).sum()), label.size) if self.task == "depth" else (0, 0)
        found = _Row(part, index, name, group or name, part or split, answer, unknown, content.hexdigest())
        return found, Sample(name, image, label, found.group, prompt)

    def _refuse_unfit(self, image: np.ndarray[Any, Any], label: np.ndarray[Any, Any], place: str) -> None:
        if label.shape != image.shape[:2]:
            raise DataError(
                f"the label of {place} must be as large as its image ({image.shape[1]} x {image.shape[0]} px), but is "
                f"{label.shape[1]} x {label.shape[0]} px."
            )
        counts = label != IGNORE if self.task == "segmentation" else np.isfinite(label)
        if not counts.any():
            raise DataError(f"the label of {place} must have a pixel that counts, but has none; leave this row out.")

    def _value(self, row: Any, role: str, place: str) -> Any:
        column = self._columns[role]
        try:
            return row[column]
        except (KeyError, IndexError, TypeError) as error:
            if isinstance(row, Mapping):
                hint = did_you_mean(str(column), map(str, row))
            else:
                hint = f": rows are of type {type(row).__name__}, whose columns are numbers such as {role}=0."
            raise DataError(f"{place} must have the column {column!r} ({role}), but has not{hint}") from error

    def _text(self, row: Any, role: str, place: str) -> str | None:
        if self._columns[role] is None:
            return None
        value = self._value(row, role, place)
        if value is None or value == "":
            raise DataError(f"{place} must have a {role} in the column {self._columns[role]!r}, but has none.")
        return value if isinstance(value, str) else str(value.item() if hasattr(value, "item") else value)

    def _label(self, value: Any, origin: str) -> tuple[np.ndarray[Any, Any], int | str | None]:
        """The answer, and for classification the class, whose id may not be known yet."""
        if self.task == "segmentation":
            return mask_of(value, len(self._declared), self._ignore, origin), None
        if self.task == "depth":
            return depth_of(value, self._unit, origin), None
        found = class_of(value, origin)
        known = self._declared
        if known and (found not in known if isinstance(found, str) else not 0 <= found < len(known)):
            raise DataError(
                f"{origin} must be one of {len(known)} classes, but is {found!r}{did_you_mean(str(found), known)}"
            )
        return np.empty(0), known.index(found) if known and isinstance(found, str) else found

    def _class_id(self, row: _Row) -> np.ndarray[Any, Any]:
        number = self.class_names.index(row.answer) if isinstance(row.answer, str) else row.answer
        return np.array(number, np.int64)

    def _names(self, classes: int | Sequence[str] | None, label: Column) -> tuple[str, ...]:
        """Classes as they are declared; empty where they are not."""
        if classes is None and self.task == "classification":
            features = [getattr(rows, "features", None) for rows in self._parts.values()]
            declared = [entry[label] for entry in features if isinstance(entry, Mapping) and label in entry]
            classes = next((entry.names for entry in declared if getattr(entry, "names", None)), None)
            if classes is None:
                return ()
        if self.task == "depth":
            if classes is not None:
                raise SpecificationError(f"classes must be left out for depth, but got {classes!r}.")
            return ()
        if classes is None:
            raise SpecificationError("classes must be given for segmentation: their number, or names in order of id.")
        names = tuple(f"class {number}" for number in range(classes)) if isinstance(classes, int) else tuple(classes)
        if not 2 <= len(names) <= MAX_CLASSES or len(set(names)) < len(names):
            raise SpecificationError(f"there must be 2 to {MAX_CLASSES} different classes, but got {classes!r}.")
        return names

    def _names_in_rows(self) -> tuple[str, ...]:
        answers = {row.answer for row in self._rows}
        texts = {answer for answer in answers if isinstance(answer, str)}
        numbers = {answer for answer in answers if isinstance(answer, int)}
        if texts and numbers:
            raise DataError("labels must be class names or ids throughout, but both are in the rows.")
        names = class_names_of(texts) if texts else [f"class {number}" for number in range(max(numbers) + 1)]
        if not 2 <= len(names) <= MAX_CLASSES or min(numbers, default=0) < 0:
            raise DataError(
                f"labels must be of 2 to {MAX_CLASSES} classes, by id from 0 on, but are "
                f"{sorted(answers, key=str)[:5]}."
            )
        return tuple(names)


def _place(part: str, index: int) -> str:
    return f"row {index}{f' of {part}' if part else ''}"


def _parts_of(data: Rows | Mapping[str, Rows]) -> dict[str, Rows]:
    """Rows by split; by an empty name where the splits are not known yet."""
    parts = dict(data) if isinstance(data, Mapping) else {"": data}
    if isinstance(data, Mapping):
        for name in parts:
            if name not in get_args(Split):
                raise SpecificationError(f"data has the split {name!r}{did_you_mean(str(name), get_args(Split))}")
        if "train" not in parts or "test" not in parts:
            raise SpecificationError(
                f"data must have the splits train and test, but has {', '.join(parts) or 'none'}: final scores come "
                "from a test split that the search never sees."
            )
    for name, rows in parts.items():
        try:
            len(rows)
        except (TypeError, NotImplementedError) as error:
            raise SpecificationError(
                f"data{f' of {name}' if name else ''} must have a length and rows by position, but "
                f"{type(rows).__name__} has not: make a list or a map-style data set of a stream first."
            ) from error
        if not hasattr(rows, "__getitem__"):
            raise SpecificationError(f"data must have rows by position, but {type(rows).__name__} has not.")
    return parts
