"""How alike the features of candidates are: what the bank knows of them without a label.

Notation, over n rows of training images, with a candidate's centered features X (n x C) of unit variance per channel:

    P = X X' (X X' + l I)^-1      the hat matrix of ridge regression on X, l = trace(X X') / min(n, C)
    M_ab = <P_a, P_b> / (|P_a| |P_b|)

Two candidates with equal hat matrices predict alike whatever the labels are, so their scores are equal (GULP:
Boix-Adsera et al., NeurIPS 2022, "GULP: a prediction-based metric between representations").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.linalg
from jaxtyping import Float, Int
from threadpoolctl import threadpool_limits

from diffsift.spaces import Candidate

from ._bank import Bank

_ROWS = 256
_NUMBERS = 60_000_000
"""Of all hat matrices together, at most: where the pool is large, there are fewer rows."""


def measured_similarity(bank: Bank, pool: Sequence[Candidate]) -> Float[np.ndarray, "pool pool"]:
    """M of every two candidates; labels are not looked at.

    Takes some milliseconds per candidate.

    Args:
        bank: holds the candidates.
        pool: the candidates.

    Returns:
        1 on the diagonal, symmetric, positive semi-definite; rounded to 1e-4, so that the last bits of a product do
        not matter.
    """
    count = max(16, min(_ROWS, int((_NUMBERS / len(pool)) ** 0.5)))
    images, rows = _spread_rows(bank, count)
    with threadpool_limits(1):  # of matrices this small, more threads make it slower
        hats = np.stack([_hat(bank[candidate].features[images][:, rows]) for candidate in pool])
        found = hats @ hats.T
    return np.asarray(np.round(found, 4), dtype=np.float64)


def _spread_rows(bank: Bank, count: int) -> tuple[Int[np.ndarray, "images"], Int[np.ndarray, "rows"]]:
    """Training images of each data set, and rows of their features, evenly spread: about `count` in all."""
    training, member, rows = bank.development.training, bank.development.member, bank.development.rows
    sets = [np.flatnonzero(training & (member == number)) for number in np.unique(member)]
    images = min(int(training.sum()), max(count // min(rows, 8), 1))
    each = max(1, min(rows, count // images))
    chosen = np.concatenate([_spread(entries, max(1, images // len(sets))) for entries in sets])
    return chosen, _spread(np.arange(rows), each)


def _spread(entries: Int[np.ndarray, "entries"], count: int) -> Int[np.ndarray, "some"]:
    """So many of them at most, evenly spread from the first to the last."""
    return np.asarray(entries[np.unique(np.linspace(0, len(entries) - 1, min(count, len(entries))).astype(int))])


def _hat(features: Float[np.ndarray, "images rows channels"]) -> Float[np.ndarray, "half"]:
    """The upper half of P as a vector of unit length whose products are those of the whole matrices."""
    x = features.reshape(-1, features.shape[-1]).astype(np.float32)
    x -= x.mean(0)
    gram = x @ x.T
    count = len(gram)
    penalty = max(float(np.trace(gram)) / min(count, x.shape[1]), 1e-12)
    gram.flat[:: count + 1] += penalty
    # P = I - l (X X' + l I)^-1
    hat = -penalty * scipy.linalg.inv(gram, overwrite_a=True, check_finite=False)
    hat.flat[:: count + 1] += 1.0
    above = np.triu_indices(count)
    half = hat[above] * np.where(above[0] == above[1], 1.0, np.sqrt(2.0))
    return np.asarray(half / max(float(np.linalg.norm(half)), 1e-12), dtype=np.float32)
