"""Data sets that exist in Python: PyTorch's, Hugging Face's, or any sequence of rows with named columns."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int64

from diffsift.common.reporting import Reporter
from diffsift.errors import DataError, SpecificationError, did_you_mean

from ._base import Dataset
from ._cache import SampleCache
from ._checks import (
    check_label,
    class_names_of,
    joined_digest,
    read_all,
    refuse_torn_groups,
    refuse_untaught,
    sorted_classes,
    unknown_pixels,
)
from ._row_values import class_of, depth_of, image_of, mask_of, normals_of
from ._samples import IGNORE, MAX_CLASSES, SPLITS, Label, Sample, Samples, Split, check_split_name
from ._splits import SeedSplit

Column = str | int
"""A key of rows that are mappings, or a position in rows that are tuples."""

_TASKS = ("segmentation", "depth", "normals", "classification")
_WITHOUT_CLASSES = ("depth", "normals")


@runtime_checkable
class Rows(Protocol):
    """Rows by position, the same ones each time."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class _Row:
    """What is remembered of a row once it was read.

    Attributes:
        table: name of the split whose rows it is one of; empty where all rows are in one table.
        index: its position in the table.
        name: of the sample.
        group: of the sample.
        split: the split it belongs to; None until it is split by fractions.
        answer: its class, for classification.
        unknown: (values that are not known, values), for depth and normals.
        digest: of everything that the sample is made of.
    """

    table: str
    index: int
    name: str
    group: str
    split: str | None
    answer: int | str | None
    unknown: tuple[int, int]
    digest: str

    @property
    def origin(self) -> str:
        """What it is called in messages."""
        return _origin(self.table, self.index)


class MappedDataset(Dataset):
    """Rows with an image and its answer in named columns, for segmentation, depth, normals or classification.

    Takes any ``torch.utils.data.Dataset`` with a length, any Hugging Face data set or ``DatasetDict``, and any sequence
    of mappings. All rows are read once to check them and to digest their content. Later, a row is read when it is
    needed, and the first ones stay in memory (see `SampleCache`). A row that differs from what it was when it was
    checked (a random transform) is refused.

    Args:
        data: the rows; or a mapping of ``train``, ``test`` and optionally ``validation`` to rows of their own.
        image: column of images: Pillow's, arrays of 0 to 255 or of 0 to 1 with channels first or last, or paths.
        label: column of answers. Segmentation: class ids per pixel (picture, array or path of a PNG). Depth: metres per
            pixel. Normals: unit vectors, (height, width, 3), or paths as in a ``normals-folder``. Classification: class
            names or ids.
        group: column of what belongs together: rows of one group are never in different splits or folds.
        split: column with ``train``, ``validation`` or ``test``.
        prompt: column of texts that condition the model on each image; not to be made from labels.
        task: what the labels are.
        classes: names in order of id, or how many there are. None, for classification alone: the names that a Hugging
            Face data set declares, or those found in the rows.
        ignore: label of pixels that do not count.
        depth_unit: metres that 1 stands for where depths are whole numbers; None: such depths are refused.
        fractions: shares of train, validation and test, where neither `data` nor a column names the splits.
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
                "diffsift.datasets.Dataset."
            )
        if isinstance(data, Mapping) and split is not None:
            raise SpecificationError("data must be rows where a split column is named, but is a mapping of splits.")
        self.task = task
        self._tables = _tables_of(data)
        self._columns = {"image": image, "label": label, "group": group, "split": split, "prompt": prompt}
        self._ignore, self._unit, self._rule = ignore, depth_unit, SeedSplit(fractions, seed)
        self._cache = SampleCache()
        self._declared = self._names(classes, label)
        self.class_names = () if task in _WITHOUT_CLASSES else self._declared or self._names_in_rows()

    def content(self) -> dict[str, Any]:
        digests: dict[str, str] = {
            split: joined_digest(row.digest for row in rows) for split, rows in self._splits.items()
        }
        fixed = {"kind": "mapped", "format": 1, "task": self.task, "classes": list(self.class_names)}
        return {**fixed, "ignore": self._ignore, **digests}

    def split(self, name: Split) -> Samples:
        check_split_name(name)
        rows = self._splits[name]
        return Samples(self._load, [row.name for row in rows], [row.group for row in rows])

    @property
    def has_prompts(self) -> bool:
        return self._columns["prompt"] is not None

    def check(self, reporter: Reporter | None = None) -> None:
        """Read every row once.

        Args:
            reporter: told the progress; default: nobody.

        Raises:
            DataError: a column is missing, a value is not what it should be, a group is in two splits, or a class has
                no training image; the message says which row.
        """
        if "_rows" not in vars(self):
            self._rows = self._read_rows(reporter)
        if self.task == "classification":
            rows = self._splits.items()
            refuse_untaught({split: [(row.answer, row.origin) for row in members] for split, members in rows})
        for split, members in self._splits.items():
            unknown, values = (sum(row.unknown[position] for row in members) for position in (0, 1))
            self._unknown[split] = (unknown, values)

    @cached_property
    def _rows(self) -> list[_Row]:
        """All rows; the images do not outlive the reading."""
        return self._read_rows(None)

    def _read_rows(self, reporter: Reporter | None) -> list[_Row]:
        positions = [(table, index) for table, rows in self._tables.items() for index in range(len(rows))]
        found = list(read_all(lambda position: self._read(*position)[0], positions, "reading rows", reporter, 1))
        if not found:
            raise DataError("data must have at least one row, but has none.")
        return found

    @cached_property
    def _by_name(self) -> dict[str, _Row]:
        return {row.name: row for row in self._rows}

    @cached_property
    def _splits(self) -> dict[Split, list[_Row]]:
        if any(row.split is None for row in self._rows):
            rows = self._by_name
            assigned = self._rule.assign(rows.keys(), lambda name: rows[name].group)
            return {split: [rows[name] for name in sorted(names, key=int)] for split, names in assigned.items()}
        found: dict[Split, list[_Row]] = {split: [row for row in self._rows if row.split == split] for split in SPLITS}
        refuse_torn_groups({split: [(row.group, row.origin) for row in rows] for split, rows in found.items()}, "data")
        return found

    def _load(self, name: str) -> Sample:
        return self._cache.get(name, self._read_again)

    def _read_again(self, name: str) -> Sample:
        known = self._by_name[name]
        row, sample = self._read(known.table, known.index)
        if row.digest != known.digest:
            raise DataError(
                f"{known.origin} must be the same each time it is read, but has changed: turn random transforms off."
            )
        return sample if self.task != "classification" else replace(sample, label=self._class_id(known))

    def _read(self, table: str, index: int) -> tuple[_Row, Sample]:
        """A row and its sample; a class that is named gets its id only once all rows are known."""
        origin = _origin(table, index)
        row = self._tables[table][index]
        image = image_of(self._value(row, "image", origin), f"the image of {origin}")
        label, answer = self._label(self._value(row, "label", origin), f"the label of {origin}")
        check_label(self.task, label, (image.shape[0], image.shape[1]), f"the label of {origin}")
        name = f"{table}/{index}" if table else str(index)
        group, split, prompt = (self._text(row, role, origin) for role in ("group", "split", "prompt"))
        if split is not None and split not in SPLITS:
            raise DataError(f"the split of {origin} must be train, validation or test, but is {split!r}.")
        parts = [name, str(group), str(prompt), str(answer), str(image.shape)]
        pixels = label.tobytes() if self.task != "classification" else b""  # a class is among the texts
        content = hashlib.sha256("\n".join(parts).encode() + image.tobytes() + pixels)
        unknown = unknown_pixels(label, self.task)
        found = _Row(table, index, name, group or name, table or split, answer, unknown, content.hexdigest())
        return found, Sample(name, image, label, found.group, prompt)

    def _value(self, row: Any, role: str, origin: str) -> Any:
        column = self._columns[role]
        try:
            return row[column]
        except (KeyError, IndexError, TypeError) as error:
            if isinstance(row, Mapping):
                hint = did_you_mean(str(column), map(str, row))
            else:
                hint = f": rows are of type {type(row).__name__}, whose columns are numbers such as {role}=0."
            raise DataError(f"{origin} must have the column {column!r} ({role}), but has not{hint}") from error

    def _text(self, row: Any, role: str, origin: str) -> str | None:
        if self._columns[role] is None:
            return None
        value = self._value(row, role, origin)
        if value is None or value == "":
            raise DataError(f"{origin} must have a {role} in the column {self._columns[role]!r}, but has none.")
        return value if isinstance(value, str) else str(value.item() if hasattr(value, "item") else value)

    def _label(self, value: Any, origin: str) -> tuple[Label, int | str | None]:
        """The label, and for classification the class; its id, and so the label, may not be known yet."""
        if self.task == "segmentation":
            return mask_of(value, len(self._declared), self._ignore, origin), None
        if self.task == "depth":
            return depth_of(value, self._unit, origin), None
        if self.task == "normals":
            return normals_of(value, origin), None
        found = class_of(value, origin)
        known = self._declared
        if known and (found not in known if isinstance(found, str) else not 0 <= found < len(known)):
            raise DataError(
                f"{origin} must be one of {len(known)} classes, but is {found!r}{did_you_mean(str(found), known)}"
            )
        return np.array(-1, np.int64), known.index(found) if known and isinstance(found, str) else found

    def _class_id(self, row: _Row) -> Int64[np.ndarray, ""]:
        number = self.class_names.index(row.answer) if isinstance(row.answer, str) else row.answer
        return np.array(number, np.int64)

    def _names(self, classes: int | Sequence[str] | None, label: Column) -> tuple[str, ...]:
        """Classes as they are declared; empty where they are not."""
        if classes is None and self.task == "classification":
            features = [getattr(rows, "features", None) for rows in self._tables.values()]
            declared = [entry[label] for entry in features if isinstance(entry, Mapping) and label in entry]
            classes = next((entry.names for entry in declared if getattr(entry, "names", None)), None)
            if classes is None:
                return ()
        if self.task in _WITHOUT_CLASSES:
            if classes is not None:
                raise SpecificationError(f"classes must be left out for {self.task}, but got {classes!r}.")
            return ()
        if classes is None:
            raise SpecificationError("classes must be given for segmentation: their number, or names in order of id.")
        return class_names_of(classes)

    def _names_in_rows(self) -> tuple[str, ...]:
        answers = {row.answer for row in self._rows}
        texts = {answer for answer in answers if isinstance(answer, str)}
        numbers = {answer for answer in answers if isinstance(answer, int)}
        if texts and numbers:
            raise DataError("labels must be class names or ids throughout, but both are in the rows.")
        count = len(texts) or max(numbers) + 1
        if not 2 <= count <= MAX_CLASSES or min(numbers, default=0) < 0:
            raise DataError(
                f"labels must be of 2 to {MAX_CLASSES} classes, by id from 0 on, but are "
                f"{sorted(answers, key=str)[:5]}."
            )
        return sorted_classes(texts) if texts else class_names_of(count)


def _origin(table: str, index: int) -> str:
    return f"row {index}{f' of {table}' if table else ''}"


def _tables_of(data: Rows | Mapping[str, Rows]) -> dict[str, Rows]:
    """Rows by split; under an empty name where the splits are not known yet."""
    tables = dict(data) if isinstance(data, Mapping) else {"": data}
    if isinstance(data, Mapping):
        for name in tables:
            if name not in SPLITS:
                raise SpecificationError(f"data has the split {name!r}{did_you_mean(str(name), SPLITS)}")
        if "train" not in tables or "test" not in tables:
            raise SpecificationError(
                f"data must have the splits train and test, but has {', '.join(tables) or 'none'}: final scores come "
                "from a test split that the search never sees."
            )
    for name, rows in tables.items():
        try:
            len(rows)
        except (TypeError, NotImplementedError) as error:
            raise SpecificationError(
                f"data{f' of {name}' if name else ''} must have a length and rows by position, but "
                f"{type(rows).__name__} has not: make a list or a map-style data set of a stream first."
            ) from error
        if not hasattr(rows, "__getitem__"):
            raise SpecificationError(f"data must have rows by position, but {type(rows).__name__} has not.")
    return tables
