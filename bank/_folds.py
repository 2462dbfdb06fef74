"""Which images are held out together, and which are resampled together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from diffsift.errors import DataError


def refuse_one_group(groups: Sequence[str]) -> None:
    """Refuse training images that cannot be divided into what is fit on and what is held out."""
    if len(set(groups)) < 2:
        held = f"{len(groups)} image{'' if len(groups) == 1 else 's'} in one group"
        raise DataError(
            "without a validation split there must be at least two groups of training images to cross-validate over, "
            f"but the training split holds {held}: add images, or a validation split."
        )


def folds_by_group(groups: Sequence[str], folds: int, seed: int) -> Int[np.ndarray, "images"]:
    """Deal whole groups out to folds, in an order drawn with `seed`.

    Args:
        groups: group of each image.
        folds: their number.
        seed: any integer from 0 on.

    Returns:
        The fold of each image, from 0 on.
    """
    names = sorted(set(groups))
    order = np.random.default_rng(seed).permutation(len(names))
    fold_of = {names[group]: position % folds for position, group in enumerate(order)}
    return np.array([fold_of[group] for group in groups], dtype=np.int64)


def pack_groups(groups: Sequence[Sequence[str]]) -> tuple[str, ...]:
    """Groups of the results of several data sets, such that those of different data sets differ.

    Args:
        groups: group of each result, for each data set.

    Returns:
        Group of each result, one data set after another.
    """
    return tuple(f"{number}: {group}" for number, members in enumerate(groups) for group in members)
