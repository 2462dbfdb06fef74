"""Points on solids that two cameras look at: exact positions in both pictures, and whether they are seen."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .rendering import Renderer, Rendering


@dataclass(frozen=True)
class Keypoints:
    """Points of one scene.

    Attributes:
        source: float32 (points, 2), image coordinates (x, y) in pixels in the first view, where all are seen.
        target: float32 (points, 2), the same in the second view.
        visible: bool (points,), whether the second camera sees the point.
        world: float32 (points, 3), in metres.
    """

    source: np.ndarray
    target: np.ndarray
    visible: np.ndarray
    world: np.ndarray


@torch.no_grad()
def draw_keypoints(
    renderer: Renderer, first: Rendering, scene: int, count: int, rng: np.random.Generator
) -> Keypoints | None:
    """Random points of what the first camera sees of a scene's solids.

    Args:
        renderer: that drew the scenes.
        first: what it drew of view 0.
        scene: which of its scenes.
        count: how many points.
        rng: where from.

    Returns:
        The points at centres of pixels of the first view; none where it shows no solid.
    """
    solid = first.solid[scene]
    rows, columns = (solid >= 0).nonzero(as_tuple=True)
    if not len(rows):
        return None
    chosen = torch.from_numpy(rng.integers(0, len(rows), count))
    rows, columns = rows[chosen], columns[chosen]
    size = solid.shape[-1]
    source = torch.stack([columns, rows]).float() + 0.5
    owner = torch.full((count,), scene)
    points = _unproject(renderer, owner, source, first.depth[scene, rows, columns], size)
    target, _ = renderer.cameras[1].project(owner, points, size)
    visible = renderer.sees(1, owner, solid[rows, columns], points) & ((target > 0) & (target < size)).all(0)
    return Keypoints(source.T.numpy(), target.T.numpy(), visible.numpy(), points.T.numpy())


def _unproject(renderer: Renderer, scene: Tensor, pixels: Tensor, depth: Tensor, size: int) -> Tensor:
    origins, directions, length = renderer.cameras[0].rays(scene, pixels, size)
    return origins + depth * length * directions
