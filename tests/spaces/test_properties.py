"""Properties: known answers on constructed tensors, and what must not move them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from diffsift.backbones import PipelineBackbone
from diffsift.errors import SpecificationError
from diffsift.spaces import Candidate, Properties, measure_properties
from diffsift.spaces.properties import Statistics

SEEDS, IMAGES = 4, 40


def measured(
    content: Callable[[int], Tensor], noise: float = 0.0, *, scale: Tensor | float = 1.0, images: int = IMAGES
) -> Properties:
    """Properties of `content` of an image (channels, rows, columns) with white noise of this deviation on it."""
    torch.manual_seed(0)
    statistics = Statistics()
    for image in range(images):
        clean = content(image)
        statistics.add((clean + noise * torch.randn(SEEDS, *clean.shape)) * scale)
    return statistics.result()


def white(_: int, channels: int = 16, edge: int = 16) -> Tensor:
    return torch.randn(channels, edge, edge)


def smooth(_: int, channels: int = 16, edge: int = 16) -> Tensor:
    coarse = torch.randn(1, channels, 4, 4)
    return functional.interpolate(coarse, size=(edge, edge), mode="bicubic")[0]


@pytest.mark.parametrize("share", [0.1, 0.5, 0.8])
def test_the_noise_share_is_the_planted_one(share: float) -> None:
    assert measured(white, (share / (1 - share)) ** 0.5).diffusion_noise == pytest.approx(share, abs=0.03)


def test_what_is_the_same_in_all_images_is_neither_noise_nor_content() -> None:
    pattern = 10 * torch.randn(16, 16, 16)
    shifted = measured(lambda image: white(image) + pattern, 1.0)
    assert shifted.diffusion_noise == pytest.approx(measured(white, 1.0).diffusion_noise, abs=0.03)
    assert shifted.position > 0.95
    assert measured(white).position < 0.02


def test_white_content_is_as_fine_as_its_grid_and_smooth_content_is_not() -> None:
    fine, coarse = measured(white), measured(smooth)
    assert fine.granularity == pytest.approx(1.0, abs=0.03)
    assert fine.over_refinement == pytest.approx(1.0, abs=0.03)
    assert coarse.granularity < 0.5
    assert coarse.over_refinement < 0.1


def test_noise_cancels_in_granularity_and_shows_in_increment_noise() -> None:
    noisy, clean = measured(smooth, 1.0), measured(smooth)
    assert noisy.granularity == pytest.approx(clean.granularity, abs=0.08)
    assert noisy.over_refinement < 0.15
    assert noisy.increment_noise > clean.increment_noise + 0.3


def test_locality_is_what_distance_explains() -> None:
    assert measured(white).locality < 0.03
    assert measured(white, 1.0).locality < 0.05
    near = measured(lambda image: smooth(image, channels=64)).locality
    assert near > 0.3
    objects = measured(two_objects).locality
    assert objects < near / 2


def two_objects(_: int, channels: int = 64) -> Tensor:
    """Places of two kinds, scattered over the image: similarity follows content, not distance."""
    kinds = torch.randint(2, (16, 16))
    return torch.randn(2, channels)[kinds].permute(2, 0, 1)


def test_outliers_are_the_energy_of_the_largest_hundredth() -> None:
    even = measured(lambda image: white(image, channels=200))
    assert even.outliers < 0.01
    scale = torch.ones(200, 1, 1)
    scale[:2] = 1000.0
    assert measured(lambda image: white(image, channels=200), scale=scale).outliers > 0.99


@pytest.mark.parametrize("field", ["diffusion_noise", "granularity", "over_refinement", "locality", "position"])
@pytest.mark.parametrize("content", [white, smooth])
def test_scale_channels_and_stride_alone_move_nothing(field: str, content: Callable[..., Tensor]) -> None:
    base = getattr(measured(content, 0.5), field)
    scale = torch.logspace(-3, 3, 16)[:, None, None]
    assert getattr(measured(content, 0.5, scale=scale), field) == pytest.approx(base, abs=0.01)
    wide = getattr(measured(lambda image: content(image, channels=48), 0.5), field)
    assert wide == pytest.approx(base, abs=0.08)
    if content is white:  # another stride: the same kind of content on a coarser grid
        assert getattr(measured(lambda image: white(image, edge=8), 0.5), field) == pytest.approx(base, abs=0.05)


def test_dead_and_broken_channels_do_no_harm() -> None:
    def content(image: int) -> Tensor:
        values = white(image)
        values[5, 0, 0] = float("nan")
        return values

    scale = torch.ones(16, 1, 1)
    scale[3] = 0.0
    found = measured(content, 0.5, scale=scale)
    assert found.diffusion_noise == pytest.approx(0.2, abs=0.03)
    assert found.locality < 0.05


def test_a_backbone_is_measured_at_every_timestep(tiny_backbone: PipelineBackbone) -> None:
    wanted = [entry for entry in tiny_backbone.activations() if entry.kind in ("res-out", "cross-q")]
    found = measure_properties(tiny_backbone, wanted, (10, 900), list(torch.rand(4, 3, 16, 16)))
    assert set(found) == {Candidate("main", entry.name, t) for entry in wanted for t in (10, 900)}
    first = wanted[0].name
    noise = [found[Candidate("main", first, timestep)].diffusion_noise for timestep in (10, 900)]
    assert noise[0] + 0.05 < noise[1]


def test_too_little_to_measure_on_is_refused(tiny_backbone: PipelineBackbone) -> None:
    known = tiny_backbone.activations()[:1]
    with pytest.raises(SpecificationError, match="at least two images under two noise seeds, but got 1 images"):
        measure_properties(tiny_backbone, known, (10,), list(torch.rand(1, 3, 16, 16)))
    with pytest.raises(ValueError, match="two noise seeds, but got 1"):
        Statistics().add(torch.rand(1, 2, 4, 4))
