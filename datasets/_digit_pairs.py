"""Digit scenes made into pairs of images with keypoints that correspond."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8

from ._digit_rendering import Scene, SceneGenerator

_ELSEWHERE = 1_000_000  # scenes of class pairs are looked for from this number on, so none is used twice
_TRIES = 200


def paired_scene(
    generator: SceneGenerator, index: int
) -> tuple[UInt8[np.ndarray, "size size 3"], Float32[np.ndarray, "keypoints 2"]]:
    """Draw the image and keypoints of a sample; samples 2k and 2k + 1 are a pair.

    Even pairs are two warps of one scene (rotation, scale and shift; the keypoints are warped by the same map, so they
    are exact). Odd pairs are two scenes that show a digit of the same class; their keypoints correspond by normalised
    digit coordinates.

    Args:
        generator: draws the scenes.
        index: number of the sample, 0 or above.

    Returns:
        The image, and (x, y) of the keypoints in [0, 1], NaN where not visible.
    """
    pair, second = divmod(index, 2)
    if pair % 2 == 0:
        return _warped(generator.scene(2 * pair), np.random.default_rng([generator.seed, 77, index]))
    first = generator.scene(2 * pair)
    chosen = _with_a_shared_digit(generator, first, pair) if second else first
    return chosen.image, chosen.keypoints


def _with_a_shared_digit(generator: SceneGenerator, first: Scene, pair: int) -> Scene:
    for attempt in range(_TRIES):
        scene = generator.scene(_ELSEWHERE + pair * _TRIES + attempt)
        if np.isfinite(first.keypoints + scene.keypoints).any():
            return scene
    raise RuntimeError(f"no scene like number {2 * pair} was found in {_TRIES} tries; this cannot be chance.")


def _warped(
    scene: Scene, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "size size 3"], Float32[np.ndarray, "keypoints 2"]]:
    """The scene seen through a similarity: point p of the warp shows point A (p - c) + c + shift of the scene."""
    from scipy.ndimage import map_coordinates

    angle, scale = rng.uniform(-0.3, 0.3), rng.uniform(0.85, 1.15)
    shift = rng.uniform(-0.08, 0.08, 2)
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    turn = np.array([[cosine, -sine], [sine, cosine]])
    size = len(scene.image)
    centers = (np.arange(size) + 0.5) / size
    x, y = np.meshgrid(centers, centers)
    source = (np.stack([x.ravel(), y.ravel()], axis=1) - 0.5) @ turn.T + 0.5 + shift
    pixels = source[:, ::-1].T * size - 0.5
    colours = [
        map_coordinates(scene.image[..., c].astype(np.float32), pixels, order=1, mode="nearest") for c in range(3)
    ]
    image = np.stack(colours, axis=-1).reshape(size, size, 3)
    moved = (scene.keypoints - 0.5 - shift) @ np.linalg.inv(turn).T + 0.5
    inside = np.all((moved > 0) & (moved < 1), axis=-1, keepdims=True)
    return image.round().clip(0, 255).astype(np.uint8), np.where(inside, moved, np.nan).astype(np.float32)
