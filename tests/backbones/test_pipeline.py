"""The backbone of Stable-Diffusion-like pipelines: what a feature depends on, and what it does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support import tiny
from support.tiny_pipelines import backbone_of
from torch import Tensor

from diffsift.backbones import (
    Backbone,
    LatentControl,
    ModelSpecification,
    PipelineBackbone,
    PixelControl,
    activation_named,
    load,
)
from diffsift.backbones._noise import noise_of
from diffsift.errors import ModelError

NAMES = ("up-level0-repeat0-vit-block0-cross-q", "up-level1-repeat1-res-out")


def features(backbone: Backbone, images: Tensor, *, timestep: int = 100, seed: int = 0) -> Tensor:
    """Both activations at one timestep, flattened by image."""
    wanted = [activation_named(name, backbone.activations()) for name in NAMES]
    ((_, maps),) = backbone.capture(images, {timestep: wanted}, seed=seed)
    return torch.cat([found.flatten(1) for found in maps.values()], dim=1)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def test_an_image_has_the_same_features_in_any_batch(tiny_backbone: PipelineBackbone, images: Tensor) -> None:
    together = features(tiny_backbone, images)
    alone = torch.cat([features(tiny_backbone, images[i : i + 1]) for i in range(len(images))])
    reversed_ = features(tiny_backbone, images.flip(0)).flip(0)
    assert torch.allclose(together, alone, atol=1e-5)
    assert torch.allclose(together, reversed_, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-2)


def test_features_depend_on_seed_and_timestep(tiny_backbone: PipelineBackbone, images: Tensor) -> None:
    base = features(tiny_backbone, images)
    assert torch.equal(base, features(tiny_backbone, images))
    assert not torch.allclose(base, features(tiny_backbone, images, seed=1), atol=1e-3)
    assert not torch.allclose(base, features(tiny_backbone, images, timestep=300), atol=1e-3)


def test_noise_depends_on_content_and_seed_only(images: Tensor) -> None:
    noise = noise_of(images, (4, 8, 8), [3] * 5)
    torch.manual_seed(99)
    assert torch.equal(noise_of(images[[3, 1]], (4, 8, 8), [3] * 2), noise[[3, 1]])
    assert not torch.equal(noise_of(images, (4, 8, 8), [4] * 5), noise)
    changed = images.clone()
    changed[0, 0, 0, 0] += 0.5 - changed[0, 0, 0, 0].round()
    assert [torch.equal(a, b) for a, b in zip(noise_of(changed, (4, 8, 8), [3] * 5), noise, strict=True)] == [False] + [
        True
    ] * 4
    assert abs(float(noise.mean())) < 0.1
    assert abs(float(noise.std()) - 1) < 0.1


@pytest.mark.parametrize("timestep", [-1, 1000])
def test_a_timestep_out_of_range_is_refused(tiny_backbone: PipelineBackbone, images: Tensor, timestep: int) -> None:
    with pytest.raises(ModelError, match=rf"timestep must be in \[0, 999\], but got {timestep}"):
        features(tiny_backbone, images, timestep=timestep)


def test_images_need_not_be_square(tiny_pipeline: Path) -> None:
    backbone = load(ModelSpecification(id=str(tiny_pipeline), device="cpu", image_size=(24, 40)))
    wanted = [entry for entry in backbone.activations() if not entry.unreadable]
    ((_, maps),) = backbone.capture(torch.rand(1, 3, 40, 31), {10: wanted}, seed=0)
    assert tuple(maps["unet-in"].shape[-2:]) == (12, 20)
    assert tuple(maps["mid-vit-out"].shape[-2:]) == (6, 10)


def test_the_conditioning_of_sdxl_is_its_pipelines_own(images: Tensor) -> None:
    backbone = backbone_of(tiny.xl_pipeline(), id="tiny-xl")
    conditioning = backbone.condition(3)
    assert tuple(conditioning["encoder_hidden_states"].shape) == (3, tiny.TOKENS, 2 * tiny.TEXT_WIDTH)
    assert conditioning["added_cond_kwargs"]["time_ids"][0].tolist() == [16, 16, 0, 0, 16, 16]
    assert tuple(conditioning["added_cond_kwargs"]["text_embeds"].shape) == (3, tiny.TEXT_WIDTH)
    # As a pipeline passes it: HunyuanDiT views it in another shape.
    assert all(
        tensor.is_contiguous()
        for tensor in (conditioning["encoder_hidden_states"], *conditioning["added_cond_kwargs"].values())
    )
    assert features(backbone, images).isfinite().all()


def test_the_prompt_matters_and_is_part_of_the_identity(images: Tensor) -> None:
    plain = backbone_of(tiny.pipeline())
    prompted = backbone_of(tiny.pipeline(), prompt="bad cafe")
    assert plain.identity() != prompted.identity()
    assert not torch.equal(features(plain, images), features(prompted, images))


def test_identity_is_that_of_the_weights(tiny_pipeline: Path, tiny_backbone: PipelineBackbone) -> None:
    again = load(ModelSpecification(id=str(tiny_pipeline), device="cpu"))
    assert again.identity() == tiny_backbone.identity()
    other = load(ModelSpecification(id=str(tiny_pipeline), device="cpu"))
    next(other.denoiser.parameters()).data.flatten()[0] += 1
    changed = other.identity()
    assert {key for key in changed if changed[key] != tiny_backbone.identity()[key]} == {"denoiser"}


def test_random_weights_are_another_network(tiny_backbone: PipelineBackbone, images: Tensor) -> None:
    first, second = tiny_backbone.untrained(seed=0), tiny_backbone.untrained(seed=0)
    assert first.name == "random"
    assert first.identity() == second.identity()
    assert first.identity() not in (tiny_backbone.identity(), tiny_backbone.untrained(seed=1).identity())
    assert not torch.allclose(features(first, images), features(tiny_backbone, images), atol=1e-2)
    assert tiny_backbone.name == "main"


def test_controls_are_neighbourhoods_of_pixels_and_latents(tiny_backbone: PipelineBackbone, images: Tensor) -> None:
    pixels, latents = PixelControl(tiny_backbone), LatentControl(tiny_backbone)
    ((_, maps),) = pixels.capture(images, {0: pixels.activations()}, seed=0)
    patches = maps["pixels-5x5"].reshape(5, 3, 5, 5, 16, 16)
    assert torch.equal(patches[:, :, 2, 2], images)
    assert torch.equal(patches[:, :, 0, 4, 2:, :-2], images[:, :, :-2, 2:])
    ((_, maps),) = latents.capture(images, {0: latents.activations()}, seed=0)
    center = maps["latents-3x3"].reshape(5, 4, 3, 3, 8, 8)[:, :, 1, 1]
    with torch.inference_mode():
        assert torch.allclose(center, tiny_backbone.encode(images), atol=1e-6)
    assert pixels.identity() != latents.identity()
    assert latents.identity() != tiny_backbone.identity()
    assert latents.identity() == LatentControl(tiny_backbone.untrained()).identity()
    with pytest.raises(ModelError, match=r"in \[0, 0\]"):
        pixels.check_timesteps([50])


def test_a_model_that_wants_more_than_the_image_is_refused() -> None:
    pipeline = tiny.pipeline()
    pipeline.unet = tiny.unet(in_channels=9)
    with pytest.raises(ModelError, match=r"my-model"):
        backbone_of(pipeline, id="my-model").encode(torch.rand(1, 3, 16, 16))
