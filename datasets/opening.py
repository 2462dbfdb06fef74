"""From the data's part of the specification to a checked data set with the answers that a task needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from diffsift.common.data_summary import say_what_data_hold
from diffsift.common.reporting import Reporter
from diffsift.errors import DataError, SpecificationError

from ._base import Dataset
from ._samples import Split
from .specification import DataKind


def open_dataset(data: DataKind, task: str) -> Dataset:
    """The data set that a specification describes; nothing is read yet.

    Args:
        data: the data's part of the specification, of any registered kind.
        task: `task.kind` of the search.

    Returns:
        The data set, whose `task` is the one asked for.

    Raises:
        SpecificationError: its answers are those of another task.
    """
    dataset = data.open(task)
    if dataset.task != task:
        raise SpecificationError(
            f"task.kind {task!r} needs data with labels for it, but data.kind {data.kind!r} has labels for "
            f"{dataset.task!r}."
        )
    return dataset


def check_splits(dataset: Dataset, reporter: Reporter | None = None) -> None:
    """Check all data, and that there is something to fit on and to test on.

    Args:
        dataset: any.
        reporter: told the progress; default: nobody.

    Raises:
        DataError: a file is not what it should be, the training or test split is empty, or classes are missing.
    """
    dataset.check(reporter)
    required: tuple[Split, ...] = ("train", "test")
    for split in required:
        if not len(dataset.split(split)):
            raise DataError(f"the {split} split must hold at least one image, but is empty.")
    dataset.refuse_unusable()


@contextmanager
def explaining_refusals(dataset: Dataset, reporter: Reporter | None) -> Iterator[None]:
    """Tell what a data set holds where it is refused: what was read of it may say why.

    Args:
        dataset: that is checked inside.
        reporter: gets a line for each split; None: nobody.

    Yields:
        Nothing.
    """
    try:
        yield
    except DataError:
        if dataset.was_read and reporter is not None:
            say_what_data_hold([dataset.summary()], reporter)
        raise


def searched_on(dataset: Dataset, folds: int) -> str:
    """What trials are scored on, in words.

    Args:
        dataset: any.
        folds: of the cross-validation where there is no validation split.

    Returns:
        Words for protocols and reports.
    """
    if len(dataset.split("validation")):
        return "the validation split"
    return f"{folds}-fold held-out images of the training split"
