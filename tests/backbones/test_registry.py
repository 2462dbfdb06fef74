"""Kinds of backbones: what a registered kind is called with, what it may not be asked for, and a search over one."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from support import tiny
from support.examples import load_example

from diffsift import Specification, select
from diffsift.backbones import BACKBONES, ModelSpecification, load, owner_of, register_backbone
from diffsift.errors import ModelError, SpecificationError


@pytest.fixture(scope="module", autouse=True)
def example() -> ModuleType:
    return load_example("custom_backbone")


def values(data: Path, **changes: Any) -> dict[str, Any]:
    return tiny.specification(Path("mine"), data, **{"timesteps": [50], "limits": {"activations": 2}, **changes})


def test_a_registered_kind_is_made_from_the_models_part_of_the_specification() -> None:
    backbone = load(ModelSpecification(kind="noisy-conv", id="mine", options={"width": 5}), name="other")
    assert (backbone.name, backbone.image_size) == ("other", (32, 32))
    assert {entry.channels for entry in backbone.activations()} == {5}
    assert BACKBONES.names() == ["diffusers", "noisy-conv"]


def test_a_taken_name_is_refused(example: ModuleType) -> None:
    register_backbone("noisy-conv", example.NoisyConv)  # the same again does no harm
    with pytest.raises(SpecificationError, match=r"must have a new name, but 'diffusers' is taken"):
        register_backbone("diffusers", example.NoisyConv)


def test_what_is_made_must_be_a_backbone_of_that_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(BACKBONES, "_registered", {"broken": lambda model, name: object()})
    with pytest.raises(ModelError, match=r"broken must make a Backbone named 'main', but made a object named 'None'"):
        load(ModelSpecification(kind="broken", id="mine"))


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"kind": "noisy-cnov"}, r"model\.kind must be one of diffusers, noisy-conv \(register_backbone"),
        ({"lora": "some/lora"}, r"lora must be left out with model\.kind noisy-conv, but got 'some/lora'"),
        ({"kind": "diffusers", "options": {"width": 3}}, r"options must be left out with model\.kind diffusers"),
    ],
)
def test_fields_of_another_kind_are_refused(model: dict[str, Any], message: str, tiny_data: Path) -> None:
    with pytest.raises(SpecificationError, match=message):
        Specification.parse(values(tiny_data, model={"kind": "noisy-conv", **model}))


def test_only_pipelines_have_variants_and_common_networks(tiny_data: Path) -> None:
    with pytest.raises(SpecificationError, match=r"joint must be left out for model\.kind noisy-conv"):
        Specification.parse(values(tiny_data, model={"kind": "noisy-conv"}, joint={"noise_seeds": [2]}))
    model = ModelSpecification(kind="noisy-conv", id="mine")
    assert owner_of("b", {"a": model, "b": model}) == "b"


def test_studies_of_older_versions_have_the_same_identity(tiny_data: Path) -> None:
    identity = Specification.parse(values(tiny_data)).identity()
    assert not {"kind", "options"} & set(identity["model"])
    assert "further" not in identity["filters"]
    other = Specification.parse(values(tiny_data, model={"kind": "noisy-conv", "options": {"width": 4}})).identity()
    assert (other["model"]["kind"], other["model"]["options"]) == ("noisy-conv", {"width": 4})


def test_a_search_over_a_registered_kind_leaves_out_the_controls_it_does_not_have(
    tiny_data: Path, tmp_path: Path
) -> None:
    asked = values(tiny_data, model={"kind": "noisy-conv"}, filters={"rules": "none"}, study={"trials": 3})
    outcome = select(asked, out=tmp_path / "selection.json").outcome
    names = [row.name for row in outcome.table]
    assert "raw pixels" in names
    assert not {"VAE latents", "random weights"} & set(names)


def test_the_example_runs(example: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    example.main()
    assert "timestep 300: conv2 (2, 8, 8, 8)" in capsys.readouterr().out
