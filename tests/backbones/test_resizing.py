"""Images at a backbone's size, and features back on the image: stretched, padded, averaged over noise, in parts."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from support.tiny_pipelines import backbone_of, build
from torch import Tensor

from diffsift.backbones import Activation, PipelineBackbone
from diffsift.backbones import _base as base
from diffsift.backbones._resizing import crop_content, resize_images
from diffsift.errors import ModelError

CPU = torch.device("cpu")


@pytest.fixture
def backbone() -> PipelineBackbone:
    return backbone_of(build("SD 1.5"), image_size=(16, 16))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def late(backbone: PipelineBackbone) -> Activation:
    return [entry for entry in backbone.activations() if entry.kind == "self-k" and entry.stage == "up"][-1]


def features(backbone: PipelineBackbone, images: Tensor | list[Tensor], **options: object) -> Tensor:
    entry = late(backbone)
    ((_, maps),) = backbone.capture(images, {100: [entry]}, seed=0, **options)
    return maps[entry.name]


def test_padding_keeps_the_shape_and_says_where_the_image_is() -> None:
    wide, high = torch.zeros(3, 10, 20), torch.ones(3, 20, 10)
    resized, boxes = resize_images([wide, high], (16, 16), "pad", CPU)
    assert boxes is not None
    assert boxes.tolist() == [[0.25, 0.0, 0.5, 1.0], [0.0, 0.25, 1.0, 0.5]]
    assert torch.allclose(resized[0, 0, :, 8], torch.tensor([0.5] * 4 + [0.0] * 8 + [0.5] * 4))
    assert torch.allclose(resized[1, 0, 8], torch.tensor([0.5] * 4 + [1.0] * 8 + [0.5] * 4))
    assert resize_images([wide], (16, 16), "stretch", CPU)[1] is None
    assert resize_images([torch.zeros(3, 9, 9)], (16, 16), "pad", CPU)[1] is None


def test_content_maps_points_of_the_image_to_themselves() -> None:
    # A map that holds each place's own coordinates: in the content they must be those of the image's part.
    rows, columns = torch.meshgrid((torch.arange(16) + 0.5) / 16, (torch.arange(16) + 0.5) / 16, indexing="ij")
    coordinates = torch.stack([rows, columns])[None].expand(2, -1, -1, -1)
    boxes = torch.tensor([[0.25, 0.0, 0.5, 1.0], [0.125, 0.5, 0.75, 0.25]])
    found = crop_content(coordinates, boxes)
    for image, (top, left, height, width) in enumerate(boxes.tolist()):
        assert torch.allclose(found[image, 0], top + height * rows, atol=1e-5)
        assert torch.allclose(found[image, 1], left + width * columns, atol=1e-5)


def test_padded_images_have_the_same_features_in_any_batch(images: Tensor) -> None:
    padding = backbone_of(build("SD 1.5"), image_size=(16, 16), resize="pad")
    mixed = [images[0, :, :9], images[1, :, :, :7], images[2]]
    together = features(padding, mixed)
    alone = torch.cat([features(padding, [image]) for image in mixed])
    assert torch.allclose(together, alone, atol=1e-5)
    stretching = backbone_of(build("SD 1.5"), image_size=(16, 16))
    assert not torch.allclose(features(stretching, mixed)[0], together[0], atol=1e-2)
    assert torch.allclose(features(stretching, mixed)[2], together[2], atol=1e-5)
    assert padding.identity() != stretching.identity()


def test_noise_draws_are_averaged(backbone: PipelineBackbone, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    before, plain = backbone.identity(), base.noise_of
    single = []
    for shift in (0, 1, 2):
        monkeypatch.setattr(
            base, "noise_of", lambda images, shape, seeds, draw=0, by=shift: plain(images, shape, seeds, draw + by)
        )
        single.append(features(backbone, images))
    monkeypatch.setattr(base, "noise_of", plain)
    assert not torch.allclose(single[0], single[1], atol=1e-3)
    backbone.noise_seeds = 3
    assert torch.allclose(features(backbone, images), torch.stack(single).mean(0), atol=1e-5)
    assert backbone.identity() != before


def test_memory_that_runs_out_halves_the_batch(
    backbone: PipelineBackbone,
    images: Tensor,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected, run, sizes = features(backbone, images), backbone.denoise, list[int]()

    def small(clean: Tensor, *rest: object) -> None:
        sizes.append(len(clean))
        if len(clean) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        run(clean, *rest)

    monkeypatch.setattr(backbone, "denoise", small)
    limit = 2
    found = features(backbone, images)
    assert "memory ran out in running the denoiser with 5 images together; continuing with 2" in caplog.text
    assert sizes == [5, 2, 2, 1]
    assert torch.allclose(found, expected, atol=1e-5)
    limit = 0
    with pytest.raises(ModelError, match="memory must hold a single image at 16 x 16 px"):
        features(backbone, images[:1])
    assert not any(module._forward_hooks for module in backbone.denoiser.modules())


def test_other_errors_are_told(backbone: PipelineBackbone, images: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Iterator[None]:
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(backbone, "denoise", broken)
    with pytest.raises(ModelError, match=r"must run at .* but its .* fails: shapes differ"):
        features(backbone, images)


@pytest.mark.parametrize("family", ["SD 1.5", "PixArt", "SD 3", "Flux"])
def test_every_image_may_have_a_prompt(family: str, images: Tensor) -> None:
    def made(prompt: str) -> PipelineBackbone:
        return backbone_of(build(family), image_size=(16, 16), prompt=prompt)

    def of(backbone: PipelineBackbone, **options: object) -> Tensor:
        entry = [entry for entry in backbone.activations() if entry.kind in ("vit-out", "block-out")][-1]
        ((_, maps),) = backbone.capture(images[:2], {100: [entry]}, seed=0, **options)
        return maps[entry.name]

    plain = made("")
    both = of(plain, prompts=["a", "b c"])
    assert torch.allclose(both[0], of(made("a"))[0], atol=1e-4)
    assert torch.allclose(both[1], of(made("b c"))[1], atol=1e-4)
    assert torch.allclose(of(plain, prompts=["", ""]), of(plain), atol=1e-4)
    assert not torch.equal(both, of(plain))


def test_a_share_of_noise_levels_is_a_timestep(backbone: PipelineBackbone) -> None:
    assert [backbone.timestep_of(level) for level in (0, 7, 0.15, 0.9999)] == [0, 7, 150, 999]


def test_stage_means_average_the_maps_of_a_stage(backbone: PipelineBackbone, images: Tensor) -> None:
    backbone.place_attention_maps()
    known = {entry.name: entry for entry in backbone.activations()}
    mean = known["up-cross-map"]
    assert len(mean.parts) > 1
    assert {part.stage for part in mean.parts} == {"up"}
    ((_, maps),) = backbone.capture(images[:1], {100: [mean, *mean.parts]}, seed=0)
    assert maps[mean.name].shape == (1, mean.channels, 16 // 2 // mean.stride, 16 // 2 // mean.stride)
    enlarged = [
        torch.nn.functional.interpolate(maps[part.name], maps[mean.name].shape[-2:], mode="bilinear")
        for part in mean.parts
    ]
    assert torch.allclose(maps[mean.name], torch.stack(enlarged).mean(0), atol=1e-6)


def test_the_control_encodes_prompts_that_the_model_never_met(backbone: PipelineBackbone, images: Tensor) -> None:
    backbone.activations()
    random = backbone.untrained()
    found = features(random, images[:2], prompts=["a", "b c"])
    assert torch.allclose(found, features(random, images[:2], prompts=["a", "b c"]))
    assert next(backbone.denoiser.parameters()).device == backbone.device


def test_one_prompt_for_each_image(backbone: PipelineBackbone, images: Tensor) -> None:
    with pytest.raises(ModelError, match="prompts must be one for each of 2 images, but got 3"):
        features(backbone, images[:2], prompts=["a"] * 3)


def test_noise_is_shared_by_all_images(backbone: PipelineBackbone, images: Tensor) -> None:
    """Twice the same image but for a pixel: its own noise differs, the shared one does not."""
    changed = images[:1].clone()
    changed[0, :, 0, 0] = 1 - changed[0, :, 0, 0].round()
    pair = torch.cat([images[:1], changed])
    own, before = features(backbone, pair), backbone.identity()
    backbone.noise_shared = True
    shared = features(backbone, pair)
    assert (shared[0] - shared[1]).abs().mean() < 0.5 * (own[0] - own[1]).abs().mean()
    assert torch.allclose(shared[1:], features(backbone, changed), atol=1e-5)
    assert backbone.identity() != before
    backbone.noise_seeds = 2
    assert not torch.allclose(features(backbone, changed), shared[1:], atol=1e-3)


def test_images_may_have_8_bits(backbone: PipelineBackbone) -> None:
    pixels = torch.randint(256, (2, 3, 20, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(features(backbone, pixels), features(backbone, pixels.float() / 255))
    assert torch.equal(features(backbone, list(pixels)), features(backbone, pixels))
