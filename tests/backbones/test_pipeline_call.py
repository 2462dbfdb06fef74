"""Backbones of every kind of pipeline, by one path: the denoiser is run on images as the pipeline runs it on noise."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from support.tiny_pipelines import FAMILIES, backbone_of, build
from torch import Tensor

from diffsift.backbones import PipelineBackbone
from diffsift.errors import ModelError

SIZES = {"DDPM": (16, 16), "DiT": (16, 16)}  # these pipelines know no other size than the model's own


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def family_backbone(family: str, **options: Any) -> PipelineBackbone:
    size = None if family in SIZES else (16, 16)
    return backbone_of(build(family), id=family, **{"image_size": size, **options})


def seen_by(module: torch.nn.Module, run: Any) -> list[dict[str, Any]]:
    """All arguments that a module is called with."""
    calls: list[dict[str, Any]] = []

    def take(_: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = dict(inspect.signature(module.forward).bind(*args, **kwargs).arguments)
        calls.append({**given, **given.pop("kwargs", {})})

    handle = module.register_forward_pre_hook(take, with_kwargs=True)
    try:
        with torch.inference_mode():
            run()
    finally:
        handle.remove()
    return calls


def test_the_denoiser_is_called_as_its_own_pipeline_calls_it(family: str) -> None:
    pipeline = build(family)
    backbone = family_backbone(family)
    options: dict[str, Any] = {"num_inference_steps": 3, "prompt": "", "guidance_scale": 1.0, "output_type": "latent"}
    options |= {"height": 16, "width": 16, "class_labels": [3], "use_resolution_binning": False}
    accepted = inspect.signature(type(pipeline).__call__).parameters
    denoiser = pipeline.unet if hasattr(pipeline, "unet") else pipeline.transformer
    pipeline.set_progress_bar_config(disable=True)
    theirs = seen_by(denoiser, lambda: pipeline(**{k: v for k, v in options.items() if k in accepted}))[1]
    timestep = int(pipeline.scheduler.timesteps[1])
    clean = backbone.encode(torch.rand(1, 3, 16, 16))
    ours = seen_by(
        backbone.denoiser, lambda: backbone.denoise(clean, torch.randn_like(clean), timestep, backbone.condition(1))
    )[0]
    assert {name for name, value in theirs.items() if value is not None} == set(ours)
    for name, value in ours.items():
        if name in ("sample", "hidden_states"):
            assert value.shape == theirs[name].shape
        elif name == "timestep":
            assert float(value) == pytest.approx(float(theirs[name]), abs=1.0 if float(value) > 1 else 1e-3)
        else:
            assert same(value, theirs[name]), name


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return all(same(one[key], other[key]) for key in {*one, *other})
    return torch.equal(one, other) if isinstance(one, Tensor) else bool(one == other)


@pytest.mark.parametrize("family", [name for name in FAMILIES if name not in SIZES])
def test_images_need_not_be_square(family: str) -> None:
    backbone = family_backbone(family, image_size=(16, 32))
    wanted = [entry for entry in backbone.activations() if not entry.unreadable]
    ((_, maps),) = backbone.capture(torch.rand(1, 3, 20, 20), {300: wanted}, seed=0)
    assert all(feature_map.shape[3] == 2 * feature_map.shape[2] for feature_map in maps.values())


def test_features_depend_on_the_image_and_the_noise_level(family: str) -> None:
    backbone = family_backbone(family)
    wanted = [entry for entry in backbone.activations() if not entry.unreadable and entry.kind == "block-out"]
    wanted = wanted or [entry for entry in backbone.activations() if entry.kind == "res-out"]
    found = dict(backbone.capture(torch.rand(2, 3, 16, 16), {10: wanted[-1:], 900: wanted[-1:]}, seed=0))
    low, high = (found[timestep][wanted[-1].name] for timestep in (10, 900))
    assert not torch.allclose(low, high)
    assert not torch.allclose(low[0], low[1])


def test_random_weights_differ_and_keep_the_rest(family: str) -> None:
    backbone = family_backbone(family)
    other = backbone.untrained(seed=1)
    assert other.identity()["denoiser"] != backbone.identity()["denoiser"]
    assert {**other.identity(), "denoiser": 0} == {**backbone.identity(), "denoiser": 0}


def test_video_models_are_refused() -> None:
    class Films(type(build("SD 1.5"))):  # type: ignore[misc]
        def __call__(self, prompt: str, num_frames: int = 8) -> None: ...

    pipeline = build("SD 1.5")
    pipeline.__class__ = Films
    with pytest.raises(ModelError, match=r"my-model must be an image model, but its Films makes video"):
        backbone_of(pipeline, id="my-model")


def test_a_pipeline_without_a_denoiser_is_refused() -> None:
    pipeline = build("SD 1.5")
    pipeline.unet = None
    with pytest.raises(
        ModelError, match=r"must have a denoiser \(unet or transformer\), but has only: text_encoder, vae"
    ):
        backbone_of(pipeline, id="my-model")


def test_a_pipeline_that_fails_is_named() -> None:
    pipeline = build("SD 1.5")
    pipeline.tokenizer = None
    with pytest.raises(ModelError, match=r"my-model must run with a prompt .* StableDiffusionPipeline fails"):
        backbone_of(pipeline, id="my-model")
