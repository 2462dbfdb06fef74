"""Properties: known answers on constructed tensors, and what must not move them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from unittest import mock

import pytest
import torch
from support import wide
from support.allocations import counted
from support.tiny_pipelines import backbone_of
from torch import Tensor
from torch.nn import functional

from diffsift.backbones import PipelineBackbone
from diffsift.backbones._latents import LatentCache
from diffsift.errors import SpecificationError
from diffsift.spaces import Candidate, Properties, measure_properties
from diffsift.spaces.properties import Statistics, energy_of, window_of

SEEDS, IMAGES = 4, 40


def measured(
    content: Callable[[int], Tensor], noise: float = 0.0, *, scale: Tensor | float = 1.0, images: int = IMAGES
) -> Properties:
    """Properties of `content` of an image (channels, rows, columns) with white noise of this deviation on it."""
    torch.manual_seed(0)
    statistics = Statistics()
    for image in range(images):
        clean = content(image)
        maps = (clean + noise * torch.randn(SEEDS, *clean.shape)) * scale
        statistics.add(window_of(maps), energy_of(maps))
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


def test_sums_per_channel_give_what_the_formulae_say() -> None:
    """Written out over all locations and frequencies, which the accumulators do not keep."""
    maps = torch.stack([smooth(0, channels=20) + 3 for _ in range(5)])[:, None] + torch.randn(5, SEEDS, 20, 16, 16)
    maps = maps.double() * torch.logspace(-1, 1, 20)[:, None, None] + torch.randn(20, 16, 16)
    statistics = Statistics()
    for image in maps:
        statistics.add(image, image.pow(2).mean((2, 3)))
    found = statistics.result()

    within = maps.var(1).mean((0, 2, 3))
    content = maps.mean(1).var(0).mean((1, 2)) - within / SEEDS
    variance = within + content
    assert found.diffusion_noise == pytest.approx(float((within / variance).mean()), rel=1e-6)

    centred = maps - maps.mean((3, 4), keepdim=True)
    means = centred.mean(1)
    across = torch.einsum("icxy,jcxy->ijc", means, means) / 256
    same = (across.sum((0, 1)) - across.diagonal().sum(1)) / 20
    cross = (centred.sum(1) ** 2 - (centred**2).sum(1)) / (SEEDS * (SEEDS - 1))
    assert found.position == pytest.approx(float((same / cross.mean((0, 2, 3))).mean()), rel=1e-6)

    waves = torch.fft.fft2(centred, norm="ortho")
    whole = (waves.abs() ** 2).mean(1).sum(0)
    power = ((waves.sum(1).abs() ** 2 - (waves.abs() ** 2).sum(1)) / (SEEDS * (SEEDS - 1))).sum(0)
    whole, power = ((entry / variance[:, None, None]).mean(0) for entry in (whole, power))
    frequency = torch.fft.fftfreq(16)[:, None].hypot(torch.fft.fftfreq(16)).double()
    fine, null = frequency > 0.25, float((frequency > 0.25).sum() / 255)
    mean_frequency = float((power * frequency).sum() / power.flatten()[1:].sum())
    assert found.granularity == pytest.approx(mean_frequency / float(frequency.sum() / 255), rel=1e-6)
    for entry, share in ((power, found.over_refinement), (whole, found.increment_noise)):
        assert share == pytest.approx(float(entry[fine].sum() / entry.flatten()[1:].sum()) / null, rel=1e-6)


@pytest.mark.parametrize("batch_size", [1, 3, 16])
def test_what_is_read_in_passes_gives_the_properties_of_whole_maps(
    tiny_backbone: PipelineBackbone, batch_size: int
) -> None:
    wanted = [entry for entry in tiny_backbone.activations() if entry.kind in ("res-out", "cross-q", "ffn-inner")]
    images, seeds = list(torch.rand(3, 3, 16, 16)), (0, 1, 5)
    statistics = {entry.name: Statistics() for entry in wanted}
    for image in images:
        runs = [next(iter(tiny_backbone.capture([image], {100: wanted}, seed=seed)))[1] for seed in seeds]
        for name, accumulated in statistics.items():
            maps = torch.cat([run[name] for run in runs])
            accumulated.add(window_of(maps), energy_of(maps))
    found = measure_properties(tiny_backbone, images, {100: wanted}, seeds=seeds, batch_size=batch_size)
    # Passes of several images round differently.
    rounding = 1e-6 if batch_size == 1 else 2e-3
    for name, accumulated in statistics.items():
        whole, read = asdict(accumulated.result()), asdict(found[Candidate("main", name, 100)])
        assert read == pytest.approx(whole, rel=rounding, abs=rounding / 10), name


def test_seeds_run_together_and_images_are_encoded_once(
    tiny_backbone: PipelineBackbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = tiny_backbone.activations()
    monkeypatch.setattr(tiny_backbone, "latents", LatentCache())
    with (
        mock.patch.object(tiny_backbone, "denoise", side_effect=tiny_backbone.denoise) as denoise,
        mock.patch.object(tiny_backbone, "encode", side_effect=tiny_backbone.encode) as encode,
    ):
        wanted = {10: known[:2], 900: known[:1]}
        measure_properties(tiny_backbone, list(torch.rand(3, 3, 16, 16)), wanted, batch_size=8)
    together = [len(call.args[0]) for call in denoise.call_args_list]
    assert together == [1, 8, 3, 8, 4], "one to see how large maps are, then as many as may be"
    assert sum(len(call.args[0]) for call in encode.call_args_list) == 3


def test_memory_does_not_grow_with_timesteps_or_images(tiny_backbone: PipelineBackbone) -> None:
    known = [entry for entry in tiny_backbone.activations() if entry.kind == "res-out"]

    def peak(timesteps: int, images: int) -> int:
        with counted() as found:
            measure_properties(
                tiny_backbone, list(torch.rand(images, 3, 16, 16)), dict.fromkeys(range(timesteps), known), batch_size=4
            )
        return found.peak

    peak(1, 2)  # what is remembered for a grid is counted here
    assert peak(3, 5) < 1.1 * peak(1, 4)


def test_a_wide_model_takes_hardly_more_than_its_own_pass() -> None:
    """9,728 channels of 4,096 locations: 80 MB a map, of which a pass alone holds two."""
    backbone = backbone_of(wide.pipeline())
    known = [entry for entry in backbone.activations() if not entry.unreadable]
    assert max(entry.channels for entry in known) == wide.CHANNELS
    image = torch.rand(3, wide.PIXELS, wide.PIXELS)
    with counted() as plain:
        list(backbone.capture([image], {9: known}, seed=0, read=lambda found: found.values.new_zeros(1)))
    with counted() as measuring:
        measure_properties(backbone, [image, image.flip(1)], {9: known}, seeds=(0, 1))
    assert plain.largest == wide.MAP_BYTES
    assert measuring.largest == wide.MAP_BYTES, "no copy of a map, wider or not"
    assert measuring.peak < plain.peak + wide.MAP_BYTES / 2, "no map is held beyond the pass"
    assert measuring.peak < 500_000_000


def test_energy_is_measured_without_a_copy_of_the_whole_map() -> None:
    maps = torch.randn(1, 64 * 64, 2500).mul_(100).bfloat16().transpose(1, 2).unflatten(2, (64, 64))
    with counted() as found:
        energy = energy_of(maps)
    assert found.largest < maps.nbytes
    assert torch.allclose(energy.double(), maps.double().pow(2).mean((2, 3)), rtol=1e-6)


def test_a_backbone_is_measured_at_every_timestep(tiny_backbone: PipelineBackbone) -> None:
    wanted = [entry for entry in tiny_backbone.activations() if entry.kind in ("res-out", "cross-q")]
    found = measure_properties(tiny_backbone, list(torch.rand(4, 3, 16, 16)), {10: wanted, 900: wanted})
    assert set(found) == {Candidate("main", entry.name, t) for entry in wanted for t in (10, 900)}
    first = wanted[0].name
    noise = [found[Candidate("main", first, timestep)].diffusion_noise for timestep in (10, 900)]
    assert noise[0] + 0.05 < noise[1]


def test_too_little_to_measure_on_is_refused(tiny_backbone: PipelineBackbone) -> None:
    known = tiny_backbone.activations()[:1]
    with pytest.raises(SpecificationError, match="at least two images under two noise seeds, but got 1 images"):
        measure_properties(tiny_backbone, list(torch.rand(1, 3, 16, 16)), {10: known})
    with pytest.raises(ValueError, match="two noise seeds, but got 1"):
        Statistics().add(torch.rand(1, 2, 4, 4), torch.rand(1, 2))
