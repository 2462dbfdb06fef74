"""The command line: one search end to end, and one clear message for every bad input."""

from __future__ import annotations

import copy
import csv
import json
import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.torch import load_file
from support import tiny
from support.commands import done, refused, write
from typer.testing import CliRunner

from diffsift.cli.app import app, main

COMMANDS = (
    "demo",
    "init",
    "schema",
    "search",
    "resume",
    "worker",
    "status",
    "report",
    "pick",
    "compare",
    "extract",
    "score",
    "activations",
    "properties",
    "ui",
)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_has_an_example(command: str) -> None:
    said = done(command, "--help")
    assert f"Example: diffsift {command}" in " ".join(said.split())
    assert "<bool>" not in said


def test_version() -> None:
    assert done("--version").startswith("diffsift ")


@pytest.mark.parametrize(("given", "found"), [(None, "PASSIVE"), ("ACTIVE", "ACTIVE")])
def test_threads_do_not_spin_unless_the_user_wants_them_to(
    given: str | None, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")  # restored afterwards, whatever main does
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    at_start: list[str] = []
    monkeypatch.setattr("diffsift.cli.app.app", lambda: at_start.append(os.environ["OMP_WAIT_POLICY"]))
    monkeypatch.setattr("diffsift.cli.app.tune_malloc", lambda: True)
    main()
    assert at_start == [found]


def test_init_writes_a_specification_and_does_not_overwrite_it(tmp_path: Path) -> None:
    file = tmp_path / "new" / "folder" / "a.yaml"
    said = done("init", file)
    assert "beside it diffsift.schema.json" in said
    assert "diffsift search" in said
    file.write_text("mine")
    assert "exists already" in refused("init", file)
    assert file.read_text() == "mine"
    done("init", file, "--force")
    first, second = file.read_text().splitlines()[:2]
    assert first == "# yaml-language-server: $schema=./diffsift.schema.json"
    assert second.startswith("# A diffsift search")
    schema = json.loads((file.parent / "diffsift.schema.json").read_text())
    assert schema == json.loads(done("schema"))
    assert {"model", "data", "study"} <= set(schema["properties"])
    assert not any("oneOf" in part for part in schema["properties"].values())  # a task may match two alternatives


def test_activations_from_configurations_alone(tiny_pipeline: Path) -> None:
    rows = list(csv.DictReader(done("activations", tiny_pipeline, "--format", "csv").splitlines()))
    columns = ["name", "kind", "stage", "level", "depth", "channels", "stride", "operations", "kept", "reason"]
    assert list(rows[0]) == columns
    shares = [float(row["operations"]) for row in rows]
    assert shares == sorted(shares)
    assert 0 <= shares[0] < 0.1 < 0.9 < shares[-1] <= 1
    assert {row["kept"] for row in rows} == {"yes", "no"}
    assert all((row["kept"] == "yes") == (row["reason"] == "") for row in rows)
    assert f"{len(rows)} activations" in " ".join(done("activations", tiny_pipeline).split())


@pytest.mark.parametrize("damage", ["cut off", "no shard"])
def test_activations_of_a_model_with_damaged_weights_come_with_a_warning(
    tiny_pipeline: Path, tmp_path: Path, damage: str
) -> None:
    model = Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))
    assert "warning" not in done("activations", model)
    weights = model / "unet" / "diffusion_pytorch_model.safetensors"
    shards = weights.with_name("diffusion_pytorch_model.safetensors.index.json")
    if damage == "cut off":
        weights.write_bytes(weights.read_bytes()[:-100])
        message = "is damaged or not wholly downloaded"
    else:
        weights.unlink()
        shards.write_text('{"weight_map": {"conv_in.weight": "diffusion_pytorch_model-00001-of-00002.safetensors"}}')
        message = "must hold the 1 shards"
    said = " ".join(done("activations", model).split())
    assert "warning its weights are not whole: " in said
    assert message in said
    assert "99 activations" in said
    weights.unlink(missing_ok=True)
    shards.unlink(missing_ok=True)
    assert "warning" not in done("activations", model)  # configurations are enough


# One search, end to end


def test_a_search_says_what_it_does_and_writes_its_files(searched: tuple[Path, str]) -> None:
    folder, said = searched
    for word in ("activations", "dropped", "bank", "6 distinct selections", "random weights", "Verdict", "diffsift ui"):
        assert word in said
    assert "5 independent test images are too few to tell rows apart, and it is the best on held-out images" in said
    assert "validation" not in said  # there are folds
    assert "\r" not in said  # bars belong on a terminal
    assert (folder / "selection.html").stat().st_size > 10_000
    report = re.sub(r"<pre.*?</pre>|base64,[^\"]*", "", (folder / "selection.html").read_text(), flags=re.DOTALL)
    assert "validation" not in report
    document = json.loads((folder / "selection.json").read_text())
    assert document["about"]["study"] == "tiny"
    assert (folder / "selection.safetensors").is_file()


def test_resume_status_and_extract(searched: tuple[Path, str], tiny_data: Path, tmp_path: Path) -> None:
    workspace = ("--workspace", shutil.copytree(searched[0] / "workspace", tmp_path / "workspace"))
    said = done("resume", "tiny", "--trials", 9, *workspace, "--out", tmp_path / "more.json")
    assert "9 distinct selections" in said
    assert "all there already" in said
    table = done("status", *workspace)
    assert len(table.splitlines()) == 2
    assert re.match(r"tiny +9 +9 +0\.\d{4}  Use ", table.splitlines()[1])
    (study,) = json.loads(done("status", *workspace, "--format", "json"))
    assert (study["study"], study["evaluated"], study["trials"]) == ("tiny", 9, 9)
    (row,) = csv.DictReader(done("status", *workspace, "--format", "csv").splitlines())
    assert float(row["best"]) == study["best"]
    message = refused("resume", "tiny", "--trials", 8, *workspace, "--out", tmp_path / "less.json")
    assert "trials must be at least 9, the distinct selections that study 'tiny' has evaluated, but got 8" in message
    assert not (tmp_path / "less.json").exists()
    images = sorted((tiny_data / "images").iterdir())[:3]
    said = done("extract", tmp_path / "more.json", *images, "--out", tmp_path / "features", "--device", "cpu")
    assert "wrote       3 files" in said
    features = load_file(tmp_path / "features" / f"{images[0].stem}.safetensors")["features"]
    assert features.ndim == 3
    assert features.isfinite().all()
    missing = tmp_path / "nowhere.png"
    assert "nowhere.png" in refused("extract", tmp_path / "more.json", missing, "--out", tmp_path / "features")


def test_a_worker_that_ends_early_is_reported_and_missed_by_nobody(
    searched: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    workspace = shutil.copytree(searched[0] / "workspace", tmp_path / "workspace")
    said = done("resume", "tiny", "--trials", 9, "--workers", 2, "--workspace", workspace, "--out", tmp_path / "a.json")
    assert "workers     2 processes" in said
    assert re.search(r"worker \d+ ended early \(status 1\)", said)
    assert "9 distinct selections" in said


def test_pick_lists_the_front_or_writes_a_selection_within_bounds(searched: tuple[Path, str], tmp_path: Path) -> None:
    workspace = ("--workspace", searched[0] / "workspace")
    front = done("pick", "tiny", *workspace)
    assert front.startswith("Pareto front of tiny")
    assert "scores on held-out images" in front
    rows = json.loads(done("pick", "tiny", *workspace, "--format", "json"))
    assert list(rows[0]) == ["score", "channels", "passes", "operations", "selection"]
    assert [row["channels"] for row in rows] == sorted(row["channels"] for row in rows)
    said = done("pick", "tiny", "--passes", 1, *workspace, "--out", tmp_path / "one.json")
    assert "the test split stays sealed" in said
    assert len({member["timestep"] for member in json.loads((tmp_path / "one.json").read_text())["members"]}) == 1
    assert "must be within 1 channels, but none is" in refused("pick", "tiny", "--channels", 1, *workspace)


def test_a_study_of_another_specification_is_refused(searched: tuple[Path, str], tmp_path: Path) -> None:
    folder, _ = searched
    values = yaml.safe_load((folder / "spec.yaml").read_text())
    other = write(tmp_path / "other.yaml", {**values, "timesteps": [50, 200]})
    said = refused("search", other, "--workspace", folder / "workspace")
    assert "study 'tiny' was made with timesteps=[50, 300], but got timesteps=[50, 200]" in said
    assert "no study is named 'tinny'" in refused("resume", "tinny", "--workspace", folder / "workspace")


# What is wrong


def save_mask(folder: Path, values: np.ndarray) -> None:
    Image.fromarray(values.astype(np.uint8)).save(folder / "labels" / "image03.png")


def mask(folder: Path) -> np.ndarray:
    return np.asarray(Image.open(folder / "labels" / "image03.png"))


BAD_DATA: dict[str, tuple[Callable[[Path], object], str]] = {
    "no masks": (lambda folder: (folder / "labels").rename(folder / "masks"), "the folder of labels must exist"),
    "a mask missing": (lambda folder: (folder / "labels" / "image03.png").unlink(), "has none: image03.png"),
    "another size": (lambda folder: save_mask(folder, mask(folder)[1:]), "image03.png must be as large as its image"),
    "beyond the classes": (
        lambda folder: save_mask(folder, mask(folder) + 7),
        "image03.png must hold values",
    ),
    "all ignored": (lambda folder: save_mask(folder, np.full_like(mask(folder), 255)), "image03.png must have a pixel"),
    "not an image": (
        lambda folder: (folder / "images" / "image03.png").write_bytes(b"x"),
        "image03.png cannot be decoded",
    ),
}


@pytest.mark.parametrize("damage", BAD_DATA)
def test_bad_data_is_refused(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path, damage: str) -> None:
    make, message = BAD_DATA[damage]
    data = Path(shutil.copytree(tiny_data, tmp_path / "data"))
    make(data)
    said = refused("search", write(tmp_path / "spec.yaml", tiny.specification(tiny_pipeline, data)), "--dry-run")
    assert message in said


BAD_FIELDS: dict[str, tuple[dict[str, Any], str]] = {
    "no image in a split": ({"data": {"fractions": [0.01, 0.0, 0.99]}}, "the train split must get an image"),
    "no such folder": ({"model": {"id": "/nowhere/model"}}, "there is no folder /nowhere/model"),
    "timestep": ({"timesteps": [50, 1000]}, "timestep must be in [0, 999], but got 1000"),
    "activation": ({"filters": {"keep": ["mid-vit-uot"], "rules": "none"}}, "did you mean 'mid-vit-out'"),
    "nothing left": ({"filters": {"keep": ["down-*"]}}, "filters must keep at least one activation"),
    "too many": ({"limits": {"activations": 60}}, "limits.activations must be at most the number of candidates"),
    "twice the same level": ({"timesteps": [0.05, 50]}, "timesteps must differ, but [0.05, 50] are [50, 50]"),
    "offloading": ({"model": {"offload": True, "device": "cpu"}}, "model.offload must be false on a CPU"),
    "unknown field": ({"model": {"devise": "cpu"}}, "model.devise is not a field; did you mean 'device'"),
    "image size": ({"model": {"image_size": [17, 16]}}, "model.image_size must be multiples of 8 px"),
}


@pytest.mark.parametrize("mistake", BAD_FIELDS)
def test_a_bad_specification_is_refused(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path, mistake: str) -> None:
    changes, message = BAD_FIELDS[mistake]
    spec = write(tmp_path / "spec.yaml", tiny.specification(tiny_pipeline, tiny_data, **copy.deepcopy(changes)))
    said = refused("search", spec, "--dry-run")
    assert message in said
    assert said.startswith(f"error: {spec}: ")


def test_a_folder_that_is_no_pipeline_is_refused(tiny_data: Path, tmp_path: Path) -> None:
    spec = write(tmp_path / "spec.yaml", tiny.specification(tiny_data, tiny_data))
    assert "diffusers pipeline folder with a model_index.json" in refused("search", spec, "--dry-run")
    assert "diffusers pipeline folder" in refused("activations", tiny_data)


def test_a_read_only_database_is_refused(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    from diffsift.tracking import open_database

    open_database(f"sqlite:///{tmp_path / 'studies.db'}").dispose()
    storage = f"sqlite:///file:{tmp_path / 'studies.db'}?mode=ro&uri=true"
    values = tiny.specification(tiny_pipeline, tiny_data, study={"storage": storage})
    assert "is read-only" in refused("search", write(tmp_path / "spec.yaml", values))


def test_files_that_do_not_exist_are_named(tmp_path: Path) -> None:
    assert "nowhere.yaml cannot be read" in refused("search", tmp_path / "nowhere.yaml")
    assert "holds no studies" in refused("status", "--workspace", tmp_path / "empty")
    assert "holds no MLflow trials" in refused("ui", "--workspace", tmp_path / "empty")
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    said = refused("extract", tmp_path / "nowhere.json", tmp_path / "a.png", "--out", tmp_path / "out")
    assert "the selection file must exist, but there is no" in said
    (tmp_path / "s.json").write_text("{}")


def test_a_dry_run_prints_the_cost_and_makes_no_study(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    spec = write(tmp_path / "spec.yaml", tiny.specification(tiny_pipeline, tiny_data))
    said = done("search", spec, "--dry-run", "--workspace", tmp_path / "workspace")
    assert "30 candidates; 14 passes (7 images)" in said
    assert "MB of" in said
    assert re.search(r"about \d+ s", said)
    assert "GB beyond the model" in said
    assert not (tmp_path / "workspace" / "studies.db").exists()
    assert list((tmp_path / "workspace" / "bank").iterdir()) == []
    assert "--format csv must be left out with --dry-run" in refused("search", spec, "--dry-run", "--format", "csv")


def test_a_bank_beyond_its_budget_is_refused_before_work_starts(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    values = tiny.specification(tiny_pipeline, tiny_data, bank={"budget_gb": 0.0003})
    spec = write(tmp_path / "spec.yaml", values)
    for options in ([], ["--dry-run"]):
        said = refused("search", spec, "--workspace", tmp_path / "workspace", *options)
        assert re.search(
            r"needs 0\.\d+ GB, budget 0\.0003 GB: lower bank\.pixels_per_image to \d+ or the pool to \d+ of", said
        )
    assert list((tmp_path / "workspace" / "bank").iterdir()) == []


def test_the_bank_is_listed_and_cleaned(searched: tuple[Path, str], tmp_path: Path) -> None:
    options = ("--workspace", tmp_path / "workspace")
    assert "holds no bank" in refused("bank", "list", *options)
    shutil.copytree(searched[0] / "workspace", tmp_path / "workspace", dirs_exist_ok=True)
    listed = done("bank", "list", "--check", *options)
    for word in ("tiny", "sound", "UNet2D", "50, 300", "pixels:", "latents:"):
        assert word in listed
    assert "choose what to remove" in refused("bank", "clean", *options)
    assert "known: tiny" in refused("bank", "clean", "--study", "other", *options)
    assert "nothing to remove" in done("bank", "clean", "--unused", "--damaged", *options)
    entries = sorted((tmp_path / "workspace" / "bank").iterdir())
    answer = CliRunner().invoke(app, ["bank", "clean", "--study", "tiny", *map(str, options)], input="n\n")
    assert "nothing was removed" in answer.output
    assert sorted((tmp_path / "workspace" / "bank").iterdir()) == entries
    assert f"removed {len(entries)} entries" in done("bank", "clean", "--study", "tiny", "--yes", *options)
    assert list((tmp_path / "workspace" / "bank").iterdir()) == []


def test_values_that_are_not_finite_are_dropped_and_the_search_goes_on(tiny_data: Path, tmp_path: Path) -> None:
    pipeline = tiny.pipeline()
    broken = pipeline.unet.get_submodule("up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_k")
    broken.weight.data[:] = float("nan")
    pipeline.save_pretrained(tmp_path / "model")
    spec = write(tmp_path / "spec.yaml", tiny.specification(tmp_path / "model", tiny_data, study={"trials": 3}))
    said = done("search", spec, "--out", tmp_path / "selection.json")
    assert "warning     up-level1-repeat1-vit-block0-self-k@50 was dropped: not finite" in said
    assert "3 distinct selections" in said


def test_padding_prompts_and_noise_draws_from_search_to_extraction(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    stems = sorted(file.stem for file in (tiny_data / "images").iterdir())
    prompts = tmp_path / "prompts.json"
    prompts.write_text(json.dumps({stem: "a b"[: 1 + 2 * (index % 2)] for index, stem in enumerate(stems)}))
    changes = {
        "model": {"resize": "pad", "noise_seeds": 2},
        "data": {"prompts": str(prompts)},
        "timesteps": [0.05, 300],
        "study": {"trials": 3},
    }
    spec = write(tmp_path / "spec.yaml", tiny.specification(tiny_pipeline, tiny_data, **changes))
    options = ("--workspace", tmp_path / "workspace")
    assert "28 passes (7 images)" in done("search", spec, "--dry-run", *options)
    done("search", spec, "--out", tmp_path / "found.json", *options)
    document = json.loads((tmp_path / "found.json").read_text())
    assert document["own_prompts"] is True
    assert {member["timestep"] for member in document["members"]} <= {50, 300}
    image = next((tiny_data / "images").iterdir())
    arguments = ("extract", tmp_path / "found.json", image, "--out", tmp_path / "features")
    assert "name their file with --prompts" in refused(*arguments)
    done(*arguments, "--prompts", prompts)
    assert (tmp_path / "features" / f"{image.stem}.safetensors").is_file()
    prompts.write_text(json.dumps({stems[0]: "a"}))
    assert "must have a prompt for every image that is used, but has none for" in refused("search", spec, *options)
    prompts.write_text("[]")
    assert "must map stems of image files to prompts" in refused("search", spec, *options)
