"""A selection file may come from a stranger: it decides nothing about trust, and its statistics are checked."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save
from support.commands import refused
from torch import Tensor

from diffsift import FeatureExtractor
from diffsift.backbones import ModelSpecification, PipelineBackbone
from diffsift.errors import SelectionError
from diffsift.extraction import Standardiser, read_selection, save_selection
from diffsift.spaces import Candidate, Selection

MEMBER = Candidate("main", "up-level1-repeat0-vit-block0-self-k", 300)
HUB_ID = "somebody/small-pipeline"


@pytest.fixture
def saved(tiny_pipeline: Path, tiny_backbone: PipelineBackbone, tmp_path: Path) -> Path:
    save_selection(
        tmp_path / "selection.json",
        Selection.of([MEMBER]),
        {"main": ModelSpecification(id=str(tiny_pipeline))},
        {MEMBER: Standardiser.fit(torch.randn(200, 8, generator=torch.Generator().manual_seed(0)), max_channels=6)},
        identities={"main": tiny_backbone.identity()},
        about={"study": "tiny"},
    )
    return tmp_path / "selection.json"


def read(file: Path) -> dict[str, Any]:
    """The document, without the checksum that would tell of the changes."""
    document: dict[str, Any] = json.loads(file.read_text())
    document.pop("checksum", None)
    return document


def change(file: Path, **fields: Any) -> Path:
    """Change fields of the model in a selection file."""
    document = read(file)
    document["models"]["main"].update(fields)
    file.write_text(json.dumps(document))
    return file


def in_hub_cache(pipeline: Path, cache: Path) -> None:
    """Put a pipeline into a cache of the hub's client as a download would."""
    repository = cache / f"models--{HUB_ID.replace('/', '--')}"
    shutil.copytree(pipeline, repository / "snapshots" / "abc")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")


def test_what_a_file_names_on_the_hub_is_loaded_from_the_cache_alone_unless_permitted(
    saved: Path, tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    change(saved, id=HUB_ID)
    with pytest.raises(SelectionError, match=rf"names '{HUB_ID}' on the hub, .*--allow-download"):
        FeatureExtractor.from_selection(saved, device="cpu")
    file = read_selection(saved)
    assert file.permitted_models(allow_download=True)["main"].id == HUB_ID
    assert file.permitted_models(model=str(tiny_pipeline))["main"].id == str(tiny_pipeline)
    assert file.permitted_models(model=tiny_pipeline)["main"].id == str(tiny_pipeline)
    in_hub_cache(tiny_pipeline, tmp_path / "hub")
    assert FeatureExtractor.from_selection(saved, device="cpu").channels == 6


def test_lora_weights_on_the_hub_are_the_callers_to_permit(saved: Path) -> None:
    change(saved, lora="somebody/some-lora")
    with pytest.raises(SelectionError, match="names 'somebody/some-lora' on the hub"):
        FeatureExtractor.from_selection(saved, device="cpu")
    assert read_selection(saved).permitted_models(allow_download=True)["main"].lora == "somebody/some-lora"


def test_pickled_weights_are_the_callers_to_permit(saved: Path, tmp_path: Path) -> None:
    change(saved, allow_pickle=True)
    with pytest.raises(SelectionError, match=r"can run code .*--allow-pickle"):
        FeatureExtractor.from_selection(saved, device="cpu")
    assert read_selection(saved).permitted_models(allow_pickle=True)["main"].allow_pickle
    assert FeatureExtractor.from_selection(saved, device="cpu", allow_pickle=True).channels == 6
    image = tmp_path / "image.png"
    from PIL import Image

    Image.new("RGB", (16, 16)).save(image)
    said = refused("extract", saved, image, "--out", tmp_path / "features", "--device", "cpu")
    assert "only if you trust their author" in said


def forge(file: Path, **tensors: Tensor) -> Path:
    """Replace statistics, and their digest in the file."""
    blob = save({**load_file(file.with_suffix(".safetensors")), **{f"0.{k}": v for k, v in tensors.items()}})
    file.with_suffix(".safetensors").write_bytes(blob)
    document = read(file)
    document["statistics"]["sha256"] = hashlib.sha256(blob).hexdigest()
    file.write_text(json.dumps(document))
    return file


@pytest.mark.parametrize(
    "tensors",
    [
        {"mean": torch.zeros(1)},
        {"mean": torch.zeros(8, 1)},
        {"scale": torch.zeros(8)},
        {"scale": -torch.ones(8)},
        {"mean": torch.full((8,), torch.nan)},
        {"scale": torch.full((8,), torch.inf)},
        {"mean": torch.zeros(8, dtype=torch.float64)},
        {"projection": torch.zeros(8, 9)},
        {"projection": torch.zeros(7, 6)},
        {"projection": torch.zeros(8)},
        {"projection": torch.zeros(8, 0)},
        {"mean": torch.full((8,), 1e38)},
        {"scale": torch.full((8,), 1e38)},
        {"projection": torch.full((8, 6), 1e38)},
        {"projection": 2 * torch.eye(8)[:, :6].contiguous()},
    ],
    ids=str,
)
def test_statistics_of_another_shape_or_of_no_numbers_are_refused(saved: Path, tensors: dict[str, Tensor]) -> None:
    with pytest.raises(SelectionError, match=r"must hold the statistics of .*, but does not"):
        read_selection(forge(saved, **tensors))


def test_a_selection_that_asks_for_prompts_says_so(saved: Path) -> None:
    document = read(saved)
    document["own_prompts"] = True
    saved.write_text(json.dumps(document))
    extractor = FeatureExtractor.from_selection(saved, device="cpu")
    with pytest.raises(SelectionError, match="needs one prompt for each of 1 images, as in its search, but got none"):
        extractor(torch.zeros(1, 3, 16, 16))


def test_statistics_of_another_activation_are_refused_when_the_model_is_known(saved: Path) -> None:
    few = {"mean": torch.zeros(7), "scale": torch.ones(7), "projection": torch.eye(7)[:, :6].contiguous()}
    with pytest.raises(SelectionError, match="must be of its 8 channels, but are of 7"):
        FeatureExtractor.from_selection(forge(saved, **few), device="cpu")


def put(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda document: document.__setitem__(key, value)


@pytest.mark.parametrize(
    "damage",
    [
        *(put(key, value) for key in ("backbones", "statistics", "models", "members") for value in (None, "a", [], 3)),
        put("statistics", {}),
        put("statistics", {"file": "a\0b", "sha256": "c"}),
        put("statistics", {"file": "..", "sha256": "c"}),
        put("statistics", {"file": "x" * 5000, "sha256": "c"}),
        put("backbones", {"main": "text"}),
        put("about", "text"),
        put("members", [{"backbone": "main", "activation": "a", "timestep": float("-inf"), "weight": 1.0}]),
        put("members", [{"backbone": "main", "activation": "a", "timestep": 5, "weight": 10**400}]),
        put("members", [{"backbone": "other", "activation": "a", "timestep": 5, "weight": 1.0}]),
        put("members", [3] * 10_000),
    ],
)
def test_damaged_files_end_in_short_messages(saved: Path, damage: Callable[[dict[str, Any]], None]) -> None:
    document = read(saved)
    damage(document)
    saved.write_text(json.dumps(document))
    with pytest.raises(SelectionError) as refusal:
        read_selection(saved)
    assert len(str(refusal.value)) < 1000


def test_nesting_beyond_measure_is_no_selection(saved: Path) -> None:
    saved.write_text("[" * 100_000)
    with pytest.raises(SelectionError, match="is not JSON"):
        read_selection(saved)
