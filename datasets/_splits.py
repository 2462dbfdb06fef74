"""Rules that say which files of a folder belong to which split."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import yaml

from diffsift.common.yaml_files import load_yaml
from diffsift.errors import DataError, SpecificationError, did_you_mean

from ._names import with_form_of
from ._samples import SPLITS, Split

Assignment = dict[Split, tuple[str, ...]]
"""The sorted stems of each of the three splits."""


class SplitRule(ABC):
    """Says which stems belong to which split.

    Attributes:
        covers_all: whether every file of the folders is used, so that one without its partner is an error; otherwise
            files that are not listed are left alone.
    """

    covers_all: ClassVar[bool]

    @abstractmethod
    def assign(self, stems: Collection[str], group_of: Callable[[str], str]) -> Assignment:
        """Distribute stems over the splits.

        Args:
            stems: of all images there are.
            group_of: the group of a stem.

        Returns:
            The sorted stems of each split; train and test are not empty, and no stem is in two splits.

        Raises:
            DataError: the rule does not fit the stems; the message names the split file.
        """


@dataclass(frozen=True)
class SeedSplit(SplitRule):
    """Splits at random by seed, whole groups at a time, in shares of about these fractions.

    Groups are ordered by a hash of seed and name, so the result depends neither on the order of files nor on the
    machine. Without a validation share the search cross-validates over the training split.

    Attributes:
        fractions: shares of train, validation and test; they sum to 1, and train and test are above 0.
        seed: any integer.

    Raises:
        SpecificationError: fractions are out of range or do not sum to 1.
    """

    fractions: tuple[float, float, float] = (0.8, 0.0, 0.2)
    seed: int = 0

    covers_all: ClassVar[bool] = True

    def __post_init__(self) -> None:
        train, validation, test = self.fractions
        if not (0 < train < 1 and 0 <= validation < 1 and 0 < test < 1 and abs(train + validation + test - 1) < 1e-6):
            raise SpecificationError(
                "fractions of train, validation and test must sum to 1, with train and test above 0 and validation at "
                f"least 0, but got {self.fractions}."
            )

    def assign(self, stems: Collection[str], group_of: Callable[[str], str]) -> Assignment:
        sizes = Counter(group_of(stem) for stem in stems)
        split_of: dict[str, Split] = {}
        before = 0
        for group in sorted(sizes, key=lambda group: hashlib.blake2b(f"{self.seed}:{group}".encode()).digest()):
            split_of[group] = self._split_at((before + sizes[group] / 2) / len(stems))
            before += sizes[group]
        assignment: Assignment = {
            name: tuple(sorted(stem for stem in stems if split_of[group_of(stem)] == name)) for name in SPLITS
        }
        for name, fraction in zip(SPLITS, self.fractions, strict=True):
            if fraction > 0 and not assignment[name]:
                raise DataError(
                    f"the {name} split must get an image, but {fraction:g} of {len(stems)} images in {len(sizes)} "
                    "groups leave it none; add images or change the fractions."
                )
        return assignment

    def _split_at(self, position: float) -> Split:
        """The split at a position in [0, 1] of the ordered images."""
        train, validation, _ = self.fractions
        if position < train:
            return "train"
        return "validation" if position < train + validation else "test"


@dataclass(frozen=True)
class ListSplit(SplitRule):
    """Splits by one text file each, UTF-8, with one stem (file name without suffix) per line.

    Attributes:
        train: file of the training images.
        test: file of the test images.
        validation: file of the validation images; None: there are none.
    """

    train: Path
    test: Path
    validation: Path | None = None

    covers_all: ClassVar[bool] = False

    def assign(self, stems: Collection[str], group_of: Callable[[str], str]) -> Assignment:
        files: dict[Split, Path | None] = {"train": self.train, "validation": self.validation, "test": self.test}
        listed: dict[Split, tuple[Path, list[str]]] = {}
        for name, path in files.items():
            if path is not None:
                lines = (line.strip() for line in _read_text(Path(path)).splitlines())
                listed[name] = (Path(path), [line for line in lines if line])
        return _assign_listed(listed, stems)


@dataclass(frozen=True)
class FileSplit(SplitRule):
    """Splits by one JSON or YAML file that maps train, test and optionally validation to lists of stems.

    Stems are text: in JSON they stand in quotes.

    Attributes:
        path: of the file.
    """

    path: Path

    covers_all: ClassVar[bool] = False

    def assign(self, stems: Collection[str], group_of: Callable[[str], str]) -> Assignment:
        path = Path(self.path)
        content = _read_mapping(path)
        listed: dict[Split, tuple[Path, list[str]]] = {}
        for name in content:
            if name not in SPLITS:
                raise DataError(f"split file {path} has the key {name!r}{did_you_mean(str(name), SPLITS)}")
        for split in SPLITS:
            names = content.get(split)
            if names is None and split == "validation":
                continue
            if not isinstance(names, list) or not all(isinstance(stem, str) for stem in names):
                raise DataError(f"split file {path} must map {split!r} to a list of stems written as text.")
            listed[split] = (path, names)
        return _assign_listed(listed, stems)


def _assign_listed(listed: Mapping[Split, tuple[Path, list[str]]], stems: Collection[str]) -> Assignment:
    known = set(stems)
    home: dict[str, Split] = {}
    for name, (path, written) in listed.items():
        if not written:
            raise DataError(f"split file {path} must name at least one image for {name}, but names none.")
        members = with_form_of(written, known)
        missing = [stem for stem in members if stem not in known]
        if missing:
            others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
            raise DataError(
                f"split file {path} names {missing[0]!r}{others} for {name}, but there is no image of that stem "
                f"(file name without folder and suffix){did_you_mean(missing[0], known)}"
            )
        for stem in members:
            if stem in home:
                where = f"{home[stem]} and {name}" if home[stem] != name else f"{name} twice"
                raise DataError(
                    f"every stem must be in one split once, but split file {path} puts {stem!r} in {where}."
                )
            home[stem] = name
    return {name: tuple(sorted(stem for stem in home if home[stem] == name)) for name in SPLITS}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys must differ."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a key stands twice among {', '.join(name for name, _ in pairs)[:100]}")
    return found


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"split file {path} cannot be read as UTF-8 text: {error}.") from error


def _read_mapping(path: Path) -> dict[str, Any]:
    text = _read_text(path)
    try:
        is_json = path.suffix.lower() == ".json"
        # As text, since the stem 0001 must not become the number 1.
        content = json.loads(text, object_pairs_hook=_unique) if is_json else load_yaml(text, as_text=True)
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"split file {path} cannot be read as JSON or YAML: {reason}.") from error
    if not isinstance(content, dict):
        raise DataError(f"split file {path} must map split names to lists of stems, but holds another structure.")
    return content
