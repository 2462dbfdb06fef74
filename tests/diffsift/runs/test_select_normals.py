"""Surface normals from the command line to the final table, the verdict, the report and the slow probes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from support import tiny
from typer.testing import CliRunner

from diffsift.cli.app import app
from diffsift.objectives.metrics import NORMALS_MEASURES
from diffsift.objectives.reference import reference_kinds
from diffsift.runs.score import score_file


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture(scope="module")
def searched(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("normals")
    values = tiny.specification(tiny_pipeline, folder, filters={"rules": "none", "keep": ["up-*-res-out", "mid-*"]})
    values["data"] = {"kind": "rendered-scenes", "train": 12, "validation": 10, "test": 10, "size": 32}
    values["task"], values["tracking"] = {"kind": "normals"}, {"mlflow": False}
    values["study"] = {"name": "normals", "trials": 5, "rerank": 2, "rerank_probe": "linear"}
    (folder / "search.yaml").write_text(yaml.safe_dump(values))
    out = folder / "normals.json"
    return folder, run("search", folder / "search.yaml", "--workspace", folder / "workspace", "--out", out)


def test_a_search_ends_with_a_table_and_a_verdict(searched: tuple[Path, str]) -> None:
    folder, said = searched
    for word in ("raw pixels", "VAE latents", "random weights", "Verdict", "sealed test split"):
        assert word in said
    about = json.loads((folder / "normals.json").read_text())["about"]
    assert about["task"] == "normals"
    score = about["test_score"]
    assert score["metric"] == "mean-angle in degrees"
    assert 5 < score["low"] <= score["value"] <= score["high"] < 90


def test_the_report_shows_every_measure_and_pictures(searched: tuple[Path, str]) -> None:
    text = (searched[0] / "normals.html").read_text()
    assert all(f">{measure}</th>" in text for measure in NORMALS_MEASURES)
    assert "Prediction for test scene 1" in text


@pytest.mark.parametrize("kind", reference_kinds("normals"))
def test_the_selection_is_scored_by_slow_probes(searched: tuple[Path, str], kind: str) -> None:
    folder, _ = searched
    found = score_file(folder / "normals.json", probe=kind, workspace=folder / "workspace", device="cpu")
    assert 5 < found.interval.low <= found.value <= found.interval.high < 60  # of a constant prediction: about 50
