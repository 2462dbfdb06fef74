"""A model that changes between the runs of a study is noticed; studies of earlier versions go on."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path

import pytest
from support import damage, tiny
from support.commands import done, refused, write

from diffsift import FeatureExtractor
from diffsift.backbones import earlier_identity, load
from diffsift.backbones.specification import ModelSpecification
from diffsift.common.files import digest
from diffsift.errors import SelectionError


@pytest.fixture(scope="module")
def original(tiny_pipeline: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished study, its selection and its model."""
    folder = tmp_path_factory.mktemp("original")
    model = shutil.copytree(tiny_pipeline, folder / "model")
    specification = tiny.specification(model, tiny_data, model={"prompt": "bad cafe"}, study={"trials": 3})
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        done("search", write(folder / "search.yaml", specification), "--workspace", "workspace")
    return folder


@pytest.fixture
def searched(original: Path, tiny_pipeline: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that folder, with the model as it was searched on, which a test may change."""
    shutil.rmtree(original / "model")
    shutil.copytree(tiny_pipeline, original / "model")
    shutil.copytree(original, tmp_path, dirs_exist_ok=True, ignore=shutil.ignore_patterns("model"))
    (tmp_path / "model").symlink_to(original / "model")  # the study knows it by its path
    monkeypatch.chdir(tmp_path)
    return tmp_path


def other_words(model: Path) -> None:
    file = model / "tokenizer" / "tokenizer.json"
    content = json.loads(file.read_text())
    words = content["model"]["vocab"]
    words["c"], words["a"] = words["a"], words["c"]
    file.write_text(json.dumps(content))


def test_resume_and_extractor_notice_another_tokenizer(searched: Path) -> None:
    FeatureExtractor.from_selection(searched / "selection-tiny.json", device="cpu")
    other_words(searched / "model")
    assert "was made with content.model=" in refused("resume", "tiny", "--trials", 5)
    with pytest.raises(SelectionError, match="tokens must be the same, but differ"):
        FeatureExtractor.from_selection(searched / "selection-tiny.json", device="cpu")


def test_another_scale_of_the_latents_is_noticed(searched: Path) -> None:
    damage.edit(searched / "model" / "vae" / "config.json", scaling_factor=0.9)
    assert "was made with content.model=" in refused("resume", "tiny", "--trials", 5)
    with pytest.raises(SelectionError, match="configuration must be the same, but differ"):
        FeatureExtractor.from_selection(searched / "selection-tiny.json", device="cpu")


def other_weights(model: Path) -> None:
    file = model / "unet" / damage.NETWORKS["unet"]
    damage.rewrite(file, lambda tensors: {**tensors, "conv_in.bias": tensors["conv_in.bias"] + 0.1})


def test_other_weights_under_the_same_path_are_refused(searched: Path) -> None:
    other_weights(searched / "model")
    assert "was made with content.model=" in refused("search", searched / "search.yaml")


def as_earlier_versions_wrote(searched: Path) -> None:
    """Take out of study and selection what earlier versions did not know of a model."""
    model = ModelSpecification(id=str(searched / "model"), device="cpu", prompt="bad cafe")
    identity = earlier_identity(load(model).identity())
    with sqlite3.connect(next((searched / "workspace").rglob("studies.db"))) as connection:
        (text,) = connection.execute("SELECT identity FROM diffsift_study").fetchone()
        stored = json.loads(text)
        stored["content"]["model"] = digest({"main": identity})
        connection.execute("UPDATE diffsift_study SET identity = ?, checksum = NULL", [json.dumps(stored)])
    file = searched / "selection-tiny.json"
    document = json.loads(file.read_text())
    del document["checksum"]
    document["backbones"] = {"main": identity}
    file.write_text(json.dumps(document))


def test_a_study_and_a_selection_of_an_earlier_version_go_on(searched: Path) -> None:
    as_earlier_versions_wrote(searched)
    FeatureExtractor.from_selection(searched / "selection-tiny.json", device="cpu")
    done("resume", "tiny", "--trials", 5)


def test_a_study_of_an_earlier_version_notices_other_weights(searched: Path) -> None:
    as_earlier_versions_wrote(searched)
    other_weights(searched / "model")
    assert "was made with content.model=" in refused("resume", "tiny", "--trials", 5)
