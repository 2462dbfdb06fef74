"""Errors of per-pixel regression, such as depth, image by image.

Notation, over the known pixels of one image with weights w that sum to 1, truth d > 0 and prediction p:

    RMSE = sqrt(sum w (p - d)^2)              in the unit of the truth
    abs-rel = sum w |p - d| / d
    delta_n = sum w [max(p / d, d / p) < 1.25^n]    n = 1, 2, 3

The measures of a split are means over its images (Eigen et al. 2014). *Scale-aware* ones compare p as it is;
*scale-and-shift aligned* ones first replace p by a p + b with the a and b that minimise sum w (a p + b - d)^2 in that
image (Ranftl et al. 2020, but in depth itself), which forgives a wrong scale and offset.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64

DEPTH_MEASURES = ("rmse", "abs-rel", "delta1", "delta2", "delta3")
_SMALLEST = 1e-6
"""Of the truth's mean: predictions are raised to it where a ratio is taken, so that ratios exist."""


def align_scale_and_shift(
    predicted: Float[np.ndarray, "points"], truth: Float[np.ndarray, "points"], weights: Float[np.ndarray, "points"]
) -> Float64[np.ndarray, "points"]:
    """Fit predictions to the truth by an affine function, by weighted least squares.

    Args:
        predicted: predictions in any unit.
        truth: true values.
        weights: how much each point counts, 0 or above, not all 0.

    Returns:
        The fitted predictions, in the unit of the truth.
    """
    normalised = weights / weights.sum()
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    centered, mean = predicted - normalised @ predicted, normalised @ truth
    variance = normalised @ centered**2
    slope = (normalised @ (centered * (truth - mean))) / variance if variance > 0 else 0.0
    return np.asarray(mean + slope * centered)


def depth_measures(
    predicted: Float[np.ndarray, "points"],
    truth: Float[np.ndarray, "points"],
    weights: Float[np.ndarray, "points"] | None = None,
    *,
    aligned: bool = False,
) -> dict[str, float]:
    """`DEPTH_MEASURES` of one image; points whose truth is not a number, or not above 0, do not count.

    Args:
        predicted: predicted values.
        truth: true values, in the same unit.
        weights: how much each point counts, 0 or above; None: 1 each.
        aligned: fit the predictions to the truth first, by `align_scale_and_shift`.

    Returns:
        One value per measure; an empty mapping where no point counts.

    Raises:
        ValueError: shapes differ, or a prediction is not finite.

    Examples:
        >>> found = depth_measures(np.array([2.0, 4.0]), np.array([1.0, 4.0]))
        >>> found["abs-rel"], found["delta1"]
        (0.5, 0.5)
    """
    if predicted.shape != truth.shape or (weights is not None and weights.shape != truth.shape):
        raise ValueError(f"prediction and truth must have one shape, but got {predicted.shape} and {truth.shape}.")
    if not np.isfinite(predicted).all():
        raise ValueError("predictions must be finite, but some are not.")
    share = np.ones(truth.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    known = np.isfinite(truth) & (truth > 0) & (share > 0)
    if not known.any():
        return {}
    d, p, share = truth[known].astype(np.float64), predicted[known].astype(np.float64), share[known]
    share = share / share.sum()
    if aligned:
        p = align_scale_and_shift(p, d, share)
    error = p - d
    positive = np.maximum(p, _SMALLEST * (share @ d))
    ratio = np.maximum(positive / d, d / positive)
    return {
        "rmse": float(np.sqrt(share @ error**2)),
        "abs-rel": float(share @ (np.abs(error) / d)),
        **{f"delta{n}": float(share @ (ratio < 1.25**n)) for n in (1, 2, 3)},
    }
