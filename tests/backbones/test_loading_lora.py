"""LoRA weights, weights kept in the CPU's memory, and networks prepared for training or compiled in part."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from support import damage
from support.tiny_pipelines import backbone_of, build
from torch import Tensor

from diffsift.backbones import Capture, ModelSpecification, PipelineBackbone, load
from diffsift.errors import CaptureError, ModelError


@pytest.fixture(scope="module")
def lora(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A tiny pipeline's folder, and LoRA weights for it."""
    folder = tmp_path_factory.mktemp("lora")
    pipeline: Any = build("SD 1.5")
    pipeline.save_pretrained(folder / "model")
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k"], init_lora_weights=False))
    pipeline.save_lora_weights(folder / "lora", unet_lora_layers=get_peft_model_state_dict(pipeline.unet))
    return folder / "model", folder / "lora"


def loaded(folder: Path, **options: Any) -> PipelineBackbone:
    return load(ModelSpecification(id=str(folder), image_size=(16, 16), device="cpu", **options))


def features(backbone: PipelineBackbone) -> Tensor:
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    entry = [entry for entry in backbone.activations() if entry.kind == "vit-out"][-1]
    ((_, maps),) = backbone.capture(images, {100: [entry]}, seed=0)
    return maps[entry.name]


def test_lora_weights_are_added(lora: tuple[Path, Path]) -> None:
    model, weights = lora
    plain, added = loaded(model), loaded(model, lora=str(weights))
    assert [entry.name for entry in added.activations()] == [entry.name for entry in plain.activations()]
    assert {type(module) for module in added.denoiser.modules()} == {type(m) for m in plain.denoiser.modules()}
    assert added.identity() != plain.identity()
    assert not torch.allclose(features(added), features(plain), atol=1e-3)
    by_file = loaded(model, lora=str(next(weights.glob("*.safetensors"))))
    assert torch.allclose(features(by_file), features(added), atol=1e-6)
    unscaled = loaded(model, lora=str(weights), lora_scale=0.0)
    assert torch.allclose(features(unscaled), features(plain), atol=1e-5)


def test_lora_mistakes_are_told(lora: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ModelError, match=r"model\.lora .*nowhere cannot be added"):
        loaded(lora[0], lora=str(tmp_path / "nowhere"))
    (tmp_path / "weights.bin").write_bytes(b"pickled")
    with pytest.raises(ModelError, match=r"must be a \.safetensors file, because pickled ones can run code"):
        loaded(lora[0], lora=str(tmp_path / "weights.bin"))
    stranger = {"transformer.blocks.0.attn.to_q.lora_A.weight": torch.zeros(2, 4)}
    stranger |= {"transformer.blocks.0.attn.to_q.lora_B.weight": torch.zeros(4, 2)}
    save_file(stranger, tmp_path / "stranger.safetensors")
    with pytest.raises(ModelError, match="none of its weights is of this model"):
        loaded(lora[0], lora=str(tmp_path / "stranger.safetensors"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"pip install 'diffsift\[lora\]'"):
        loaded(lora[0], lora=str(lora[1]))


def test_offloaded_weights_give_the_same_features() -> None:
    plain = backbone_of(build("SD 1.5"), image_size=(16, 16))
    offloaded = backbone_of(build("SD 1.5"), image_size=(16, 16), offload=torch.device("cpu"))
    assert next(offloaded.denoiser.parameters()).device.type == "meta"
    assert torch.equal(features(offloaded), features(plain))
    assert offloaded.identity() == plain.identity()


def test_offloading_on_a_cpu_is_refused(lora: tuple[Path, Path]) -> None:
    with pytest.raises(ModelError, match=r"model\.offload must be false on a CPU"):
        loaded(lora[0], offload=True)


def test_gradient_checkpointing_changes_nothing() -> None:
    plain = backbone_of(build("SD 1.5"), image_size=(16, 16))
    expected = features(plain)
    plain.denoiser.enable_gradient_checkpointing()  # type: ignore[operator]
    plain.denoiser.train()
    assert torch.equal(features(plain), expected)


def test_a_network_compiled_in_part_is_refused() -> None:
    backbone = backbone_of(build("SD 1.5"), image_size=(16, 16))
    entry = backbone.activations()[-1]
    next(iter(backbone.denoiser.children())).compile()
    with pytest.raises(CaptureError, match="neither the denoiser nor a part of it may be compiled"):
        Capture(backbone.denoiser, [entry])


@pytest.mark.parametrize("change", [damage.first_gone, lambda tensors: {**tensors, **elsewhere(tensors)}])
def test_lora_weights_must_fit_wholly(lora: tuple[Path, Path], tmp_path: Path, change: Any) -> None:
    weights = shutil.copytree(lora[1], tmp_path / "lora") / "pytorch_lora_weights.safetensors"
    damage.rewrite(weights, change)
    with pytest.raises(ModelError, match=r"holds \d+ tensors, but \d+ are needed: it is of another model or not whole"):
        loaded(lora[0], lora=str(weights))
    with pytest.raises(ModelError, match=r"holds \d+ tensors, but \d+ are needed"):
        loaded(lora[0], lora=str(weights.parent))


def elsewhere(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """LoRA weights of a module that the network does not have."""
    return {name.replace("unet.", "unet.surplus.", 1): tensors[name].clone() for name in sorted(tensors)[:2]}


def test_a_damaged_lora_file_is_named(lora: tuple[Path, Path], tmp_path: Path) -> None:
    weights = shutil.copytree(lora[1], tmp_path / "lora") / "pytorch_lora_weights.safetensors"
    damage.cut(weights)
    with pytest.raises(ModelError, match=r"pytorch_lora_weights\.safetensors is damaged or not wholly downloaded"):
        loaded(lora[0], lora=str(weights))
