"""Whole searches from the command line on pipelines of every family, with nothing said of the family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tiny
import torch
import yaml
from tiny_pipelines import FAMILIES, build
from typer.testing import CliRunner

import diffsift
from diffsift.cli import app


@pytest.mark.parametrize("family", [name for name in FAMILIES if name != "SD 1.5"])
def test_a_search_runs_from_the_command_line(family: str, tmp_path: Path) -> None:
    build(family).save_pretrained(tmp_path / "model", safe_serialization=True)
    values = tiny.specification(tmp_path / "model", tiny.write_data(tmp_path / "data"), filters={"rules": "none"})
    if family != "DDPM":
        values["model"]["image_size"] = [16, 16]
    values["study"]["trials"] = 4
    values["tracking"] = {"mlflow": False}
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
