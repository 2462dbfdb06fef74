"""Loading: what is accepted, and a word for everything that is not."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import DiffusionPipeline
from support import damage, tiny
from support.tiny_pipelines import build

from diffsift.backbones import ModelSpecification, load, load_structure, resolve_dtype
from diffsift.errors import DiffsiftError, ModelError


@pytest.fixture
def folder(tiny_pipeline: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may damage."""
    return Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))


def test_a_folder_loads_as_a_backbone(tiny_pipeline: Path) -> None:
    backbone = load(ModelSpecification(id=str(tiny_pipeline), device="cpu"), name="other")
    assert (backbone.name, backbone.image_size, backbone.train_timesteps) == ("other", (16, 16), 1000)
    assert not backbone.denoiser.training
    assert not any(parameter.requires_grad for parameter in backbone.denoiser.parameters())


def test_configurations_alone_give_the_structure(tiny_pipeline: Path, tmp_path: Path) -> None:
    (tmp_path / "unet").mkdir()
    for name in ("model_index.json", "unet/config.json"):
        shutil.copy(tiny_pipeline / name, tmp_path / name)
    denoiser = load_structure(str(tmp_path))
    assert {parameter.device.type for parameter in denoiser.parameters()} == {"meta"}


def edit_index(**changes: object) -> Callable[[Path], object]:
    def edit(folder: Path) -> None:
        index = json.loads((folder / "model_index.json").read_text())
        (folder / "model_index.json").write_text(json.dumps({**index, **changes}))

    return edit


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: folder.rename(folder.with_name("moved")), "there is no folder"),
    "no pipeline": (lambda folder: (folder / "model_index.json").unlink(), "pipeline folder with a model_index.json"),
    "broken index": (lambda folder: (folder / "model_index.json").write_text("{"), "model_index.json must be JSON"),
    "index is a list": (lambda folder: (folder / "model_index.json").write_text("[]"), "model_index.json must be"),
    "no weights": (
        lambda folder: next((folder / "unet").glob("*.safetensors")).unlink(),
        "cannot be loaded|safetensors",
    ),
    "damaged weights": (
        lambda folder: next((folder / "unet").glob("*.safetensors")).write_bytes(b"no tensors"),
        "cannot be loaded|safetensors",
    ),
    "unknown pipeline class": (edit_index(_class_name="MyPipeline"), "MyPipeline of .* must be part of diffusers"),
    "half an index": (lambda folder: damage.cut(folder / "model_index.json"), "model_index.json must be JSON"),
    "no pipeline class": (edit_index(_class_name=None), "must name the pipeline's class in _class_name"),
    "a pipeline class that is a number": (edit_index(_class_name=3), "must name the pipeline's class in _class_name"),
    "a part that is null": (edit_index(unet=None), r"unet in .*must be \[library, class\]"),
    "a part that is half there": (edit_index(vae=["diffusers"]), r"vae in .*must be \[library, class\]"),
    "no such part class": (edit_index(unet=["diffusers", "NoSuchModel"]), "cannot be loaded"),
    "a configuration that is a list": (
        lambda folder: (folder / "unet" / "config.json").write_text("[]"),
        "must be a JSON mapping",
    ),
    "no configuration": (lambda folder: (folder / "text_encoder" / "config.json").unlink(), "must hold config.json"),
    "no scheduler": (lambda folder: shutil.rmtree(folder / "scheduler"), "has no folder scheduler"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_wrong_with_a_folder_is_said_and_the_folder_named(folder: Path, damage: str) -> None:
    make, message = DAMAGES[damage]
    make(folder)
    with pytest.raises(DiffsiftError, match=message) as caught:
        load(ModelSpecification(id=str(folder), device="cpu"))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


STRUCTURE_DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no denoiser": (
        edit_index(unet=[None, None]),
        r"must have a denoiser \(unet or transformer\), but has only: .*vae",
    ),
    "unknown class": (
        edit_index(unet=["diffusers", "UNet2DConditionModle"]),
        "did you mean 'UNet2DConditionModel'",
    ),
    "no configuration": (lambda folder: (folder / "unet" / "config.json").unlink(), r"must hold unet/config\.json"),
}


@pytest.mark.parametrize("damage", STRUCTURE_DAMAGES)
def test_what_is_wrong_with_configurations_is_said(folder: Path, damage: str) -> None:
    make, message = STRUCTURE_DAMAGES[damage]
    make(folder)
    with pytest.raises(ModelError, match=message) as caught:
        load_structure(str(folder))
    assert str(folder) in str(caught.value)


def test_pickled_weights_are_loaded_only_when_trusted(tmp_path: Path) -> None:
    tiny.pipeline().save_pretrained(tmp_path, safe_serialization=False)
    with pytest.raises(ModelError, match=r"must be safetensors files.*allow_pickle: true"):
        load(ModelSpecification(id=str(tmp_path), device="cpu"))
    load(ModelSpecification(id=str(tmp_path), device="cpu", allow_pickle=True))


@pytest.mark.parametrize("opened", [lambda name: load(ModelSpecification(id=name, device="cpu")), load_structure])
def test_a_hub_id_without_the_hub_is_one_clear_sentence(opened: Callable[[str], object]) -> None:
    with pytest.raises(ModelError) as caught:
        opened("nobody/no-such-pipeline")
    assert "nobody/no-such-pipeline" in str(caught.value)
    assert "the hub cannot be reached" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("device", ["cuda:99", "xpu"])
def test_a_device_that_does_not_exist_is_refused(tiny_pipeline: Path, device: str) -> None:
    with pytest.raises(ModelError, match="must be a device this machine has"):
        load(ModelSpecification(id=str(tiny_pipeline), device=device))


def test_an_image_size_that_does_not_fit_is_refused(tiny_pipeline: Path) -> None:
    with pytest.raises(ModelError, match=r"must be multiples of 8 px .* but got 18 x 16"):
        load(ModelSpecification(id=str(tiny_pipeline), device="cpu", image_size=(18, 16)))


def test_a_video_pipeline_is_refused_before_its_weights_are_read(folder: Path) -> None:
    edit_index(_class_name="CogVideoXPipeline")(folder)
    for file in folder.rglob("*.safetensors"):
        damage.cut(file)
    with pytest.raises(ModelError, match="must be an image model, but its CogVideoXPipeline makes video"):
        load(ModelSpecification(id=str(folder), device="cpu"))


def published_as(folder: Path, dtype: torch.dtype) -> ModelSpecification:
    pipeline = DiffusionPipeline.from_pretrained(folder, torch_dtype=dtype)
    shutil.rmtree(folder)
    pipeline.save_pretrained(folder)
    return ModelSpecification(id=str(folder), device="cpu")


@pytest.mark.parametrize(
    ("published", "loaded"),
    [
        (torch.bfloat16, torch.bfloat16),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
    ],
)
def test_auto_takes_bfloat16_where_the_model_was_published_in_it(
    folder: Path, published: torch.dtype, loaded: torch.dtype
) -> None:
    backbone = load(published_as(folder, published))
    assert next(backbone.denoiser.parameters()).dtype == loaded


def test_the_type_of_a_name() -> None:
    gpu, cpu = torch.device("cuda"), torch.device("cpu")
    assert resolve_dtype("auto", gpu) == resolve_dtype("auto", gpu, torch.float32) == torch.float16
    assert resolve_dtype("auto", cpu, torch.float16) == torch.float32
    assert resolve_dtype("float16", cpu, torch.bfloat16) == torch.float16


def overflowing(folder: Path) -> ModelSpecification:
    """A pipeline whose activations exceed what float16 can hold."""
    pipeline = DiffusionPipeline.from_pretrained(folder)
    pipeline.unet.requires_grad_(False).conv_in.weight.mul_(1e6)
    shutil.rmtree(folder)
    pipeline.save_pretrained(folder)
    return ModelSpecification(id=str(folder), device="cpu")


def test_auto_falls_back_where_float16_overflows(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model = overflowing(folder)
    # As on a GPU, where the published type leads to float16.
    monkeypatch.setattr(
        "diffsift.backbones._loading.resolve_dtype",
        lambda dtype, *_: torch.float16 if dtype == "auto" else getattr(torch, dtype),
    )
    backbone = load(model)
    assert next(backbone.denoiser.parameters()).dtype == torch.bfloat16
    assert "are not finite in float16: model.dtype: auto takes bfloat16 instead" in caplog.text
    assert "about ten times slower" in caplog.text
    asked = load(model.model_copy(update={"dtype": "float16"}))
    assert next(asked.denoiser.parameters()).dtype == torch.float16


def test_images_are_encoded_in_tiles_where_that_is_asked_for(
    tiny_pipeline: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffsift.backbones._latents._TILE", 16)
    model = ModelSpecification(id=str(tiny_pipeline), device="cpu", image_size=(32, 32))
    whole, tiled = load(model), load(model.model_copy(update={"vae_tiling": True}))
    images = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        one, other = (backbone.encode(images) for backbone in (whole, tiled))
    assert one.shape == other.shape
    assert not torch.allclose(one, other, atol=1e-3)
    assert whole.identity() != tiled.identity()


def test_pixels_cannot_be_tiled(tmp_path: Path) -> None:
    build("DDPM").save_pretrained(tmp_path)
    with pytest.raises(ModelError, match=r"model\.vae_tiling must be false for .*: it has no autoencoder"):
        load(ModelSpecification(id=str(tmp_path), device="cpu", vae_tiling=True))
