"""Whole searches from the command line on pipelines of every family, with nothing said of the family."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml
from support import tiny
from support.tiny_pipelines import FAMILIES, backbone_of, build
from typer.testing import CliRunner

import diffsift
from diffsift import FeatureExtractor, Specification
from diffsift.backbones import BackboneCache, PipelineBackbone
from diffsift.cli.app import app
from diffsift.common.workspace import Workspace
from diffsift.errors import SpecificationError
from diffsift.extraction import Standardiser, resample_map
from diffsift.spaces import Candidate, Selection
from diffsift.tracking import Ledger, open_database


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "SD 1.5"])
def test_a_search_runs_from_the_command_line(family: str, tmp_path: Path) -> None:
    build(family).save_pretrained(tmp_path / "model", safe_serialization=True)
    data = tiny.write_data(tmp_path / "data")
    values = tiny.specification(tmp_path / "model", data, timesteps=[50], filters={"rules": "none"})
    if family != "DDPM":
        values["model"]["image_size"] = [16, 16]
    values["study"]["trials"] = 4
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(values))
    arguments = ["search", str(tmp_path / "search.yaml"), "-w", str(tmp_path / "w"), "-o", str(tmp_path / "found.json")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "found.json").read_text())
    extractor = diffsift.FeatureExtractor.from_selection(tmp_path / "found.json")
    features = extractor(torch.rand(2, 3, 16, 16))
    assert features.shape[0] == 2
    assert features.shape[1] >= len(document["members"])
    assert bool(torch.isfinite(features).all())


def test_two_backbones_in_one_search(tmp_path: Path) -> None:
    for folder, family in (("unet", "SD 1.5"), ("dit", "PixArt")):
        build(family).save_pretrained(tmp_path / folder, safe_serialization=True)
    values = tiny.specification(tmp_path / "unet", tiny.write_data(tmp_path / "data"), filters={"rules": "none"})
    values["model"]["image_size"] = [16, 16]
    values["further_models"] = {"dit": {"id": str(tmp_path / "dit"), "image_size": [16, 24]}}
    values["study"]["trials"] = 30
    values["limits"] = {"activations": 3}
    spec = tmp_path / "search.yaml"
    spec.write_text(yaml.safe_dump(values))
    common = ["-w", str(tmp_path / "w")]
    planned = CliRunner().invoke(app, ["search", str(spec), "--dry-run", *common])
    assert planned.exit_code == 0, planned.output
    found = CliRunner().invoke(app, ["search", str(spec), "-o", str(tmp_path / "found.json"), *common])
    assert found.exit_code == 0, found.output
    assert "dit: " in found.output
    with Ledger(open_database(Workspace.at(tmp_path / "w").study_url)) as ledger:
        row = ledger.study(values["study"]["name"])
        scored = {c.backbone for entry in ledger.evaluations(row.name) for c in entry.selection.candidates}
        decided = {decision.backbone for decision in ledger.decisions(row.name)}
    assert {backbone for backbone, *_ in row.pool} == scored == decided == {"main", "dit"}
    document = json.loads((tmp_path / "found.json").read_text())
    assert set(document["models"]) == {member["backbone"] for member in document["members"]}
    features = diffsift.FeatureExtractor.from_selection(tmp_path / "found.json")(torch.rand(2, 3, 16, 16))
    assert bool(torch.isfinite(features).all())


def test_a_selection_of_two_backbones_is_what_each_gives_alone(tmp_path: Path) -> None:
    backbones = [
        backbone_of(build(f), name=n, id=f, image_size=(16, 16)) for n, f in (("a", "SD 1.5"), ("b", "PixArt"))
    ]
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    chosen, statistics, parts = {}, {}, []
    for backbone in backbones:
        entry = next(
            e for e in backbone.activations() if e.kind in ("vit-out", "block-out", "self-q") and not e.unreadable
        )
        candidate = Candidate(backbone.name, entry.name, 50)
        statistics[candidate] = Standardiser.fit(torch.randn(50, entry.channels), max_channels=64)
        chosen[candidate] = 1.0
        alone = FeatureExtractor(Selection.of([candidate]), [backbone], statistics, noise_seed=0)
        parts.append(alone(images))
    together = FeatureExtractor(Selection.of(chosen), backbones, statistics, noise_seed=0)(images)
    size = tuple(together.shape[-2:])
    assert torch.allclose(together, torch.cat([resample_map(part, size) for part in parts], dim=1), atol=1e-5)


def test_a_shelf_keeps_what_fits() -> None:
    backbones, made = BackboneCache(), []

    def make(name: str) -> PipelineBackbone:
        made.append(name)
        return backbone_of(build("DDPM"), name=name, id=name)

    for name in ("a", "b"):
        backbones.add(name, partial(make, name))
    first = backbones["a"]
    assert backbones["a"] is first
    _ = backbones["b"]  # never loaded: has the memory to itself
    assert backbones["a"] is not first
    # By now both are known to be small: they stay beside each other.
    assert [backbone.name for backbone, _ in backbones.each({"a", "b"})] == ["a", "b"]
    assert made == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"main": {"id": "x"}}, "must not use the names"),
        ({"b": {"id": "x", "batch_size": 3}}, "further_models.b.batch_size must not differ from model.batch_size"),
        ({"b": {"id": "x", "devise": "cpu"}}, "further_models.b.devise is not a field"),
        ({"B!": {"id": "x"}}, "further_models"),
    ],
)
def test_further_models_are_checked(further: dict[str, object], message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        Specification.parse(
            {
                "model": {"id": "m"},
                "further_models": further,
                "data": {"kind": "rendered-scenes"},
                "study": {"name": "s"},
            }
        )
