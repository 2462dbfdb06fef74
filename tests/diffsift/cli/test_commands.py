"""Commands on a study that has ended: reports, overwriting, fields set from outside, tables for programs, features."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file
from sqlalchemy import text
from support import tiny
from support.commands import done, refused, run, write

from diffsift.tracking import Ledger, open_database


def test_a_report_is_written_again_and_replaces_no_file_of_others(searched: tuple[Path, str], tmp_path: Path) -> None:
    workspace = ("--workspace", searched[0] / "workspace")
    file = tmp_path / "report.html"
    done("report", "tiny", *workspace, "--out", file)
    done("report", "tiny", *workspace, "--out", file)  # its own
    assert file.read_text() == (searched[0] / "selection.html").read_text()
    file.write_text("mine")
    assert "was not written by this study" in refused("report", "tiny", *workspace, "--out", file)
    assert file.read_text() == "mine"
    done("report", "tiny", *workspace, "--out", file, "--force")
    assert "no study is named 'tinny'" in refused("report", "tinny", *workspace)


def test_files_of_others_are_not_overwritten(searched: tuple[Path, str], tmp_path: Path) -> None:
    workspace = ("--workspace", searched[0] / "workspace")
    found = shutil.copy(searched[0] / "selection.json", tmp_path / "a.json")
    before = found.read_text()
    said = refused("pick", "tiny", "--passes", 1, *workspace, "--out", found)
    assert "is the found selection of study 'tiny'" in said
    assert found.read_text() == before
    done("pick", "tiny", "--passes", 1, *workspace, "--out", found, "--force")
    said = refused("resume", "tiny", *workspace, "--out", found)
    assert "is the picked selection of study 'tiny'" in said


def test_fields_are_set_on_the_command_line(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    spec = write(tmp_path / "spec.yaml", tiny.specification(tiny_pipeline, tiny_data))
    said = done("search", spec, "--dry-run", "--set", "study.trials=5", "--set", "timesteps=[50]")
    assert "5 trials" in said
    assert "15 candidates" in said
    for change, message in {
        "study.trails=5": "spec.yaml: study.trails is not a field; did you mean 'trials'",
        "study.trials=many": "study.trials must be a whole number, but got 'many'",
        "study=5": "study must be a mapping of fields",
        "timesteps": "--set must be of the form study.trials=5, but got 'timesteps'",
        "timesteps.1=5": "set the list as a whole, such as --set 'timesteps=[1, 2]'",
        "study.name.first=5": "study.name is none",
        "trials=5": "trials is not a field; did you mean 'study.trials'?",
        "study.trials=[": "must be YAML",
    }.items():
        assert message in refused("search", spec, "--set", change)


def test_a_table_is_all_that_goes_to_standard_output(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    values = tiny.specification(tiny_pipeline, tiny_data, study={"trials": 2})
    spec = write(tmp_path / "spec.yaml", values)
    result = run("search", spec, "--format", "json", "--out", tmp_path / "a.json")
    assert result.exit_code == 0, result.output
    assert "selection found" in [row["features"] for row in json.loads(result.stdout)]
    assert "backbone" in result.stderr


def test_features_of_folders_and_patterns_as_numpy_files(
    searched: tuple[Path, str], tiny_data: Path, tmp_path: Path
) -> None:
    selection, images = searched[0] / "selection.json", tiny_data / "images"
    assert "12 files" in done("extract", selection, images, "--out", tmp_path / "maps", "--as", "npy")
    assert np.load(tmp_path / "maps" / "image03.npy").ndim == 3
    pattern = images / "image0[0-3].png"
    assert "4 files" in done("extract", selection, pattern, "--out", tmp_path / "vectors", "--pooled")
    vector = load_file(tmp_path / "vectors" / "image03.safetensors")["features"]
    assert vector.shape == np.load(tmp_path / "maps" / "image03.npy").shape[:1]


def test_an_interrupted_search_says_how_to_continue(
    searched: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import diffsift.runs.select

    def stopped(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(diffsift.runs.select, "select", stopped)
    result = run("resume", "tiny", "--workspace", searched[0] / "workspace")
    assert result.exit_code == 130
    assert "diffsift resume tiny" in result.output


def test_a_study_is_freed_from_processes_of_other_machines(searched: tuple[Path, str]) -> None:
    workspace = searched[0] / "workspace"
    assert "holds anything of tiny" in done("unlock", "tiny", "--workspace", workspace)
    engine = open_database(f"sqlite:///{workspace / 'studies.db'}")
    with Ledger(engine).exclusive("tiny"):
        with engine.begin() as connection:
            connection.execute(text("UPDATE diffsift_holder SET host = 'elsewhere', pid = 7"))
        assert done("unlock", "tiny", "--workspace", workspace).split("from ")[1] == "process 7 on host elsewhere\n"
    engine.dispose()
    assert "did you mean 'tiny'" in refused("unlock", "tinny", "--workspace", workspace)


def test_devices_are_judged_by_name(searched: tuple[Path, str], tiny_data: Path, tmp_path: Path) -> None:
    selection = searched[0] / "selection.json"
    said = refused("extract", selection, tiny_data / "images", "--out", tmp_path, "--device", "gpu")
    assert "--device must be auto, cpu, cuda, cuda:1 or mps, but got 'gpu'; did you mean 'cuda'?" in said
    assert "did you mean 'cuda'" in refused("score", selection, "--device", "gpu")
    assert "did you mean 'mlp'" in refused(
        "score", selection, "--probe", "mpl", "--workspace", searched[0] / "workspace"
    )
