"""PCK, the percentage of correct keypoints.

Notation: for a pair of images, keypoints k visible in both, truth t_k and prediction p_k in pixels of the target.
A keypoint is correct at threshold alpha where ||p_k - t_k|| <= alpha L, with L the longer edge of the target image
(*by image*) or of the target object's box (*by box*). Per point: correct keypoints over all keypoints of all pairs. Per
image: the mean over pairs of each pair's fraction. The two differ where pairs have different numbers of keypoints.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float64


def correct_keypoints(
    predicted: Float[np.ndarray, "keypoints 2"],
    truth: Float[np.ndarray, "keypoints 2"],
    *,
    size: Sequence[float],
    threshold: float,
    box: Sequence[float] | None = None,
) -> Float64[np.ndarray, "2"]:
    """Count the keypoints of one pair that are predicted correctly.

    Args:
        predicted: (x, y) in [0, 1] in the target image.
        truth: (x, y) in [0, 1]; not a number where the keypoint does not count.
        size: (height, width) of the target image in pixels.
        threshold: alpha, above 0.
        box: (x0, y0, x1, y1) in [0, 1] of the object in the target image; None: by image.

    Returns:
        (correct, counted) keypoints.

    Raises:
        ValueError: an argument is out of range.

    Examples:
        >>> correct_keypoints(
        ...     np.array([[0.5, 0.5], [0.0, 0.0]]), np.array([[0.55, 0.5], [1.0, 1.0]]), size=(100, 100), threshold=0.1
        ... )
        array([1., 2.])
    """
    if threshold <= 0:
        raise ValueError(f"a PCK threshold must be above 0, but got {threshold}.")
    edges = np.array([size[1], size[0]], dtype=np.float64)
    extent = edges if box is None else edges * (box[2] - box[0], box[3] - box[1])
    if not extent.max() > 0:
        raise ValueError(f"a box must have an extent above 0, but got {box}.")
    counted = np.isfinite(truth).all(-1)
    distance = np.linalg.norm((predicted[counted] - truth[counted]) * edges, axis=-1)
    return np.array([(distance <= threshold * extent.max()).sum(), counted.sum()], dtype=np.float64)


def by_pair(per_pair: Float[np.ndarray, "pairs 2"]) -> Float64[np.ndarray, "pairs 2"]:
    """Turn counts into what a mean over pairs is made of.

    Args:
        per_pair: (correct, counted) keypoints of each pair.

    Returns:
        (fraction of correct keypoints, 1) of each pair; (0, 0) where none counts.
    """
    counted = per_pair[:, 1]
    fraction = np.divide(per_pair[:, 0], counted, out=np.zeros(len(per_pair)), where=counted > 0)
    return np.stack([fraction, (counted > 0).astype(np.float64)], axis=1)
