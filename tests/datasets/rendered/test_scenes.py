"""How scenes are drawn, and what is said of them."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest

from diffsift.datasets.rendered import COLOURS, KINDS, LEVELS, Renderer, caption, draw_scene
from diffsift.datasets.rendered.geometry import lowest_point
from diffsift.datasets.rendered.scenes import _HUES, MOST_SOLIDS, banded, part_of

PARTS = ("pretraining", "development", "test")


def numbers_of(scene) -> list[float]:
    return [value for solid in scene.solids for value in (*solid.centre, *solid.shape, solid.material.frequency)]


def test_a_scene_is_a_function_of_its_arguments():
    first = draw_scene("development", 3, 7)
    assert numbers_of(first) == numbers_of(draw_scene("development", 3, 7))
    others = [draw_scene("development", 3, 8), draw_scene("development", 4, 7), draw_scene("test", 3, 7)]
    assert all(numbers_of(first) != numbers_of(other) for other in others)


@pytest.mark.parametrize("part", PARTS)
def test_bands_belong_to_their_part(part: str):
    rng = np.random.default_rng(0)
    values = [banded(rng, 2.0, 5.0, part) for _ in range(300)]
    assert {part_of(value, 2.0, 5.0) for value in values} == {part}
    assert 3.3 < np.mean(values) < 3.7  # bands interleave: no part has other textures as a whole


def hue_parts(solid) -> set[str]:
    """The parts whose bands the hue of a solid's first colour may lie in, but for rounding."""
    red, green, blue = (solid.material.colours[0] / 1.2) ** (1 / 1.8)
    middle, half = _HUES[COLOURS[solid.colour]]
    hue = 360 * colorsys.rgb_to_hsv(red, green, blue)[0]
    hue = (hue - middle + 180) % 360 - 180 + middle
    near = (hue - 1e-6, hue + 1e-6)
    return {
        part_of(min(max(value, middle - half), middle + half - 1e-9), middle - half, middle + half) for value in near
    }


@pytest.mark.parametrize("part", PARTS)
def test_textures_come_from_the_bands_of_the_part(part: str):
    for index in range(30):
        scene = draw_scene(part, 0, index)
        assert part_of(scene.ground.frequency, 0.7, 1.7) == part
        for solid in scene.solids:
            size = solid.shape[0] / 0.78
            if KINDS[solid.kind] == "sphere":  # the one kind whose size can be read off its shape
                assert part_of(solid.material.frequency * size, 2.0, 4.5) == part
            assert part in hue_parts(solid)


@pytest.mark.parametrize("difficulty", LEVELS)
def test_levels_hold_what_they_promise(difficulty: str):
    level = LEVELS[difficulty]
    fewest, most = level.solids
    counts = set()
    for index in range(60):
        scene = draw_scene("development", 0, index, difficulty)
        counts.add(len(scene.solids))
        for solid in scene.solids:
            lowest = solid.centre[2] + lowest_point(solid.kind, solid.shape, solid.rotation[2])
            assert lowest == pytest.approx(0.0, abs=1e-9)  # every solid touches the ground
            np.testing.assert_allclose(solid.rotation @ solid.rotation.T, np.eye(3), atol=1e-9)
    assert counts == set(range(fewest, most + 1))
    assert most <= MOST_SOLIDS


def test_solids_fill_a_good_part_of_the_picture():
    labels = Renderer([draw_scene("development", 0, index) for index in range(24)]).render(32).label
    assert 0.25 < (labels > 0).float().mean() < 0.5


def test_colour_says_nothing_of_the_kind():
    table = np.zeros((len(KINDS), len(COLOURS)))
    for index in range(1_500):
        for solid in draw_scene("development", 0, index).solids:
            table[solid.kind, solid.colour] += 1
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    freedom = (len(KINDS) - 1) * (len(COLOURS) - 1)
    assert ((table - expected) ** 2 / expected).sum() < freedom + 4 * np.sqrt(2 * freedom)


def test_captions_name_colours_and_kinds():
    solids = [(0, 0), (5, 1), (8, 6)]
    assert caption(solids) == "red sphere and blue box and grey pyramid"
    assert caption(solids, colours=False) == "sphere and box and pyramid"
    assert caption([]) == ""


def test_visible_solids_come_from_left_to_right():
    drawn = Renderer([draw_scene("development", 0, index, "hard") for index in range(3)]).render(48)
    for number in range(3):
        visible = drawn.visible_solids(number)
        middles = [np.nonzero(drawn.solid[number].numpy() == position)[1].mean() for position in visible]
        assert middles == sorted(middles)


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("training", 0, 0), "part must be one of pretraining, development, test, but got 'training'"),
        (("test", 0, 0, "harder"), "difficulty must be one of easy, medium, hard, but got 'harder'"),
        (("test", -1, 0), "seed and index must be 0 or above, but got -1 and 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_scene(*arguments)
