"""Points on solids in two pictures: of the same scene from two cameras, or of two scenes with a solid of the same kind.

In two scenes a point corresponds by its coordinates on the solid: stretched as the shapes differ, and turned by that of
the solid's own symmetries (any turn of a sphere, turns about the axis of a cone, half turns of a box) with which it
faces its camera as the other does. Textures are no part of it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .geometry import KINDS, distance_and_gradient
from .rendering import Renderer, Rendering
from .scenes import Scene, Solid


@dataclass(frozen=True)
class Keypoints:
    """Points in two pictures.

    Attributes:
        source: float32 (points, 2), image coordinates (x, y) in pixels in the first picture, where all are seen.
        target: float32 (points, 2), the same in the second picture.
        visible: bool (points,), whether the point is seen in the second picture.
        world: float32 (points, 3), where they are in the second picture's scene, in metres.
    """

    source: np.ndarray
    target: np.ndarray
    visible: np.ndarray
    world: np.ndarray


@torch.no_grad()
def draw_keypoints(
    renderer: Renderer, first: Rendering, scene: int, count: int, rng: np.random.Generator
) -> Keypoints | None:
    """Random points of what the first camera sees of a scene's solids, and where the second camera sees them.

    Args:
        renderer: that drew the scenes.
        first: what it drew of view 0.
        scene: which of its scenes.
        count: how many points.
        rng: where from.

    Returns:
        The points at centres of pixels of the first view; none where it shows no solid.
    """
    drawn = _draw_points(renderer, first, scene, first.solid[scene] >= 0, count, rng)
    if drawn is None:
        return None
    source, solid, points = drawn
    return _seen(renderer, 1, scene, solid, points, source, first.solid.shape[-1])


@torch.no_grad()
def draw_counterparts(
    renderer: Renderer, first: Rendering, scene: int, other: int, count: int, rng: np.random.Generator
) -> Keypoints | None:
    """Random points of a solid in one scene, and the corresponding ones of a solid of the same kind in another.

    Args:
        renderer: that drew the scenes.
        first: what it drew of view 0.
        scene: which of its scenes the points are drawn in.
        other: which of its scenes they are looked for in.
        count: how many points.
        rng: where from.

    Returns:
        The points, or none where no kind is seen in both scenes. Of several, the one seen largest in both is taken.
    """
    shared = _shared_solid(renderer, first, scene, other)
    if shared is None:
        return None
    mine, theirs = shared
    drawn = _draw_points(renderer, first, scene, first.solid[scene] == mine, count, rng)
    if drawn is None:
        return None
    source, _, points = drawn
    carried = _carry(renderer.scenes[scene], mine, renderer.scenes[other], theirs, points.T.double().numpy())
    solid = torch.full((count,), theirs)
    return _seen(renderer, 0, other, solid, torch.from_numpy(carried.T).float(), source, first.solid.shape[-1])


def _draw_points(
    renderer: Renderer, first: Rendering, scene: int, mask: Tensor, count: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor, Tensor] | None:
    """(2, count) centres of pixels of a mask, (count,) the solids they show, (3, count) the points in the world."""
    rows, columns = mask.nonzero(as_tuple=True)
    if not len(rows):
        return None
    chosen = torch.from_numpy(rng.integers(0, len(rows), count))
    rows, columns = rows[chosen], columns[chosen]
    source = torch.stack([columns, rows]).float() + 0.5
    owner = torch.full((count,), scene)
    origins, directions, length = renderer.cameras[0].rays(owner, source, mask.shape[-1])
    points = origins + first.depth[scene, rows, columns] * length * directions
    return source, first.solid[scene][rows, columns], points


def _seen(
    renderer: Renderer, view: int, scene: int, solid: Tensor, points: Tensor, source: Tensor, size: int
) -> Keypoints:
    owner = torch.full(solid.shape, scene)
    target, _ = renderer.cameras[view].project(owner, points, size)
    visible = renderer.sees(view, owner, solid, points) & ((target > 0) & (target < size)).all(0)
    return Keypoints(source.T.numpy(), target.T.numpy(), visible.numpy(), points.T.numpy())


def _shared_solid(renderer: Renderer, first: Rendering, scene: int, other: int) -> tuple[int, int] | None:
    """Positions of two solids of one kind, whose smaller picture is the largest."""
    best, found = 0, None
    for mine, solid in enumerate(renderer.scenes[scene].solids):
        for theirs, candidate in enumerate(renderer.scenes[other].solids):
            if solid.kind != candidate.kind:
                continue
            pixels = min(int((first.solid[scene] == mine).sum()), int((first.solid[other] == theirs).sum()))
            if pixels > best:
                best, found = pixels, (mine, theirs)
    return found


def _carry(scene: Scene, mine: int, other: Scene, theirs: int, points: np.ndarray) -> np.ndarray:
    """Where points (n, 3) of a solid are on a solid of the same kind in another scene; both in their worlds."""
    source, target = scene.solids[mine], other.solids[theirs]
    frames = [
        _viewing_frame(solid, of.cameras[0].eye, of.cameras[0].axes[1])
        for solid, of in ((source, scene), (target, other))
    ]
    turns = _symmetries(KINDS[source.kind], *frames)
    turn = max(turns, key=lambda rotation: float(frames[1][:, 0] @ rotation @ frames[0][:, 0]))
    local = (points - source.centre) @ source.rotation
    stretched = _stretched(KINDS[source.kind], local, source.shape, target.shape)
    return np.asarray(_onto_surface(target, stretched @ turn.T) @ target.rotation.T + target.centre)


def _viewing_frame(solid: Solid, eye: np.ndarray, up: np.ndarray) -> np.ndarray:
    """(3, 3) columns in the solid's own frame: towards the eye, the camera's up made perpendicular, and their cross."""
    towards = solid.rotation.T @ (eye - solid.centre)
    towards = towards / np.linalg.norm(towards)
    above = solid.rotation.T @ up
    above = above - (above @ towards) * towards
    above = above / np.linalg.norm(above)
    return np.stack([towards, above, np.cross(towards, above)], 1)


def _symmetries(kind: str, source: np.ndarray, target: np.ndarray) -> list[np.ndarray]:
    """Turns of a solid onto itself; of a continuous family, the one that brings one viewing frame nearest the other."""
    if kind == "sphere":
        return [target @ source.T]
    halves = [np.diag(signs) for signs in ((1.0, 1, 1), (1.0, -1, -1), (-1.0, 1, -1), (-1.0, -1, 1))]
    if kind == "box":
        return halves
    if kind == "pyramid":
        return [_about_axis(quarter * np.pi / 2) for quarter in range(4)]
    turns = []
    for flip in halves[:1] if kind == "cone" else halves[:2]:
        seen_from = flip @ source[:, 0]
        angle = np.arctan2(target[1, 0], target[0, 0]) - np.arctan2(seen_from[1], seen_from[0])
        turns.append(_about_axis(float(angle)) @ flip)
    return turns


def _about_axis(angle: float) -> np.ndarray:
    cosine, sine = np.cos(angle), np.sin(angle)
    return np.array([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]])


def _stretched(kind: str, points: np.ndarray, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Points (n, 3) in a solid's own frame, for another shape of its kind; shapes as in `geometry`."""
    across, along = points[:, :2], points[:, 2:]
    if kind == "sphere":
        return np.asarray(points * (after[0] / before[0]))
    if kind == "box":
        return np.asarray(points * (after / before))
    if kind == "torus":
        ratio, ring = after[1] / before[1], np.linalg.norm(across, axis=1, keepdims=True)
        return np.concatenate([across / ring * (after[0] + (ring - before[0]) * ratio), along * ratio], 1)
    ratio = after[0] / before[0]
    if kind == "capsule":
        middle = along.clip(-before[2], before[2])
        along = middle * (after[2] / before[2]) + (along - middle) * ratio
        return np.concatenate([across * ratio, along], 1)
    return np.concatenate([across * ratio, along * (after[2] / before[2])], 1)


def _onto_surface(solid: Solid, points: np.ndarray) -> np.ndarray:
    """Move points (n, 3) near a surface onto it: rounded edges do not stretch with the shape."""
    local = torch.from_numpy(points.T)
    shape = torch.from_numpy(solid.shape)[:, None].expand(3, local.shape[1])
    rounding = torch.full((local.shape[1],), solid.rounding, dtype=local.dtype)
    for _ in range(4):
        distance, gradient = distance_and_gradient(solid.kind, local, shape, rounding)
        local = local - distance * gradient / gradient.pow(2).sum(0)
    return local.T.numpy()
