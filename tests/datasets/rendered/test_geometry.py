"""Distances, bounds and tracing against what can be computed otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from diffsift.datasets.rendered.geometry import (
    FAR,
    KINDS,
    Solids,
    bounding_radius,
    lowest_point,
    signed_distance,
    soft_shadow,
    surface,
    trace,
)

SHAPES = {
    "sphere": (0.8, 0.0, 0.0),
    "box": (0.6, 0.5, 0.7),
    "cylinder": (0.5, 0.0, 0.8),
    "cone": (0.7, 0.0, 0.8),
    "torus": (0.7, 0.25, 0.0),
    "capsule": (0.4, 0.0, 0.6),
    "pyramid": (0.7, 0.0, 0.8),
}


def one_solid(kind: str, centre=(0.0, 0.0, 0.0)) -> Solids:
    shape = np.array(SHAPES[kind])
    return Solids(
        kind=torch.tensor([KINDS.index(kind)]),
        shape=torch.tensor(SHAPES[kind])[:, None],
        rounding=torch.tensor([0.05]),
        centre=torch.tensor(centre)[:, None],
        rotation=torch.eye(3)[:, :, None],
        radius=torch.tensor([bounding_radius(KINDS.index(kind), shape) + 0.02]),
        table=torch.tensor([[0]]),
    )


def inward_rays(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Rays from a sphere of 5 m towards points near the origin."""
    generator = torch.Generator().manual_seed(0)
    origins = 5 * torch.nn.functional.normalize(torch.randn(3, count, generator=generator), dim=0)
    targets = 0.5 * torch.randn(3, count, generator=generator)
    return origins, torch.nn.functional.normalize(targets - origins, dim=0)


def test_known_distances():
    def at(kind: str, point: tuple[float, float, float]) -> float:
        shape, rounding = torch.tensor(SHAPES[kind])[:, None], torch.tensor([0.05])
        return signed_distance(KINDS.index(kind), torch.tensor(point)[:, None], shape, rounding).item()

    assert at("sphere", (3.0, 0.0, 0.0)) == pytest.approx(2.2, abs=1e-5)
    assert at("box", (0.0, 0.0, 1.0)) == pytest.approx(0.3, abs=1e-5)
    assert at("box", (1.0, 0.0, 0.0)) == pytest.approx(0.4, abs=1e-5)
    assert at("cylinder", (1.0, 0.0, 0.0)) == pytest.approx(0.5, abs=1e-5)
    assert at("cone", (0.0, 0.0, -1.0)) == pytest.approx(0.2, abs=1e-5)
    assert at("torus", (0.7, 0.0, 0.5)) == pytest.approx(0.25, abs=1e-5)
    assert at("capsule", (0.0, 0.0, 1.5)) == pytest.approx(0.5, abs=1e-5)
    assert at("pyramid", (0.0, 0.0, -1.5)) == pytest.approx(0.7, abs=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_distance_is_no_more_than_a_ray_shows(kind: str):
    """Sphere tracing is right only if the distance never exceeds the true one: its slope is at most 1."""
    points = torch.randn(3, 4_000, generator=torch.Generator().manual_seed(1))
    step = 0.05 * torch.nn.functional.normalize(
        torch.randn(3, 4_000, generator=torch.Generator().manual_seed(2)), dim=0
    )
    shape = torch.tensor(SHAPES[kind])[:, None].expand(3, 4_000)
    rounding = torch.full((4_000,), 0.05)
    number = KINDS.index(kind)
    change = signed_distance(number, points + step, shape, rounding) - signed_distance(number, points, shape, rounding)
    assert change.abs().max() <= 0.05 + 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_solids_lie_within_their_bounds(kind: str):
    generator = torch.Generator().manual_seed(3)
    points = 1.5 * torch.randn(3, 20_000, generator=generator)
    shape = np.array(SHAPES[kind])
    expanded = torch.tensor(SHAPES[kind])[:, None].expand(3, 20_000)
    number = KINDS.index(kind)
    inside = points[:, signed_distance(number, points, expanded, torch.full((20_000,), 0.05)) < 0]
    assert inside.norm(dim=0).max() <= bounding_radius(number, shape) + 1e-5
    for up in np.random.default_rng(0).normal(size=(10, 3)):
        up = up / np.linalg.norm(up)
        assert (torch.tensor(up).float() @ inside).min() >= lowest_point(number, shape, up) - 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_traced_points_lie_on_the_surface(kind: str):
    solids = one_solid(kind, centre=(0.1, -0.2, 0.3))
    origins, directions = inward_rays(500)
    distance, which = trace(solids, torch.zeros(500, dtype=torch.long), origins, directions)
    hit = (which == 0).nonzero()[:, 0]
    assert len(hit) > 100
    assert (distance[which < 0] == FAR).all()
    exact, local, normals = surface(solids, which[hit], origins[:, hit], directions[:, hit], distance[hit])
    shape, rounding = solids.shape.expand(3, len(hit)), solids.rounding.expand(len(hit))
    gap = signed_distance(KINDS.index(kind), local, shape, rounding)
    assert gap.abs().quantile(0.98) < 1e-5
    assert gap.abs().max() < 6e-3  # rays that graze
    world = origins[:, hit] + exact * directions[:, hit]
    torch.testing.assert_close(world - solids.centre, local, atol=1e-5, rtol=0)
    outside = signed_distance(KINDS.index(kind), local + 0.01 * normals, shape, rounding)
    assert (outside > 5e-3).all()
    assert (normals.norm(dim=0) - 1).abs().max() < 1e-5


def test_sphere_is_where_algebra_says():
    solids = one_solid("sphere")
    origins, directions = inward_rays(400)
    distance, which = trace(solids, torch.zeros(400, dtype=torch.long), origins, directions)
    along = (origins * directions).sum(0)
    square = along**2 - (origins**2).sum(0) + 0.8**2
    clear = square.abs() > 1e-2  # but for rays that graze
    assert torch.equal((which >= 0)[clear], (square > 0)[clear])
    hit = ((which >= 0) & clear).nonzero()[:, 0]
    exact, _, normals = surface(solids, which[hit], origins[:, hit], directions[:, hit], distance[hit])
    expected = -along[hit] - square[hit].sqrt()
    torch.testing.assert_close(exact, expected, atol=2e-5, rtol=0)
    points = origins[:, hit] + expected * directions[:, hit]
    torch.testing.assert_close(normals, points / 0.8, atol=1e-4, rtol=0)


def test_nearer_solid_hides_the_farther():
    far, near = one_solid("box", (0.0, 3.0, 0.0)), one_solid("sphere", (0.0, 0.0, 0.0))
    both = Solids(
        *(
            torch.cat([getattr(far, name), getattr(near, name)], -1)
            for name in ("kind", "shape", "rounding", "centre", "rotation", "radius")
        ),
        table=torch.tensor([[0, 1]]),
    )
    origins = torch.tensor([[0.0, 0.9], [-4.0, -4.0], [0.0, 0.0]])
    directions = torch.tensor([[0.0, -0.085], [1.0, 1.0], [0.0, 0.0]])
    directions = torch.nn.functional.normalize(directions, dim=0)
    distance, which = trace(both, torch.zeros(2, dtype=torch.long), origins, directions)
    assert which.tolist() == [1, 1] or which.tolist() == [1, 0]
    assert distance[0].item() == pytest.approx(3.2, abs=1e-2)


def test_shadow_is_dark_behind_a_solid_and_clear_beside_it():
    points = torch.tensor([[0.0, 3.0], [0.0, 0.0], [-2.0, -2.0]])
    light = torch.tensor([0.0, 0.0, 1.0])[:, None].expand(3, 2)
    visible = soft_shadow(one_solid("sphere"), torch.zeros(2, dtype=torch.long), points, light, torch.full((2,), 10.0))
    assert visible.tolist() == [0.0, 1.0]
