"""`diffsift properties`: a table and pictures of any model, and a clear word for what cannot be measured."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.tiny_pipelines import build
from typer.testing import CliRunner

from diffsift.cli.app import app


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dit")
    build("DiT").save_pretrained(folder, safe_serialization=True)
    return folder


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("photos")
    for number in range(4):
        pixels = np.random.default_rng(number).integers(0, 256, (20, 18, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    return folder


def test_the_table_and_the_pictures(model: Path, photos: Path, tmp_path: Path) -> None:
    arguments = ["properties", str(model), "--images", str(photos), "--timesteps", "100", "--format", "csv"]
    result = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path)])
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["name"] for row in rows} >= {"block0-q", "block1-ffn-inner", "block1-out"}
    assert all(0 <= float(row["diffusion_noise"]) <= 1 and float(row["capacity"]) >= 0 for row in rows)
    kept = {row["name"] for row in rows if row["kept"] == "yes"}
    assert 0 < len(kept) <= 0.3 * len(rows)
    assert {file.stem for file in (tmp_path / "kept").iterdir()} == kept
    assert len(list((tmp_path / "dropped").iterdir())) == len(rows) - len(kept)
    assert Image.open(tmp_path / "properties.png").width > 500


def test_mistakes_are_named(model: Path, tmp_path: Path, photos: Path) -> None:
    cases = {
        ("--images", str(tmp_path / "none")): "must be a folder with at least two PNG or JPEG images",
        ("--images", str(photos), "--timesteps", "5,x"): "must be whole numbers separated by commas",
        ("--images", str(photos), "--timesteps", "1200"): "timestep must be in [0, 999], but got 1200",
    }
    for options, message in cases.items():
        result = CliRunner().invoke(app, ["properties", str(model), *options])
        assert result.exit_code == 1
        assert message in " ".join(result.output.split())
