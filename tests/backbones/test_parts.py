"""A pipeline's parts: weights that are exactly their network's, whole files, and a word that names part and file."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import damage, tiny
from support.damage import NETWORKS
from support.tiny_pipelines import backbone_of

from diffsift.backbones import ModelSpecification, load, load_structure
from diffsift.errors import ModelError
from diffsift.runs.inputs import check_inputs
from diffsift.specification import Specification


@pytest.fixture
def folder(tiny_pipeline: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may damage."""
    return Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))


def refusal(folder: Path, **fields: Any) -> str:
    """The error that loading ends with, which is one short line."""
    with pytest.raises(ModelError) as caught:
        load(ModelSpecification(id=str(folder), device="cpu", **fields))
    message = str(caught.value)
    assert len(message) < 600
    assert "\n" not in message
    return message


MISFITS: dict[str, tuple[Callable[..., Any], str]] = {
    "one tensor is missing": (damage.first_gone, "lacks "),
    "all tensors are prefixed": (damage.prefixed, r"lacks \d+ tensors .* and holds \d+ tensors \(module\."),
    "one tensor is not the network's": (damage.one_more, "holds surplus.weight, which the network does not have"),
    "no tensors at all": (lambda tensors: {}, r"lacks \d+ tensors"),
    "a tensor has another shape": (damage.other_shape, "shape"),
}


@pytest.mark.parametrize("misfit", MISFITS)
@pytest.mark.parametrize("part", NETWORKS)
def test_weights_are_exactly_those_of_their_network(folder: Path, part: str, misfit: str) -> None:
    change, message = MISFITS[misfit]
    damage.rewrite(folder / part / NETWORKS[part], change)
    said = refusal(folder)
    assert re.search(message, said), said
    assert part in said
    assert str(folder) in said
    assert "allow_pickle" not in said
    assert torch.get_default_dtype() == torch.float32


def test_a_missing_tensor_is_named(folder: Path) -> None:
    damage.rewrite(folder / "unet" / NETWORKS["unet"], damage.first_gone)
    assert "diffusion_pytorch_model.safetensors lacks conv_in.bias" in refusal(folder)


@pytest.mark.parametrize(
    ("field", "value"),
    [("num_hidden_layers", 0), ("num_hidden_layers", 2), ("hidden_act", "no such"), ("vocab_size", 19)],
)
def test_a_configuration_of_another_network_is_refused(folder: Path, field: str, value: Any) -> None:
    damage.edit(folder / "text_encoder" / "config.json", **{field: value})
    assert "text_encoder" in refusal(folder)


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "cut off": (damage.cut, "damaged or not wholly downloaded"),
    "empty": (lambda file: file.write_bytes(b""), "is empty: the download was interrupted"),
    "text": (lambda file: file.write_text("<html>not found</html>"), "damaged or not wholly downloaded"),
    "a huge header": (lambda file: file.write_bytes(b"\xff" * 7 + b"\x00" + b"{}"), "damaged or not wholly downloaded"),
    "a pointer of git-lfs": (lambda file: file.write_text(damage.POINTER), "is a git-lfs pointer.*git lfs pull"),
    "gone": (lambda file: file.unlink(), "must hold the weights .*safetensors, but does not: download"),
    "only as fp16": (
        lambda file: file.rename(file.with_name(f"{file.stem}.fp16.safetensors")),
        "there are only fp16 files: set model.variant: fp16",
    ),
    "under another name": (
        lambda file: file.rename(file.with_name("other.safetensors")),
        r"there is other\.safetensors",
    ),
}


@pytest.mark.parametrize("fault", FILES)
@pytest.mark.parametrize("part", NETWORKS)
def test_a_weight_file_is_whole(folder: Path, part: str, fault: str) -> None:
    harm, message = FILES[fault]
    harm(folder / part / NETWORKS[part])
    said = refusal(folder)
    assert re.search(message, said), said
    assert part in said
    assert "allow_pickle" not in said


@pytest.mark.parametrize("part", NETWORKS)
def test_files_of_a_variant_load_when_it_is_named(folder: Path, tiny_pipeline: Path, part: str) -> None:
    file = folder / part / NETWORKS[part]
    file.rename(file.with_name(f"{file.stem}.fp16.safetensors"))
    found = load(ModelSpecification(id=str(folder), device="cpu", variant="fp16"))
    assert found.identity() == load(ModelSpecification(id=str(tiny_pipeline), device="cpu")).identity()


@pytest.mark.parametrize("part", NETWORKS)
def test_shards_load_and_a_missing_one_is_named(folder: Path, tiny_pipeline: Path, part: str) -> None:
    shards = damage.shard(folder / part / NETWORKS[part])
    whole = load(ModelSpecification(id=str(tiny_pipeline), device="cpu"))
    assert load(ModelSpecification(id=str(folder), device="cpu")).identity() == whole.identity()
    shards[1].unlink()
    assert f"lacks {shards[1].name}: the download is not complete" in refusal(folder)


@pytest.mark.parametrize("part", NETWORKS)
def test_a_shard_that_lacks_a_tensor_of_the_index_is_refused(folder: Path, part: str) -> None:
    shards = damage.shard(folder / part / NETWORKS[part])
    damage.rewrite(shards[0], damage.first_gone)
    said = refusal(folder)
    assert part in said
    assert "lacks" in said


def test_an_index_of_shards_is_whole(folder: Path) -> None:
    damage.shard(folder / "unet" / NETWORKS["unet"])
    damage.cut(folder / "unet" / f"{NETWORKS['unet']}.index.json")
    assert "must list the shards of the weights, but is damaged" in refusal(folder)


def test_pickles_are_advised_only_where_there_are_some(folder: Path, tmp_path: Path) -> None:
    tiny.pipeline().save_pretrained(tmp_path / "pickled", safe_serialization=False)
    shutil.copy(tmp_path / "pickled/unet/diffusion_pytorch_model.bin", folder / "unet")
    (folder / "unet" / NETWORKS["unet"]).unlink()
    said = refusal(folder)
    assert "diffusion_pytorch_model.bin: set model.allow_pickle: true only if you trust their author" in said
    load(ModelSpecification(id=str(folder), device="cpu", allow_pickle=True))
    damage.cut(folder / "unet" / "diffusion_pytorch_model.bin")
    assert "unet" in refusal(folder, allow_pickle=True)


def test_a_network_of_a_kind_that_diffusers_loads_itself_has_all_its_weights() -> None:
    pipeline = tiny.pipeline()
    pipeline.unet.conv_in.to("meta")
    with pytest.raises(ModelError, match=r"weights of unet in tiny must all be loaded, but conv_in\.weight is empty"):
        backbone_of(pipeline)


ABSURD: list[tuple[str, dict[str, Any]]] = [
    ("unet/config.json", {"layers_per_block": 100_000}),
    ("unet/config.json", {"transformer_layers_per_block": 1_000_000}),
    ("unet/config.json", {"block_out_channels": [1_000_000, 2_000_000]}),
    ("unet/config.json", {"attention_head_dim": 0}),
    ("unet/config.json", {"num_class_embeds": 10**12}),
    ("vae/config.json", {"layers_per_block": 1_000_000}),
    ("vae/config.json", {"latent_channels": 10**9}),
    ("text_encoder/config.json", {"num_hidden_layers": 1_000_000}),
    ("text_encoder/config.json", {"vocab_size": 10**10}),
    ("text_encoder/config.json", {"num_attention_heads": 0}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 1_000_000_000}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": 0}),
    ("scheduler/scheduler_config.json", {"num_train_timesteps": "many"}),
    ("scheduler/scheduler_config.json", {"trained_betas": "text"}),
    ("tokenizer/tokenizer_config.json", {"model_max_length": 10**9}),
    ("vae/config.json", {"scaling_factor": "large"}),
    ("vae/config.json", {"scaling_factor": float("nan")}),
    ("unet/config.json", {"sample_size": 10**8}),
    ("unet/config.json", {"sample_size": "large"}),
]


@pytest.mark.parametrize(("file", "changes"), ABSURD, ids=lambda value: str(value)[:60])
def test_no_configuration_hangs_or_fills_memory(folder: Path, file: str, changes: dict[str, Any]) -> None:
    damage.edit(folder / file, **changes)
    start = time.monotonic()
    said = refusal(folder)
    assert time.monotonic() - start < 10
    assert file.split("/", maxsplit=1)[0] in said or next(iter(changes)) in said


@pytest.mark.parametrize("changes", [{"layers_per_block": 100_000}, {"attention_head_dim": 0}, {"act_fn": "no such"}])
def test_a_structure_that_cannot_be_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    damage.edit(folder / "unet" / "config.json", **changes)
    with pytest.raises(ModelError, match=r"config\.json"):
        load_structure(str(folder))


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: shutil.rmtree(folder / "tokenizer"), "has no folder tokenizer"),
        (lambda folder: damage.cut(folder / "text_encoder" / "config.json"), r"config\.json must be JSON"),
        (
            lambda folder: damage.edit(folder / "scheduler" / "scheduler_config.json", num_train_timesteps=10**9),
            "must be at most 10000, but is 1000000000",
        ),
    ],
)
def test_what_configurations_show_is_refused_before_the_data_are_read(
    folder: Path, tmp_path: Path, harm: Callable[[Path], Any], message: str
) -> None:
    harm(folder)
    specification = tiny.specification(folder, tmp_path / "no such data")
    with pytest.raises(ModelError, match=message):
        check_inputs(Specification.parse(specification, source="test"))
