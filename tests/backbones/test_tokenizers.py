"""Tokenizers: whole, fit for their text encoder, and part of what a backbone is known by."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support import damage
from support.tiny_pipelines import FAMILIES, backbone_of, build

from diffsift.backbones import ModelSpecification, PipelineBackbone, load
from diffsift.errors import ModelError


@pytest.fixture
def folder(tiny_pipeline: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may damage."""
    return Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))


def loaded(folder: Path, prompt: str = "bad cafe") -> PipelineBackbone:
    backbone = load(ModelSpecification(id=str(folder), device="cpu", prompt=prompt))
    assert isinstance(backbone, PipelineBackbone)
    return backbone


def change_words(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    file = folder / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    change(content["model"])
    file.write_text(json.dumps(content))


def swap(model: dict[str, Any]) -> None:
    words = model["vocab"]
    words["c"], words["d"] = words["d"], words["c"]


def forget(model: dict[str, Any]) -> None:
    model["vocab"] = {"a": 0, "b": 1}


DAMAGES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no vocabulary": (
        lambda folder: (folder / "tokenizer.json").unlink(),
        r"tokenizer of .* must hold its vocabulary \(tokenizer\.json or vocab\.json and merges\.txt\)",
    ),
    "no folder": (shutil.rmtree, "must hold tokenizer, as its model_index.json says, but has no folder"),
    "cut off": (lambda folder: damage.cut(folder / "tokenizer.json"), r"tokenizer\.json must be JSON, but cannot be"),
    "a pointer": (
        lambda folder: (folder / "tokenizer.json").write_text(damage.POINTER),
        r"tokenizer\.json is a git-lfs pointer",
    ),
    "few words": (
        lambda folder: change_words(folder.parent, forget),
        r"tokenizer of .* must know about as many tokens as text_encoder \(18\), but knows \d",
    ),
    "no maximal length": (
        lambda folder: damage.edit(folder / "tokenizer_config.json", without=("model_max_length",)),
        r"at most 8 tokens, which text_encoder takes, but has none: set model_max_length: 8",
    ),
    "too large a maximal length": (
        lambda folder: damage.edit(folder / "tokenizer_config.json", model_max_length=100_000_000),
        r"at most 8 tokens, which text_encoder takes, but says 100000000",
    ),
    "no settings": (
        lambda folder: (folder / "tokenizer_config.json").unlink(),
        r"at most 8 tokens, which text_encoder takes, but has none",
    ),
}


@pytest.mark.parametrize("fault", DAMAGES)
def test_a_tokenizer_that_is_not_whole_is_refused(folder: Path, fault: str) -> None:
    harm, message = DAMAGES[fault]
    harm(folder / "tokenizer")
    with pytest.raises(ModelError, match=message) as caught:
        loaded(folder)
    assert str(folder) in str(caught.value)


CHANGES: dict[str, Callable[[Path], Any]] = {
    "other words": lambda folder: change_words(folder, swap),
    "a shorter text": lambda folder: damage.edit(folder / "tokenizer" / "tokenizer_config.json", model_max_length=5),
    "other padding": lambda folder: damage.edit(folder / "tokenizer" / "tokenizer_config.json", pad_token="a"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_tokenizer_that_gives_other_tokens_makes_another_backbone(
    folder: Path, tiny_pipeline: Path, change: str
) -> None:
    CHANGES[change](folder)
    one, other = loaded(tiny_pipeline), loaded(folder)
    given = [backbone.condition(1)["encoder_hidden_states"] for backbone in (one, other)]
    assert given[0].shape != given[1].shape or not torch.equal(*given)
    assert {key for key in one.identity() if one.identity()[key] != other.identity()[key]} == {"tokens"}


def test_tokens_are_those_of_every_prompt_that_images_may_have(folder: Path, tiny_pipeline: Path) -> None:
    change_words(folder, swap)  # "abba" has neither of the two
    one, other = loaded(tiny_pipeline, "abba"), loaded(folder, "abba")
    assert torch.equal(one.condition(1)["encoder_hidden_states"], other.condition(1)["encoder_hidden_states"])
    assert one.identity()["tokens"] != other.identity()["tokens"]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tokenizer_of_a_pipeline_counts(family: str) -> None:
    pipeline = build(family)
    size = None if family in ("DDPM", "DiT") else (16, 16)
    names = {name for name in pipeline.components if name.startswith("tokenizer")}
    assert set(backbone_of(pipeline, image_size=size).identity()["tokens"]) == names


SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("vae", {"scaling_factor": 0.5}),
    ("vae", {"shift_factor": 0.1}),
    ("vae", {"latents_mean": [0.1] * 4, "latents_std": [0.9] * 4}),
    ("unet", {"norm_eps": 0.1}),
    ("unet", {"attention_head_dim": 4}),
    ("text_encoder", {"hidden_act": "relu"}),
    ("text_encoder", {"num_attention_heads": 4}),
]


@pytest.mark.parametrize(("part", "changes"), SETTINGS, ids=str)
def test_a_setting_that_changes_features_makes_another_backbone(
    folder: Path, tiny_pipeline: Path, part: str, changes: dict[str, Any]
) -> None:
    damage.edit(folder / part / "config.json", **changes)
    one, other = loaded(tiny_pipeline), loaded(folder)
    assert {key for key in one.identity() if one.identity()[key] != other.identity()[key]} == {"configuration"}
    images = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = [entry for entry in one.activations() if entry.name == "up-level1-repeat1-res-out"]
    found = [dict(backbone.capture(images, {50: wanted}, seed=0))[50][wanted[0].name] for backbone in (one, other)]
    assert not torch.allclose(found[0], found[1])


@pytest.mark.parametrize(("part", "name"), [("vae", "scaling_factor"), ("text_encoder", "transformers_version")])
def test_a_setting_that_is_written_out_or_says_nothing_leaves_the_backbone_the_same(
    folder: Path, tiny_pipeline: Path, part: str, name: str
) -> None:
    damage.edit(folder / part / "config.json", without=(name,))
    assert loaded(folder).identity() == loaded(tiny_pipeline).identity()
