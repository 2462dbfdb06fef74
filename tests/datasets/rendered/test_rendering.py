"""Pictures and answers of whole scenes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from diffsift.datasets.rendered import CLASSES, GROUND, KINDS, SKY, Renderer, draw_scene
from diffsift.datasets.rendered.camera import TANGENT, look_at, pixel_centres
from diffsift.datasets.rendered.keypoints import draw_counterparts, draw_keypoints
from diffsift.datasets.rendered.materials import Light, Material
from diffsift.datasets.rendered.scenes import Scene, Solid

PLAIN = Material(0, np.full((2, 3), 0.5), frequency=1.0, phase=np.zeros(3))
LIGHT = Light(np.array([0.0, 0.0, 1.0]), np.ones(3), 0.3, 10.0, np.full(3, 0.5), np.full(3, 0.5))


def scene_of(kind: str, shape: tuple[float, float, float], height: float, elevation: float = 30.0) -> Scene:
    solid = Solid(
        KINDS.index(kind), np.array(shape), 0.03, np.array([0.0, 0.0, height]), np.eye(3), colour=0, material=PLAIN
    )
    cameras = tuple(
        look_at(np.array([0.0, 0.0, height]), azimuth, math.radians(elevation), 5.0) for azimuth in (0.0, 0.4)
    )
    return Scene((solid,), PLAIN, 0.0, LIGHT, (cameras[0], cameras[1]))


@pytest.fixture(scope="module")
def drawn():
    renderer = Renderer([draw_scene("development", 0, index, "hard") for index in range(4)])
    return renderer, renderer.render(48), renderer.render(48, view=1)


def test_sphere_depth_and_normals_are_exact():
    scene = scene_of("sphere", (0.8, 0.0, 0.0), 0.8)
    drawn = Renderer([scene]).render(64)
    mine = drawn.solid[0] == 0
    offset = (pixel_centres(64) / 32 - 1) * TANGENT
    rays = torch.stack([offset[0], -offset[1], -torch.ones(64 * 64)]).double()  # the camera frame, per metre of depth
    centre = torch.tensor([0.0, 0.0, -5.0]).double()[:, None]
    a, b, c = (rays**2).sum(0), (rays * centre).sum(0), 25.0 - 0.8**2
    square = b * b - a * c
    depth = (b - square.clamp(min=0).sqrt()) / a
    normals = (rays * depth - centre) / 0.8
    clear = (square > 1e-2).view(64, 64)
    assert mine[clear].all()
    assert not mine[(square < -1e-2).view(64, 64)].any()
    torch.testing.assert_close(drawn.depth[0][clear].double(), depth.view(64, 64)[clear], atol=2e-5, rtol=0)
    expected = normals.T.view(64, 64, 3)[clear]
    torch.testing.assert_close(drawn.normal[0][clear].double(), expected, atol=2e-4, rtol=0)


def test_ground_depth_and_normals_are_exact():
    drawn = Renderer([scene_of("sphere", (0.5, 0.0, 0.0), 0.5, elevation=30.0)]).render(32)
    ground = drawn.solid[0] == GROUND
    assert ground.any()
    down = math.radians(30)
    eye_height = 0.5 + 5.0 * math.sin(down)
    slope = (1 - pixel_centres(32)[1] / 16) * TANGENT  # upwards, per metre of depth
    depth = (eye_height / (math.sin(down) - slope * math.cos(down))).view(32, 32)
    torch.testing.assert_close(drawn.depth[0][ground], depth[ground], atol=1e-3, rtol=1e-4)
    expected = torch.tensor([0.0, math.cos(down), math.sin(down)]).expand(int(ground.sum()), 3)
    torch.testing.assert_close(drawn.normal[0][ground], expected, atol=1e-5, rtol=0)


def test_box_face_is_a_plane():
    scene = scene_of("box", (0.7, 0.7, 0.7), 0.7, elevation=0.0)
    drawn = Renderer([scene]).render(32)
    middle = drawn.depth[0][12:20, 12:20]
    torch.testing.assert_close(middle, torch.full_like(middle, 4.3), atol=1e-4, rtol=0)
    torch.testing.assert_close(drawn.normal[0][16, 16], torch.tensor([0.0, 0.0, 1.0]), atol=1e-5, rtol=0)


def test_answers_agree_with_each_other(drawn):
    renderer, first, _ = drawn
    sky = first.solid == SKY
    assert torch.equal(torch.isnan(first.depth), sky)
    assert torch.equal(torch.isnan(first.normal).any(-1), sky)
    assert first.depth[~sky].min() > 0
    lengths = first.normal[~sky].norm(dim=-1)
    assert (lengths - 1).abs().max() < 1e-4
    for scene in range(4):
        for position, solid in enumerate(renderer.scenes[scene].solids):
            labels = first.label[scene][first.solid[scene] == position]
            assert (labels == solid.kind + 1).all()
    assert ((first.label == 0) == (first.solid < 0)).all()
    assert len(CLASSES) == len(KINDS) + 1


def test_surfaces_face_the_camera(drawn):
    _, first, _ = drawn
    offset = (pixel_centres(48) / 24 - 1) * TANGENT
    rays = torch.stack([offset[0], -offset[1], -torch.ones_like(offset[0])], -1).view(48, 48, 3)
    facing = (first.normal * rays).sum(-1)
    assert (facing[first.solid != SKY] < 1e-3).float().mean() > 0.998


def test_same_scenes_same_pictures(drawn):
    _, first, _ = drawn
    again = Renderer([draw_scene("development", 0, index, "hard") for index in range(4)]).render(48)
    for name in ("image", "solid", "label"):
        assert torch.equal(getattr(first, name), getattr(again, name))
    torch.testing.assert_close(first.depth, again.depth, equal_nan=True, rtol=0, atol=0)


def test_answers_do_not_depend_on_antialiasing(drawn):
    renderer, first, _ = drawn
    plain = renderer.render(48, antialias=False)
    assert torch.equal(first.label, plain.label)
    assert not torch.equal(first.image, plain.image)


def test_larger_pictures_show_the_same():
    renderer = Renderer([draw_scene("test", 0, 0)])
    small, large = renderer.render(16), renderer.render(48)
    assert (large.label[:, 1::3, 1::3] == small.label).all()  # the same pixel centres
    torch.testing.assert_close(large.depth[:, 1::3, 1::3], small.depth, atol=1e-3, rtol=1e-3, equal_nan=True)


@pytest.mark.parametrize("size", [15, 257])
def test_sizes_out_of_range_are_refused(size: int):
    with pytest.raises(ValueError, match=r"size must be in \[16, 256\], but got"):
        Renderer([draw_scene("test", 0, 0)]).render(size)


def test_keypoints_are_the_same_points_in_both_views(drawn):
    renderer, first, second = drawn
    rng = np.random.default_rng(0)
    seen = []
    for scene in range(4):
        points = draw_keypoints(renderer, first, scene, 40, rng)
        assert points is not None
        owner, world = torch.full((40,), scene), torch.from_numpy(points.world).T
        for view, expected in ((0, points.source), (1, points.target)):
            projected, _ = renderer.cameras[view].project(owner, world, 48)
            np.testing.assert_allclose(projected.T.numpy(), expected, atol=1e-3)
        columns, rows = points.source.astype(int).T
        solid = first.solid[scene][rows, columns]
        assert renderer.sees(0, owner, solid, world).all()
        seen.append(points.visible)
        # The second view shows a visible point's depth there or, at edges, in the next pixel.
        _, depth = renderer.cameras[1].project(owner, world, 48)
        columns, rows = points.target[points.visible].astype(int).T
        around = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]
        shown = [second.depth[scene][(rows + y).clip(0, 47), (columns + x).clip(0, 47)] for y, x in around]
        expected = depth[torch.from_numpy(points.visible)]
        assert (torch.stack(shown) - expected).abs().nan_to_num(9.0).amin(0).max() < 0.3
    share = np.concatenate(seen).mean()
    assert 0.4 < share < 1.0


def test_what_another_solid_hides_is_not_seen():
    front, back = scene_of("sphere", (0.8, 0.0, 0.0), 0.8), scene_of("box", (0.4, 0.4, 0.4), 0.4)
    hidden = back.solids[0]
    moved = Solid(hidden.kind, hidden.shape, 0.03, np.array([-3.0, 0.0, 0.4]), np.eye(3), 0, PLAIN)
    renderer = Renderer([Scene((*front.solids, moved), PLAIN, 0.0, LIGHT, front.cameras)])
    points = torch.tensor([[0.8, -2.6], [0.0, 0.0], [0.8, 0.4]])  # on the sphere's front, on the box behind it
    seen = renderer.sees(0, torch.zeros(2, dtype=torch.long), torch.tensor([0, 1]), points)
    assert seen.tolist() == [True, False]


@pytest.mark.parametrize("kind", KINDS)
def test_counterparts_lie_alike_on_solids_of_one_kind(kind: str):
    """A solid and its larger copy, both turned by their own symmetries: every point is found where it was."""
    shapes = {"sphere": (0.8, 0, 0), "torus": (0.7, 0.3, 0)}
    shape = np.array(shapes.get(kind, (0.6, 0.5 if kind == "box" else 0.0, 0.7)))
    first = scene_of(kind, tuple(shape), 1.0, elevation=25.0)
    (solid,) = first.solids
    symmetry = {"box": np.diag([-1.0, 1, -1]), "pyramid": np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])}
    turned = Solid(
        solid.kind,
        shape * 1.2,
        solid.rounding * 1.2,
        solid.centre * 1.2,
        symmetry.get(kind, np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1.0]])),
        3,
        PLAIN,
    )
    cameras = tuple(
        look_at(np.array([0.0, 0.0, 1.2]), azimuth, math.radians(25.0), 6.0) for azimuth in (0.0, 0.4)
    )  # everything 1.2 times as large: the same picture
    renderer = Renderer([first, Scene((turned,), PLAIN, 0.0, LIGHT, (cameras[0], cameras[1]))])
    drawn = renderer.render(48)
    points = draw_counterparts(renderer, drawn, 0, 1, 30, np.random.default_rng(0))
    assert points is not None
    assert points.visible.mean() > 0.9  # but for outlines
    np.testing.assert_allclose(points.target, points.source, atol=0.02)


def test_counterparts_lie_on_the_other_solid():
    renderer = Renderer([draw_scene("development", 0, index, "hard") for index in range(6)])
    drawn = renderer.render(48)
    found = 0
    for other in range(1, 6):
        points = draw_counterparts(renderer, drawn, 0, other, 20, np.random.default_rng(0))
        if points is None:
            continue
        found += 1
        columns, rows = points.target[points.visible].astype(int).T
        shown = [
            drawn.solid[other][(rows + y).clip(0, 47), (columns + x).clip(0, 47)]
            for y in (-1, 0, 1)
            for x in (-1, 0, 1)
        ]
        assert (torch.stack(shown) >= 0).any(0).all()
    assert found >= 2
