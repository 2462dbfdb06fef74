"""Readers: what is kept of a feature map is cut down inside the pass."""

from __future__ import annotations

import pytest
import torch
from support.tiny_pipelines import backbone_of, build
from torch import Tensor

from diffsift.backbones import Activation, FeatureMap, LatentControl, PipelineBackbone, on_cpu, whole_map
from diffsift.backbones._batches import BatchLimit
from diffsift.backbones._latents import LatentCache
from diffsift.extraction import sample_map


@pytest.fixture
def backbone() -> PipelineBackbone:
    return backbone_of(build("SD 1.5"), image_size=(16, 16))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def readable(backbone: PipelineBackbone) -> list[Activation]:
    return [entry for entry in backbone.activations() if not entry.unreadable]


def test_a_reader_gets_every_map_as_the_default_keeps_it(backbone: PipelineBackbone, images: Tensor) -> None:
    wanted, seen = {50: readable(backbone), 300: readable(backbone)[:3]}, list[tuple[int, str]]()

    def corner(feature_map: FeatureMap) -> Tensor:
        assert feature_map.images == slice(0, 5)
        seen.append((feature_map.timestep, feature_map.activation.name))
        return feature_map.values[:, :2, 0, 0].clone()

    whole = dict(backbone.capture(images, wanted, seed=3))
    for timestep, found in backbone.capture(images, wanted, seed=3, read=corner):
        assert set(found) == {entry.name for entry in wanted[timestep]}
        for name, values in found.items():
            assert torch.equal(values, whole[timestep][name][:, :2, 0, 0])
    assert len(seen) == len(set(seen)) == len(readable(backbone)) + 3


def test_noise_draws_are_averaged_over_what_is_read(images: Tensor) -> None:
    backbone = backbone_of(build("SD 1.5"), image_size=(16, 16), noise_seeds=3)
    wanted = {50: readable(backbone)[-2:]}
    ((_, whole),) = backbone.capture(images, wanted, seed=0)
    ((_, read),) = backbone.capture(images, wanted, seed=0, read=lambda entry: entry.values.mean((2, 3)))
    for name, values in read.items():
        assert torch.allclose(values, whole[name].mean((2, 3)), atol=1e-6)


def test_what_a_reader_calls_alike_is_added_up(backbone: PipelineBackbone, images: Tensor) -> None:
    wanted = {50: readable(backbone)[:4], 300: readable(backbone)[:3]}

    def sums(entry: FeatureMap) -> dict[str, Tensor]:
        mean = entry.values.mean((1, 2, 3))
        return {"all": mean, "late" if entry.timestep == 300 else "early": 2 * mean}

    whole = dict(backbone.capture(images, wanted, seed=3))
    for timestep, found in backbone.capture(images, wanted, seed=3, read=sums):
        total = sum(values.mean((1, 2, 3)) for values in whole[timestep].values())
        assert set(found) == {"all", "late" if timestep == 300 else "early"}
        assert torch.allclose(found.pop("all"), total, atol=1e-6)
        assert torch.allclose(found.popitem()[1], 2 * total, atol=1e-6)


def test_every_image_may_have_a_seed(backbone: PipelineBackbone, images: Tensor) -> None:
    wanted = {50: readable(backbone)[-1:]}
    repeated = images[:1].expand(3, -1, -1, -1)
    ((_, found),) = backbone.capture(repeated, wanted, seed=[4, 0, 4])
    (values,) = found.values()
    alone = [next(iter(dict(backbone.capture(images[:1], wanted, seed=seed))[50].values()))[0] for seed in (4, 0)]
    assert torch.allclose(values, torch.stack([alone[0], alone[1], alone[0]]), atol=1e-5)
    assert not torch.allclose(values[0], values[1], atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("contiguous", [True, False])
def test_maps_in_half_precision_are_sampled_as_in_float32(dtype: torch.dtype, contiguous: bool) -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(2, 5, 7, 3, generator=generator).to(dtype).permute(0, 3, 1, 2)
    maps = maps.contiguous() if contiguous else maps
    points = torch.rand(2, 200, 2, generator=generator) * 1.2 - 0.1
    points[:, :4] = torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.1, 0.3]])
    found = sample_map(maps, points)
    assert found.dtype == torch.float32
    assert torch.allclose(found, sample_map(maps.float(), points), atol=1e-5)


def test_images_are_encoded_once(backbone: PipelineBackbone, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = {50: readable(backbone)[:1], 300: readable(backbone)[:1]}
    encode, encoded = backbone.encode, list[int]()
    monkeypatch.setattr(backbone, "encode", lambda part: encoded.append(len(part)) or encode(part))
    first = dict(backbone.capture(images[[0, 1, 0]], wanted, seed=0))
    assert encoded == [2]
    again = dict(backbone.capture(images, wanted, seed=1))
    assert encoded == [2, 3]
    assert not torch.equal(*(next(iter(found[50].values()))[0] for found in (first, again)))
    list(LatentControl(backbone).capture(images, {0: LatentControl(backbone).activations()}, seed=0))
    assert encoded == [2, 3]


def test_remembered_latents_stay_within_their_bytes(images: Tensor) -> None:
    cache, calls = LatentCache(most=2 * 3 * 16 * 16 * 4), list[int]()

    def encode(part: Tensor) -> Tensor:
        calls.append(len(part))
        return part * 2

    assert torch.equal(cache.of(images, encode), images * 2)
    assert torch.equal(cache.of(images[3:], encode), images[3:] * 2)
    assert torch.equal(cache.of(images[:1], encode), images[:1] * 2)
    assert calls == [5, 1]


def test_images_are_encoded_in_batches_of_their_own(backbone: PipelineBackbone, images: Tensor) -> None:
    wanted = {50: readable(backbone)[:1]}
    encode, sizes = backbone.encode, list[int]()

    def small(part: Tensor) -> Tensor:
        sizes.append(len(part))
        if len(part) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return encode(part)

    backbone.encode = small  # type: ignore[method-assign]
    batches = list[int]()
    denoise = backbone.denoise
    backbone.denoise = lambda clean, *rest: batches.append(len(clean)) or denoise(clean, *rest)  # type: ignore[method-assign]
    list(backbone.capture(images, wanted, seed=0))
    assert sizes == [5, 2, 2, 1]
    assert batches == [5]  # what ran out of memory is what takes fewer images


def test_large_maps_run_fewer_together(
    backbone: PipelineBackbone, images: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {50: readable(backbone)[-1:]}
    ((_, expected),) = backbone.capture(images, wanted, seed=0)
    largest = max(entry.channels * (8 // entry.stride) ** 2 for entry in readable(backbone))
    # Memory for two passes of one image, each with eight of the largest maps in float32; for no encode.
    monkeypatch.setattr("diffsift.backbones._pipeline._BATCH_MEMORY", 2 * 8 * 4 * largest)
    monkeypatch.setattr(backbone, "latents", None)
    encode, denoise = backbone.encode, backbone.denoise
    encoded, denoised = list[int](), list[int]()
    monkeypatch.setattr(backbone, "encode", lambda part: encoded.append(len(part)) or encode(part))
    monkeypatch.setattr(backbone, "denoise", lambda clean, *rest: denoised.append(len(clean)) or denoise(clean, *rest))
    ((_, found),) = backbone.capture(images, wanted, seed=0)
    assert denoised == [2, 2, 1]
    assert sum(encoded) == 5
    assert max(encoded) == backbone.encoded_together() < 5
    for name, values in found.items():
        assert torch.allclose(values, expected[name], atol=1e-5)


def test_a_limit_grows_back_and_then_waits_longer() -> None:
    limit, most, sizes = BatchLimit("a step"), 2, list[int]()

    def run(part: slice) -> int:
        size = part.stop - part.start
        sizes.append(size)
        if size > most:
            raise RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
        return size

    assert limit.run(4, run) == [2, 2]
    assert sizes == [4, 2, 2]
    waited = []
    for _ in range(2):
        before = len(sizes)
        while 4 not in sizes[before:]:
            assert sum(limit.run(4, run)) == 4
        waited.append(len(sizes) - before)
    assert waited[1] > waited[0] > 4
    most = 4
    while sizes[-1] != 4:
        assert sum(limit.run(4, run)) == 4
    with pytest.raises(RuntimeError, match="shapes differ"):
        limit.run(1, lambda part: (_ for _ in ()).throw(RuntimeError("shapes differ")))


def test_one_transfer_brings_all_to_the_cpu() -> None:
    found = {"a": torch.rand(2, 3), "b": torch.rand(2, 5, 1)}
    assert all(on_cpu(found)[name] is tensor for name, tensor in found.items())
    assert on_cpu({}) == {}


def test_the_default_reader_copies(backbone: PipelineBackbone) -> None:
    values = torch.rand(1, 2, 3, 3)
    kept = whole_map(FeatureMap(readable(backbone)[0], timestep=0, values=values, images=slice(0, 1)))
    assert torch.equal(kept, values)
    assert kept.data_ptr() != values.data_ptr()
