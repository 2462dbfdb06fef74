"""Fusion: statistics, projection and sampling commute, and are exact where they can be."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from diffsift.extraction import Standardiser, block_scale, pool, resample_map, sample_map


def raw(samples: int = 400, channels: int = 6) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mixed = torch.randn(samples, channels, generator=generator) @ torch.randn(channels, channels, generator=generator)
    return mixed * torch.logspace(-1, 1, channels) + torch.arange(channels)


def centers(rows: int, columns: int) -> Tensor:
    """Pixel centers of a grid, row by row, as points (x, y) in [0, 1]."""
    y, x = torch.meshgrid((torch.arange(rows) + 0.5) / rows, (torch.arange(columns) + 0.5) / columns, indexing="ij")
    return torch.stack([x, y], dim=-1).reshape(1, -1, 2)


def test_standardised_channels_have_mean_zero_and_deviation_one() -> None:
    features = raw()
    found = Standardiser.fit(features, max_channels=6)
    assert found.projection is None
    assert found.raw_channels == found.channels == 6
    standardised = found.apply(features)
    assert torch.allclose(standardised.mean(0), torch.zeros(6), atol=1e-4)
    assert torch.allclose(standardised.std(0, correction=0), torch.ones(6), atol=1e-4)


def test_a_dead_channel_stays_small() -> None:
    features = raw()
    features[:, 2] = 5 + 1e-6 * torch.randn(len(features))
    found = Standardiser.fit(features, max_channels=6)
    assert found.apply(features)[:, 2].abs().max() < 0.1
    assert torch.isfinite(Standardiser.fit(torch.ones(10, 3), max_channels=3).apply(torch.ones(10, 3))).all()


def test_projection_keeps_the_leading_components_exactly() -> None:
    features = raw(channels=3) @ torch.randn(3, 8, generator=torch.Generator().manual_seed(1))  # of rank three
    found = Standardiser.fit(features, max_channels=3)
    assert (found.raw_channels, found.channels) == (8, 3)
    assert found.projection is not None
    assert torch.allclose(found.projection.T @ found.projection, torch.eye(3), atol=1e-5)
    full = (features - found.mean) * found.scale
    assert torch.allclose(torch.cdist(full, full), torch.cdist(found.apply(features), found.apply(features)), atol=1e-2)
    variances = found.apply(features).var(0)
    assert (variances.diff() <= 0).all()
    again = Standardiser.fit(features.flip(0), max_channels=3)
    assert again.projection is not None
    assert torch.allclose(again.projection, found.projection, atol=1e-3)


def test_blocks_have_unit_expected_squared_norm() -> None:
    features = raw()
    block = Standardiser.fit(features, max_channels=6).apply(features) * block_scale(1.0, 6)
    assert float(block.square().sum(1).mean()) == pytest.approx(1, abs=1e-3)
    assert block_scale(0.5, 16) == 0.125


def test_sampling_commutes_with_standardising_and_projecting() -> None:
    feature_map = raw(2 * 5 * 7).reshape(2, 5, 7, 6).permute(0, 3, 1, 2)
    points = torch.rand(2, 30, 2, generator=torch.Generator().manual_seed(2))
    found = Standardiser.fit(raw(), max_channels=4)
    before = sample_map(found.apply(feature_map.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), points)
    assert torch.allclose(found.apply(sample_map(feature_map, points)), before, atol=1e-4)


@pytest.mark.parametrize("size", [(10, 14), (5, 7), (3, 20), (1, 1)])
def test_samples_at_pixel_centers_are_the_resampled_map(size: tuple[int, int]) -> None:
    feature_map = raw(35).reshape(1, 5, 7, 6).permute(0, 3, 1, 2)
    sampled = sample_map(feature_map, centers(*size))
    resampled = resample_map(feature_map, size)
    assert torch.allclose(sampled, resampled.flatten(2).transpose(1, 2), atol=1e-5)


def test_maps_of_every_stride_are_aligned() -> None:
    """A ramp over the image is the same ramp from any grid, away from the edges."""
    ramp = [((torch.arange(16 // stride) + 0.5) * stride).expand(1, 1, 16 // stride, -1) for stride in (1, 2, 4)]
    points = centers(16, 16)[:, 40:200]
    inside = (points[0, :, 0] > 0.15) & (points[0, :, 0] < 0.85)
    for coarse in ramp[1:]:
        assert torch.allclose(sample_map(coarse, points)[:, inside], sample_map(ramp[0], points)[:, inside], atol=1e-4)


def test_points_on_and_beyond_the_edge_repeat_it() -> None:
    feature_map = torch.arange(4.0).reshape(1, 1, 2, 2)
    corners = torch.tensor([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]])
    assert sample_map(feature_map, corners).flatten().tolist() == [0, 1, 2, 3]


def test_an_image_is_pooled_by_the_mean_and_attention_maps_by_the_spread() -> None:
    features = torch.tensor([[[1.0, -1.0], [2.0, -3.0], [6.0, -2.0]]])
    assert pool(features, "up-level0-repeat0-res-out").tolist() == [[3.0, -2.0]]
    for name in ("up-level0-repeat0-vit-block0-self-map", "up-cross-map", "block7-map", "single3-map"):
        torch.testing.assert_close(pool(features, name), torch.tensor([[14 / 3, 2 / 3]]).sqrt())
