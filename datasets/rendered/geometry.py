"""Signed distance functions of seven solids, and sphere tracing of scenes made of them.

Notation: points, directions and gradients are float tensors of shape (3, n), one row per coordinate, so that each
coordinate lies contiguously. World frame: x right, y forward, z up, the ground is the plane z = 0, lengths in metres.
A solid has a frame of its own with the origin at its centre and z along its axis. Sphere tracing: Hart (1996), "Sphere
tracing: a geometric method for the antialiased ray tracing of implicit surfaces".
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

KINDS = ("sphere", "box", "cylinder", "cone", "torus", "capsule", "pyramid")
"""What a solid can be. A solid's kind is a position in this tuple."""

FAR = 60.0
"""Distance in metres beyond which nothing is seen but sky."""

_TINY = 1e-12
_HIT = 1e-3  # m; a march ends this near a surface, Newton's method does the rest
_LATE_HIT = 6e-3  # m; the same for a march that has used up its steps
_PRIMARY_STEPS, _SHADOW_STEPS = 60, 14

_Distance = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]


def _length(*parts: Tensor) -> Tensor:
    total = parts[0] * parts[0]
    for part in parts[1:]:
        total = total + part * part
    return torch.sqrt(total + _TINY)


def _outside(*excess: Tensor) -> Tensor:
    """Distance to a region bounded by perpendicular planes, from the signed distances to them."""
    inside = excess[0]
    for part in excess[1:]:
        inside = torch.maximum(inside, part)
    return _length(*(part.clamp(min=0) for part in excess)) + inside.clamp(max=0)


def _rounded_maximum(a: Tensor, b: Tensor, rounding: Tensor) -> Tensor:
    overlap = (rounding - (a - b).abs()).clamp(min=0) / rounding
    return torch.maximum(a, b) + overlap * overlap * rounding * 0.25


def _sphere(x: Tensor, y: Tensor, z: Tensor, shape: Tensor, rounding: Tensor) -> Tensor:
    return _length(x, y, z) - shape[0]


def _box(x: Tensor, y: Tensor, z: Tensor, shape: Tensor, rounding: Tensor) -> Tensor:
    halves = (shape[0] - rounding, shape[1] - rounding, shape[2] - rounding)
    return _outside(x.abs() - halves[0], y.abs() - halves[1], z.abs() - halves[2]) - rounding


def _cylinder(x: Tensor, y: Tensor, z: Tensor, shape: Tensor, rounding: Tensor) -> Tensor:
    return _outside(_length(x, y) - (shape[0] - rounding), z.abs() - (shape[2] - rounding)) - rounding


def _cone(x: Tensor, y: Tensor, z: Tensor, shape: Tensor, rounding: Tensor) -> Tensor:
    return _tapered(_length(x, y), z, shape, rounding)


def _torus(x: Tensor, y: Tensor, z: Tensor, shape: Tensor, rounding: Tensor) -> Tensor:
    return _length(_length(x, y) - shape[0], z) - shape[1]


def _capsule(x: Tensor, y: Tensor, z: Tensor, shape: Tensor, rounding: Tensor) -> Tensor:
    return _length(x, y, z - torch.maximum(torch.minimum(z, shape[2]), -shape[2])) - shape[0]


def _pyramid(x: Tensor, y: Tensor, z: Tensor, shape: Tensor, rounding: Tensor) -> Tensor:
    return _tapered(torch.maximum(x.abs(), y.abs()), z, shape, rounding)


def _tapered(radius: Tensor, z: Tensor, shape: Tensor, rounding: Tensor) -> Tensor:
    """A lower bound of the distance: exact over the faces, too small beyond the edges."""
    height = 2 * shape[2]
    side = (radius * height + (z - shape[2]) * shape[0]) * torch.rsqrt(height * height + shape[0] * shape[0])
    return _rounded_maximum(side, -z - shape[2], rounding)


_DISTANCES: tuple[_Distance, ...] = (_sphere, _box, _cylinder, _cone, _torus, _capsule, _pyramid)


def signed_distance(kind: int, points: Tensor, shape: Tensor, rounding: Tensor) -> Tensor:
    """Signed distance from points to solids of one kind, negative inside; never more than the true distance.

    Args:
        kind: position in `KINDS`.
        points: (3, n) in the solids' own frames, in metres.
        shape: (3, n), half sizes in metres. Sphere: radius. Box: half edges. Cylinder: radius, unused, half height.
            Cone: radius of the base at z = -h, unused, h (the tip is at z = h). Torus: radius of the ring, of the tube.
            Capsule: radius, unused, half length of the axis. Pyramid: half edge of the base, unused, h as for the cone.
        rounding: (n,), radius of rounded edges in metres, above 0.

    Returns:
        (n,) in metres.
    """
    return _DISTANCES[kind](points[0], points[1], points[2], shape, rounding)


def lowest_point(kind: int, shape: np.ndarray, up: np.ndarray) -> float:
    """Lowest extent of a solid, in metres from its centre (negative).

    Args:
        kind: position in `KINDS`.
        shape: (3,) as in `signed_distance`.
        up: (3,), the world's up direction in the solid's own frame, of unit length.
    """
    first, second, third = (float(value) for value in shape)
    x, y, along = (float(value) for value in up)
    across = math.sqrt(max(0.0, 1.0 - along**2))
    if KINDS[kind] == "sphere":
        return -first
    if KINDS[kind] == "box":
        return -(abs(x) * first + abs(y) * second + abs(along) * third)
    if KINDS[kind] == "cylinder":
        return -(abs(along) * third + across * first)
    if KINDS[kind] == "torus":
        return -(across * first + second)
    if KINDS[kind] == "capsule":
        return -(abs(along) * third + first)
    base = across if KINDS[kind] == "cone" else abs(x) + abs(y)
    return min(along * third, -along * third - base * first)


def bounding_radius(kind: int, shape: np.ndarray) -> float:
    """Radius in metres of a sphere around a solid's centre that contains it."""
    first, second, third = (float(value) for value in shape)
    return {
        "sphere": first,
        "box": math.sqrt(first**2 + second**2 + third**2),
        "cylinder": math.hypot(first, third),
        "cone": math.hypot(first, third),
        "torus": first + second,
        "capsule": first + third,
        "pyramid": math.sqrt(2 * first**2 + third**2),
    }[KINDS[kind]]


@dataclass(frozen=True)
class Solids:
    """The solids of several scenes.

    Attributes:
        kind: (solids,) positions in `KINDS`.
        shape: (3, solids) as in `signed_distance`.
        rounding: (solids,) in metres.
        centre: (3, solids) in the world, in metres.
        rotation: (3, 3, solids); `rotation[:, k]` is the solid's own axis k in the world.
        radius: (solids,) of bounding spheres, in metres.
        table: (scenes, most) the solids of each scene, filled up with -1.
    """

    kind: Tensor
    shape: Tensor
    rounding: Tensor
    centre: Tensor
    rotation: Tensor
    radius: Tensor
    table: Tensor

    def to_own_frame(self, vectors: Tensor, solid: Tensor) -> Tensor:
        """Turn world vectors (3, n) into the frames of solids (n,)."""
        return (self.rotation[:, :, solid] * vectors[:, None]).sum(0)

    def to_world(self, vectors: Tensor, solid: Tensor) -> Tensor:
        """Turn vectors (3, n) in the frames of solids (n,) into the world."""
        return (self.rotation[:, :, solid] * vectors[None]).sum(1)

    def by_kind(self, solid: Tensor) -> Iterator[tuple[int, Tensor]]:
        """Each kind that occurs among solids (n,), with the positions where it does."""
        kinds = self.kind[solid]
        for kind in range(len(KINDS)):
            positions = (kinds == kind).nonzero()[:, 0]
            if len(positions):
                yield kind, positions


@dataclass(frozen=True)
class _Crossings:
    """Rays that enter bounding spheres: which ray (n,), which solid (n,), where they enter and leave it (n,) in m."""

    ray: Tensor
    solid: Tensor
    enter: Tensor
    leave: Tensor


def _crossings(solids: Solids, scene: Tensor, origins: Tensor, directions: Tensor, inflation: float) -> _Crossings:
    found = []
    for slot in range(solids.table.shape[1]):
        candidates = solids.table[scene, slot]
        present = (candidates >= 0).nonzero()[:, 0]
        solid = candidates[present]
        offset = origins[:, present] - solids.centre[:, solid]
        along = (offset * directions[:, present]).sum(0)
        radius = solids.radius[solid] * inflation
        square = along * along - (offset * offset).sum(0) + radius * radius
        half = square.clamp(min=0).sqrt()
        hit = ((square > 0) & (half > along)).nonzero()[:, 0]
        along, half = along[hit], half[hit]
        found.append((present[hit], solid[hit], (-along - half).clamp(min=1e-3), half - along))
    return _Crossings(*(torch.cat(parts) for parts in zip(*found, strict=True)))


def trace(solids: Solids, scene: Tensor, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest solid along each ray.

    Args:
        solids: of all scenes.
        scene: (n,) which scene a ray belongs to.
        origins: (3, n) in metres.
        directions: (3, n), of unit length.

    Returns:
        (n,) distances in metres, `FAR` where no solid is hit, and (n,) solids, -1 where none is.
    """
    crossings = _crossings(solids, scene, origins, directions, 1.0)
    local = solids.to_own_frame(origins[:, crossings.ray] - solids.centre[:, crossings.solid], crossings.solid)
    heading = solids.to_own_frame(directions[:, crossings.ray], crossings.solid)
    hits, distances = [], []
    for kind, positions in solids.by_kind(crossings.solid):
        solid = crossings.solid[positions]
        rows = (local, heading, solids.shape[:, solid], solids.rounding[None, solid])
        rows = (rows[0][:, positions], rows[1][:, positions], *rows[2:])
        reached, at = _march(kind, torch.cat(rows), crossings.enter[positions], crossings.leave[positions])
        hits.append(positions[reached])
        distances.append(at)
    nearest = torch.full(scene.shape, FAR)
    which = torch.full(scene.shape, -1, dtype=torch.long)
    if hits:
        hit, distance = torch.cat(hits), torch.cat(distances)
        ray, solid = crossings.ray[hit], crossings.solid[hit]
        nearest.scatter_reduce_(0, ray, distance, "amin")
        first = distance == nearest[ray]
        which[ray[first]] = solid[first]
    return nearest, which


def _march(kind: int, rows: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """March rays (rows: local origin 3, direction 3, shape 3, rounding 1) to solids of one kind.

    Returns:
        Positions of the rays that arrive, and the distances at which they do.
    """
    state = torch.cat([rows, start[None], end[None]])
    alive = torch.arange(len(start))
    arrived, distances = [], []
    for step in range(_PRIMARY_STEPS):
        at = state[10]
        gap = signed_distance(kind, state[:3] + at * state[3:6], state[6:9], state[9])
        at += gap
        hit = gap < (_HIT if step < _PRIMARY_STEPS - 1 else _LATE_HIT)
        done = hit | (at > state[11])
        finished = done.nonzero()[:, 0]
        if len(finished):
            ended = hit.nonzero()[:, 0]
            arrived.append(alive[ended])
            distances.append(at[ended])
            going = (~done).nonzero()[:, 0]
            state, alive = state[:, going], alive[going]
            if not len(alive):
                break
    if not arrived:
        return alive[:0], start[:0]
    return torch.cat(arrived), torch.cat(distances)


def surface(
    solids: Solids, solid: Tensor, origins: Tensor, directions: Tensor, distance: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Where rays meet the solids that `trace` found, by Newton's method: to 10 micrometres unless a ray grazes.

    Args:
        solids: of all scenes.
        solid: (n,) the solid that each ray hits.
        origins: (3, n) in metres.
        directions: (3, n), of unit length.
        distance: (n,) as `trace` gives it, in metres.

    Returns:
        (n,) distances in metres; (3, n) points in the solids' own frames; (3, n) outward unit normals in the world.
    """
    distance, normals = distance.clone(), torch.empty_like(origins)
    local = solids.to_own_frame(origins - solids.centre[:, solid], solid)
    heading = solids.to_own_frame(directions, solid)
    for kind, positions in solids.by_kind(solid):
        of = solid[positions]
        start, along, at = local[:, positions], heading[:, positions], distance[positions]
        shape, rounding = solids.shape[:, of], solids.rounding[of]
        value, gradient = distance_and_gradient(kind, start + at * along, shape, rounding)
        for _ in range(2):
            corrected = at - value / (gradient * along).sum(0).clamp(max=-0.05)
            remaining, turned = distance_and_gradient(kind, start + corrected * along, shape, rounding)
            better = remaining.abs() < value.abs()  # not so where a ray grazes and the step leads past the solid
            at, value = torch.where(better, corrected, at), torch.where(better, remaining, value)
            gradient = torch.where(better, turned, gradient)
        distance[positions], normals[:, positions] = at, gradient
    normals = torch.nn.functional.normalize(normals, dim=0)
    return distance, local + distance * heading, solids.to_world(normals, solid)


def distance_and_gradient(kind: int, points: Tensor, shape: Tensor, rounding: Tensor) -> tuple[Tensor, Tensor]:
    """`signed_distance`, and its gradient (3, n), which points outwards, by automatic differentiation."""
    with torch.enable_grad():
        points = points.detach().requires_grad_()
        value = signed_distance(kind, points, shape, rounding)
        (gradient,) = torch.autograd.grad(value.sum(), points)
    return value.detach(), gradient


def soft_shadow(solids: Solids, scene: Tensor, points: Tensor, light: Tensor, sharpness: Tensor) -> Tensor:
    """How much of a light is seen from points, in [0, 1], with a penumbra.

    Args:
        solids: of all scenes.
        scene: (n,) which scene a point belongs to.
        points: (3, n) in metres, a little outside of surfaces.
        light: (3, n) unit directions towards the light.
        sharpness: (n,) larger is a smaller lamp; about 5 to 20.
    """
    visible = torch.ones(scene.shape)
    crossings = _crossings(solids, scene, points, light, 1.35)
    local = solids.to_own_frame(points[:, crossings.ray] - solids.centre[:, crossings.solid], crossings.solid)
    heading = solids.to_own_frame(light[:, crossings.ray], crossings.solid)
    for kind, positions in solids.by_kind(crossings.solid):
        solid, ray = crossings.solid[positions], crossings.ray[positions]
        rows = torch.cat([local[:, positions], heading[:, positions], solids.shape[:, solid]])
        scalars = (solids.rounding[solid], crossings.enter[positions].clamp(min=0.03), crossings.leave[positions])
        state = torch.cat([rows, torch.stack([*scalars, sharpness[ray], torch.ones(len(ray))])])
        passed = _penumbra(kind, state)
        visible.scatter_reduce_(0, ray, passed * passed * (3 - 2 * passed), "amin")
    return visible


def _penumbra(kind: int, state: Tensor) -> Tensor:
    """March towards a light; rows of `state`: 10 as in `_march`, position, end, sharpness, visibility so far."""
    alive = torch.arange(state.shape[1])
    passed = torch.ones(state.shape[1])
    for _ in range(_SHADOW_STEPS):
        at, visible = state[10], state[13]
        gap = signed_distance(kind, state[:3] + at * state[3:6], state[6:9], state[9])
        torch.minimum(visible, state[12] * gap / at, out=visible)
        at += gap.clamp(0.04, 0.3)
        done = (at >= state[11]) | (visible <= 0)
        finished = done.nonzero()[:, 0]
        if len(finished) > 0.15 * len(alive):
            passed[alive] = visible
            going = (~done).nonzero()[:, 0]
            state, alive = state[:, going], alive[going]
            if not len(alive):
                break
    passed[alive] = state[13]
    return passed.clamp(0, 1)
