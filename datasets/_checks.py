"""What all data sets are checked for, and the digests and notes that they have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from diffsift.common.reporting import NullReporter, Reporter
from diffsift.errors import DataError, SpecificationError

from ._samples import IGNORE, MAX_CLASSES, Label, Sample, Split

Task = TypeVar("Task")
Result = TypeVar("Result")

_LABELS = {  # by task: the label's type, and its number of axes
    "segmentation": ("uint8", 2),
    "depth": ("float32", 2),
    "classification": ("int64", 0),
    "correspondence": ("float32", 2),
    "normals": ("float32", 3),
}

_UNKNOWN = {  # by task: what the values are called, and which of them are unknown
    "depth": ("depth values", "0, negative or not finite"),
    "normals": ("normals", "not of unit length"),
}


@dataclass(frozen=True)
class SampleFacts:
    """What a check remembers of a sample.

    Attributes:
        name: of the sample.
        group: of the sample.
        digest: of its content.
        answer: the class id for classification, else 0.
        unknown: pixels of its depth or normals that are not known.
        values: all pixels of its depth or normals.
    """

    name: str
    group: str
    digest: str
    answer: int = 0
    unknown: int = 0
    values: int = 0


def facts_of(sample: Sample, task: str, digest: str) -> SampleFacts:
    """The facts of a sample that was checked."""
    answer = int(sample.label) if task == "classification" else 0
    return SampleFacts(sample.name, sample.group, digest, answer, *unknown_pixels(sample.label, task))


def unknown_pixels(label: Label, task: str) -> tuple[int, int]:
    """(unknown pixels, pixels) of a depth or normals map; (0, 0) for other tasks."""
    if task not in _UNKNOWN:
        return 0, 0
    pixels = label.shape[0] * label.shape[1]
    return int(np.isnan(label).reshape(pixels, -1).any(1).sum()), pixels


def check_sample(sample: Sample, task: str, classes: int) -> None:
    """Refuse a sample that is not what `Sample` says.

    Args:
        sample: any.
        task: of the data set.
        classes: number of classes.

    Raises:
        DataError: image or label have another type, shape or range.
    """
    image, label = sample.image, np.asarray(sample.label)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
        raise DataError(
            f"the image of {sample.name} must be uint8 (height, width, 3), but is {image.dtype} {image.shape}."
        )
    if task in _LABELS and (label.dtype.name, label.ndim) != _LABELS[task]:
        dtype, axes = _LABELS[task]
        raise DataError(
            f"the label of {sample.name} must be {dtype} with {axes} axes for {task}, but is {label.dtype} "
            f"{label.shape}."
        )
    check_label(task, label, (image.shape[0], image.shape[1]), f"the label of {sample.name}")
    ids = label[label != IGNORE] if task == "segmentation" else label if task == "classification" else np.zeros(0)
    if ids.size and not (ids.min() >= 0 and ids.max() < classes):
        raise DataError(
            f"the label of {sample.name} must hold class ids from 0 to {classes - 1}, but holds {ids.min()} to "
            f"{ids.max()}."
        )


def check_label(
    task: str, label: Label, size: tuple[int, int], origin: str, *, image: str = "", nothing: str = "has none"
) -> None:
    """Refuse a label per pixel that is not as large as its image, or in which no pixel counts.

    Args:
        task: of the data set; nothing is checked where its labels are not per pixel.
        label: any.
        size: (height, width) that the label must have.
        origin: what the label is called in messages.
        image: what its image is called in messages.
        nothing: what is said of a label in which no pixel counts.

    Raises:
        DataError: it is of another size, or nothing in it counts.
    """
    if task not in ("segmentation", "depth", "normals"):
        return
    if label.shape[:2] != size:
        raise DataError(
            f"{origin} must be as large as its image{f' {image}' if image else ''} ({size[1]} x {size[0]} px), but is "
            f"{label.shape[1]} x {label.shape[0]} px."
        )
    counted = label != IGNORE if task == "segmentation" else np.isfinite(label)
    if not counted.any():
        raise DataError(f"{origin} must have a pixel that counts, but {nothing}; leave this image out.")
    if task == "normals":
        _check_lengths(label, origin)


def _check_lengths(normals: Label, origin: str) -> None:
    """Refuse what does not hold unit vectors."""
    known = normals[np.isfinite(normals).all(2)]
    lengths = np.linalg.norm(known, axis=1)
    if normals.shape[2] != 3 or len(known) < np.isfinite(normals).any(2).sum() or np.abs(lengths - 1).max() > 1e-3:
        raise DataError(
            f"{origin} must hold unit vectors of 3 components, all of them NaN where a normal is unknown, but does not."
        )


def refuse_twice(names: Iterable[str]) -> None:
    """Raise `DataError` where two samples have the same name."""
    known: set[str] = set()
    for name in names:
        if name in known:
            raise DataError(f"samples must have different names, but there are two of {name!r}.")
        known.add(name)


def refuse_torn_groups(groups: Mapping[Split, Iterable[tuple[str, str]]], origin: str = "the data") -> None:
    """Refuse a group in two splits.

    Args:
        groups: (group, name) of the samples of each split.
        origin: what the data set is called in the message.

    Raises:
        DataError: samples of one group are in different splits.
    """
    home: dict[str, tuple[Split, str]] = {}
    for split, members in groups.items():
        for group, name in members:
            first, other = home.setdefault(group, (split, name))
            if first != split:
                raise DataError(
                    f"{origin} must keep a group in one split, but {group!r} is in {first} and {split} ({other!r} in "
                    f"{first}, {name!r} in {split})."
                )


def refuse_untaught(classes: Mapping[Split, Iterable[tuple[str | int | None, str]]]) -> None:
    """Refuse a class without a training image.

    Args:
        classes: (class, what the sample is called in messages) of the samples of each split.

    Raises:
        DataError: a class is in another split alone.
    """
    taught = {answer for answer, _ in classes["train"]}
    for split, samples in classes.items():
        for answer, origin in samples:
            if answer not in taught:
                raise DataError(
                    f"every class must have a training image, but {answer!r} has one in {split} alone ({origin}): add "
                    "training images of it, or split otherwise."
                )


def class_names_of(classes: int | Sequence[str]) -> tuple[str, ...]:
    """Names of classes by id: those given, or ``class 0``, ``class 1``, ... for a number.

    Raises:
        SpecificationError: there are fewer than 2 or more than `MAX_CLASSES`, or two of one name.
    """
    names = tuple(f"class {number}" for number in range(classes)) if isinstance(classes, int) else tuple(classes)
    if not 2 <= len(names) <= MAX_CLASSES:
        raise SpecificationError(f"there must be 2 to {MAX_CLASSES} classes, but got {len(names)}.")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise SpecificationError(f"class names must differ, but got {twice[0]!r} twice.")
    return names


def sorted_classes(labels: Iterable[str]) -> tuple[str, ...]:
    """The different labels in a fixed order: numbers by size, else by letter."""
    names = set(labels)
    return tuple(sorted(names, key=(lambda name: (int(name), name)) if all(map(str.isdecimal, names)) else None))


def unknown_values(task: str, split: str, unknown: int, values: int) -> str:
    """The note on values of depth or normals maps that do not count."""
    what, why = _UNKNOWN[task]
    share = f"{unknown} of {values} {what} ({unknown / values:.1%})"
    return f"{share} of the {split} split are unknown ({why}): they are masked"


def digest_of(sample: Sample) -> str:
    """SHA-256 of everything that a sample holds, in hexadecimal."""
    about = [sample.name, sample.group, str(sample.prompt), str(sample.box), str(sample.image.shape)]
    about += [str(sample.label.dtype), str(sample.label.shape)]
    return hashlib.sha256("\n".join(about).encode() + sample.image.tobytes() + sample.label.tobytes()).hexdigest()


def joined_digest(parts: Iterable[str]) -> str:
    """SHA-256 of several texts, shortened to 32 hexadecimal digits."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def read_all(
    work: Callable[[Task], Result],
    items: Sequence[Task],
    description: str,
    reporter: Reporter | None,
    threads: int,
) -> Iterator[Result]:
    """Results of some work on each item, in order; an error or an interrupt stops the work at once.

    Args:
        work: called in `threads` threads.
        items: what it is called with.
        description: of the work, for the progress bar.
        reporter: told the progress from the calling thread; None: nobody.
        threads: how many items are worked on at a time.
    """
    pool = ThreadPoolExecutor(threads)
    try:
        with (reporter or NullReporter()).progress(len(items), description, "image") as bar:
            for result in pool.map(work, items):
                yield result
                bar.update()
    finally:
        pool.shutdown(cancel_futures=True)
