"""Which pixels of a label are sampled, and how many pixels each one stands for.

Notation, for one image: V pixels that are not ignored, K classes present among them, n_c pixels of class c, S draws.
A draw takes, with probability 1 - b, any of the V pixels, and with probability b (the *balance*) first any of the K
classes and then any of its pixels. A pixel of class c is thus drawn with probability

    p_c = (1 - b) / V + b / (K n_c)

and gets the Horvitz-Thompson weight (Hansen-Hurwitz, as draws are with replacement) 1 / (S p_c). The expected sum of
the weights of any set of pixels is the number of its pixels, so weighted confusion matrices estimate those over all
pixels without bias, however rare classes are favoured.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, UInt8

from diffsift.datasets import IGNORE
from diffsift.errors import DataError

__all__ = ["Locations", "all_locations", "grid_points", "sample_locations", "sample_values", "sampling_probabilities"]


@dataclass(frozen=True)
class Locations:
    """Locations in one image, with their labels.

    Attributes:
        points: (x, y) in [0, 1]: centers of pixels of the label, ((column + 0.5) / width, (row + 0.5) / height).
        labels: class ids, values or vectors; `IGNORE` only where `all_locations` kept it.
        weights: how many pixels of the image a point stands for; 0 for ignored ones.
    """

    points: Float32[np.ndarray, "points 2"]
    labels: UInt8[np.ndarray, "points"] | Float32[np.ndarray, "points *axes"]
    weights: Float32[np.ndarray, "points"]

    def __len__(self) -> int:
        return len(self.labels)


def sample_locations(
    label: UInt8[np.ndarray, "height width"], count: int, *, seed: int, name: str, balance: float = 0.5
) -> Locations:
    """Draw pixels with replacement; ignored ones are never drawn.

    The draw depends on `seed`, `name`, the label and the other arguments alone, not on what was drawn before.

    Args:
        label: class ids, `IGNORE` where a pixel does not count.
        count: number of draws, at least 1.
        seed: any integer.
        name: of the sample; images of different names are drawn independently.
        balance: share of draws that favour rare classes, in [0, 1]. At 1 large classes are estimated from few draws.

    Returns:
        `count` locations in the order of drawing, with their Horvitz-Thompson weights.

    Raises:
        ValueError: `count` or `balance` is out of range, or the label is not a matrix.
        DataError: every pixel is ignored.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, but got {count}.")
    classes, sizes, probability = _class_probabilities(label, balance, name)
    flat = label.ravel()
    valid = np.flatnonzero(flat != IGNORE)
    # Pixels in the order of their classes: class number k begins at starts[k].
    ordered = valid[np.argsort(flat[valid], kind="stable")]
    starts = np.cumsum(sizes) - sizes

    rng = _generator_of(seed, name)
    balanced = rng.random(count) < balance
    anywhere = rng.integers(len(ordered), size=count)
    class_number = rng.integers(len(classes), size=count)
    within_class = starts[class_number] + rng.integers(sizes[class_number])
    pixels = ordered[np.where(balanced, within_class, anywhere)]

    labels = flat[pixels].astype(np.uint8)
    weights = 1.0 / (count * probability[np.searchsorted(classes, labels)])
    return Locations(_centers(pixels, label.shape), labels, weights.astype(np.float32))


def sample_values(label: Float32[np.ndarray, "height width *axes"], count: int, *, seed: int, name: str) -> Locations:
    """Draw pixels uniformly, with replacement, among those whose value or vector is known.

    Args:
        label: values, of which NaN, 0 and below are not known; or vectors, not known where a component is NaN.
        count: number of draws, at least 1.
        seed: any integer.
        name: of the sample; images of different names are drawn independently.

    Returns:
        `count` locations in the order of drawing; the weights are all (known pixels) / `count`.

    Raises:
        ValueError: `count` is out of range, or the label is no map of values or vectors.
        DataError: no value is known.
    """
    if count < 1:
        raise ValueError(f"count must be at least 1, but got {count}.")
    if label.ndim not in (2, 3):
        raise ValueError(f"label must have 2 axes, or 3 for vectors, but got {label.ndim}.")
    flat = label.reshape(label.shape[0] * label.shape[1], *label.shape[2:])
    known = np.flatnonzero(np.isfinite(flat).all(1) if flat.ndim == 2 else np.isfinite(flat) & (flat > 0))
    if not len(known):
        raise DataError(f"{name} must have a pixel whose value is known, but has none; leave this image out.")
    pixels = known[_generator_of(seed, name).integers(len(known), size=count)]
    weights = np.full(count, len(known) / count, dtype=np.float32)
    return Locations(_centers(pixels, label.shape[:2]), flat[pixels].astype(np.float32), weights)


def grid_points(side: int) -> Float32[np.ndarray, "points 2"]:
    """A regular grid of ``side x side`` points.

    Args:
        side: points per edge, at least 1.

    Returns:
        Centers (x, y) of the cells in [0, 1], row by row.
    """
    return _centers(np.arange(side * side), (side, side))


def all_locations(label: UInt8[np.ndarray, "height width"]) -> Locations:
    """Every pixel of a label, row by row.

    Args:
        label: class ids, `IGNORE` where a pixel does not count.

    Returns:
        All locations: ignored ones have the label `IGNORE` and the weight 0, all others the weight 1.

    Raises:
        ValueError: the label is not a matrix of uint8.
    """
    _check_label(label)
    labels = label.ravel().astype(np.uint8)
    return Locations(_centers(np.arange(label.size), label.shape), labels, (labels != IGNORE).astype(np.float32))


def sampling_probabilities(
    label: UInt8[np.ndarray, "height width"], *, balance: float = 0.5
) -> Float[np.ndarray, "height width"]:
    """The probability of each pixel in one draw of `sample_locations`.

    Args:
        label: class ids, `IGNORE` where a pixel does not count.
        balance: see `sample_locations`.

    Returns:
        Probabilities that sum to 1; 0 where ignored.

    Raises:
        ValueError: `balance` is out of range, or the label is not a matrix.
        DataError: every pixel is ignored.
    """
    classes, _, probability = _class_probabilities(label, balance, "the label")
    by_value = np.zeros(IGNORE + 1)
    by_value[classes] = probability
    probabilities: Float[np.ndarray, "height width"] = by_value[label]
    return probabilities


def _class_probabilities(
    label: UInt8[np.ndarray, "height width"], balance: float, name: str
) -> tuple[Int[np.ndarray, "present"], Int[np.ndarray, "present"], Float[np.ndarray, "present"]]:
    """The classes present (ascending), their sizes n_c and the probability p_c of each of their pixels."""
    _check_label(label)
    if not 0 <= balance <= 1:
        raise ValueError(f"balance must be in [0, 1], but got {balance}.")
    sizes = np.bincount(label.ravel(), minlength=IGNORE + 1)[:IGNORE]
    classes = np.flatnonzero(sizes)
    if not len(classes):
        raise DataError(f"{name} must have a pixel that counts, but all are ignored; leave this image out.")
    sizes = sizes[classes]
    return classes, sizes, (1 - balance) / sizes.sum() + balance / (len(classes) * sizes)


def _check_label(label: UInt8[np.ndarray, "height width"]) -> None:
    if label.ndim != 2 or label.dtype != np.uint8:
        raise ValueError(f"label must be a matrix of uint8, but got {label.ndim} dimensions of {label.dtype}.")


def _generator_of(seed: int, name: str) -> np.random.Generator:
    digest = hashlib.blake2b(f"locations:{seed}:{name}".encode(), digest_size=16).digest()
    return np.random.default_rng(int.from_bytes(digest, "little"))


def _centers(pixels: Int[np.ndarray, "points"], shape: tuple[int, ...]) -> Float32[np.ndarray, "points 2"]:
    height, width = shape
    rows, columns = np.divmod(pixels, width)
    return np.stack([(columns + 0.5) / width, (rows + 0.5) / height], axis=1).astype(np.float32)
