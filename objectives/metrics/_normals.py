"""Angular errors of surface normals, image by image.

Notation, over the known pixels of one image with weights w that sum to 1, unit normals n and predictions p of any
length:

    angle = arccos(p . n / |p|)                      in degrees, 0 to 180; 90 where p is zero
    mean-angle = sum w angle,   rmse-angle = sqrt(sum w angle^2)
    median-angle: the smallest angle that at least half of the weight does not exceed
    within-t = sum w [angle < t]                     t = 11.25, 22.5, 30

The measures of a split are means over its images, as El Banani et al. (CVPR 2024) take them of rmse-angle and within-t.
Other papers pool the pixels of all images instead.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

NORMALS_THRESHOLDS = {"within-11.25": 11.25, "within-22.5": 22.5, "within-30": 30.0}
"""Thresholds in degrees by the name of their measure: the share of pixels below, of which more is better."""

NORMALS_MEASURES = ("mean-angle", "median-angle", "rmse-angle", *NORMALS_THRESHOLDS)


def unit_vectors(vectors: Float[np.ndarray, "*axes 3"]) -> Float64[np.ndarray, "*axes 3"]:
    """Scale vectors to unit length.

    Args:
        vectors: of any length.

    Returns:
        Unit vectors of the same directions; zero where a vector is zero, not a number where it is not.
    """
    wide = vectors.astype(np.float64)
    lengths = np.linalg.norm(wide, axis=-1, keepdims=True)
    return np.asarray(wide / np.where(lengths == 0, 1, lengths))


def normals_measures(
    predicted: Float[np.ndarray, "points 3"],
    truth: Float[np.ndarray, "points 3"],
    weights: Float[np.ndarray, "points"] | None = None,
) -> dict[str, float]:
    """`NORMALS_MEASURES` of one image; points whose truth is not a number do not count.

    Args:
        predicted: predicted vectors, of any length.
        truth: true normals, of unit length.
        weights: how much each point counts, 0 or above; None: 1 each.

    Returns:
        One value per measure, angles in degrees; an empty mapping where no point counts.

    Raises:
        ValueError: shapes differ, or a prediction is not finite.

    Examples:
        >>> truth = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
        >>> found = normals_measures(np.array([[0.0, 0.0, 5.0], [0.0, 0.1, 0.1]]), truth)
        >>> round(found["mean-angle"], 3), found["within-30"]
        (22.5, 0.5)
    """
    if predicted.shape != truth.shape or (weights is not None and weights.shape != truth.shape[:1]):
        raise ValueError(f"prediction and truth must have one shape, but got {predicted.shape} and {truth.shape}.")
    if not np.isfinite(predicted).all():
        raise ValueError("predictions must be finite, but some are not.")
    counts = np.ones(len(truth)) if weights is None else np.asarray(weights, dtype=np.float64)
    known = np.isfinite(truth).all(1) & (counts > 0)
    if not known.any():
        return {}
    p, n, counts = unit_vectors(predicted[known]), unit_vectors(truth[known]), counts[known]
    share = counts / counts.sum()
    # Unlike the arc cosine of p . n, this is exact for small angles too, and 90 degrees where p is zero.
    angles = np.degrees(2 * np.arctan2(np.linalg.norm(p - n, axis=1), np.linalg.norm(p + n, axis=1)))
    order = np.argsort(angles)
    below = np.cumsum(counts[order])
    return {
        "mean-angle": float(share @ angles),
        "median-angle": float(angles[order[np.searchsorted(below, below[-1] / 2)]]),
        "rmse-angle": float(np.sqrt(share @ angles**2)),
        **{name: float(share @ (angles < threshold)) for name, threshold in NORMALS_THRESHOLDS.items()},
    }
