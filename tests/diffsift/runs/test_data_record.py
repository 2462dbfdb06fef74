"""What a data set holds is said before anything else, and is found again in report and MLflow."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image
from support import tiny
from support.commands import refused, run, write
from support.reporters import Recorder

import diffsift
from diffsift import Specification
from diffsift.errors import DataError, DiffsiftError
from diffsift.runs.plan import plan
from diffsift.study_store import StudyStore


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tiny.write_data(tmp_path / "data")
    (folder / "images" / "notes.txt").write_text("")
    (folder / "labels" / ".DS_Store").write_text("")
    return folder


def values(pipeline: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    return tiny.specification(pipeline, folder, **{"study": {"trials": 2}, **changes})


def expected(data: Path, stems: list[str]) -> str:
    """The classes of some masks as the record shows them."""
    masks = [np.asarray(Image.open(data / "labels" / f"{stem}.png")) for stem in stems]
    pixels = np.concatenate([mask.ravel() for mask in masks])
    counted = pixels[pixels != 255]
    shares = [f"{name} {(counted == number).mean():.1%}" for number, name in enumerate(tiny.CLASSES)]
    return f"{', '.join(shares)}; ignored {(pixels == 255).mean():.1%}".replace("%", " %")


def test_a_search_says_first_what_the_data_hold(tiny_pipeline: Path, data: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    workspace = tmp_path / "workspace"
    result = diffsift.select(
        values(tiny_pipeline, data, tracking={"mlflow": True}),
        workspace=workspace,
        out=tmp_path / "a.json",
        reporter=recorder,
    )
    specification = Specification.parse(values(tiny_pipeline, data))
    splits = specification.data.open("segmentation")
    train, test, left_out = recorder.lines[:3]
    assert re.match(r"data        train: 7 images; \d+ x \d+ to \d+ x \d+ px; background ", train)
    assert train.endswith(expected(data, [sample.name for sample in splits.split("train")]))
    assert test.endswith(expected(data, [sample.name for sample in splits.split("test")]))
    assert left_out.split(maxsplit=2)[2] == (
        "1 .txt file (images/notes.txt); 1 file of operating systems (labels/.DS_Store)"
    )
    assert recorder.lines[3].startswith("warning     there are only 7 train images and 5 test images: ")
    (summary,) = result.outcome.data_summaries
    assert summary.lines[0] in train
    assert any("there are only 7 train images" in warning for warning in result.outcome.warnings)

    page = result.report_file.read_text()
    table = page[page.index('<h2 id="data">') : page.index('<h2 id="protocol">')]
    for share in summary.splits[1].classes.values():
        assert f'<td class="number">{share:.1%}</td>'.replace("%", " %") in table
    assert "<li>1 .txt file (images/notes.txt)</li>" in table

    client = MlflowClient(tracking_uri=f"sqlite:///{workspace / 'mlflow.db'}")
    experiments = [entry.experiment_id for entry in client.search_experiments()]
    (parent,) = client.search_runs(experiments, "tags.`diffsift.role` = 'study'")
    profile = json.loads(parent.inputs.dataset_inputs[0].dataset.profile)
    assert profile["holds"] == [json.loads(json.dumps(summary.to_json()))]


def test_a_dry_run_says_it_too(tiny_pipeline: Path, data: Path, tmp_path: Path) -> None:
    spec = write(tmp_path / "spec.yaml", values(tiny_pipeline, data))
    said = run("search", spec, "--dry-run", "--workspace", tmp_path / "workspace").output
    assert said.startswith("data        train: 7 images; ")
    found = plan(Specification.parse(values(tiny_pipeline, data)), workspace=tmp_path / "workspace")
    assert [split.images for split in found.data[0].splits] == [7, 5]
    assert any("there are only 7 train images" in warning for warning in found.warnings)


def test_several_data_sets_are_named(tiny_pipeline: Path, data: Path, tmp_path: Path) -> None:
    tiny.write_data(tmp_path / "other")
    further = values(tiny_pipeline, tmp_path / "other")["data"]
    recorder = Recorder()
    both = Specification.parse(values(tiny_pipeline, data, further_data={"night": further}))
    plan(both, workspace=tmp_path / "workspace", reporter=recorder)
    starts = [line[12:].partition(": ")[0] for line in recorder.lines[:5]]
    assert starts == ["main", "main", "main", "night", "night"]


def keep(data: Path, kept: int) -> None:
    """Leave the first few images."""
    for folder in ("images", "labels"):
        for file in sorted((data / folder).glob("*.png"))[kept:]:
            file.unlink()


def whiten(data: Path) -> None:
    """Black and white masks, as annotation tools write them."""
    for file in (data / "labels").glob("*.png"):
        mask = np.asarray(Image.open(file))
        Image.fromarray(np.where((mask == 1) | (mask == 2), 255, 0).astype(np.uint8)).save(file)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: keep(data, 2), "there must be at least two groups of training images to cross-validate over"),
        (whiten, "at least two classes must have pixels in train, but of 3 only 'background'"),
    ],
)
def test_data_that_cannot_be_searched_on_are_refused_before_the_bank(
    damage: Any, message: str, tiny_pipeline: Path, data: Path, tmp_path: Path
) -> None:
    damage(data)
    workspace = tmp_path / "workspace"
    recorder = Recorder()
    with pytest.raises(DataError, match=message):
        diffsift.select(values(tiny_pipeline, data), workspace=workspace, out=tmp_path / "a.json", reporter=recorder)
    assert recorder.lines[0].startswith("data        train: ")
    assert not list(workspace.rglob("*.bin"))
    spec = write(tmp_path / "spec.yaml", values(tiny_pipeline, data))
    assert message in refused("search", spec, "--dry-run", "--workspace", workspace)


def test_of_data_with_damaged_files_the_others_are_described(tiny_pipeline: Path, data: Path, tmp_path: Path) -> None:
    (data / "images" / "image03.png").write_bytes(b"x")
    recorder = Recorder()
    with pytest.raises(DataError, match=r"image03\.png cannot be decoded"):
        diffsift.select(values(tiny_pipeline, data), workspace=tmp_path, out=tmp_path / "a.json", reporter=recorder)
    counts = [int(found) for found in re.findall(r"(?:train|test): (\d+) images", "\n".join(recorder.lines))]
    assert len(counts) == 2
    assert sum(counts) == tiny.IMAGES - 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": {"device": "cuda:99"}}, "must be a device this machine has"),
        ({"model": {"id": "nobody/no-such-pipeline"}}, "is neither a folder here nor in the hub's cache"),
        ({"further_models": {"more": {"id": "nobody/no-such-pipeline"}}}, "is neither a folder here nor in the hub's"),
        ({"model": {"id": "/nowhere/model"}}, "there is no folder /nowhere/model"),
        ({"model": {"image_size": [17, 16]}}, "must be multiples of 8 px"),
        ({"timesteps": [50, 1000]}, "timesteps.1 (counted from 0): timestep must be in [0, 999], but got 1000"),
        ({"study": {"name": "tiny", "rerank": 2, "rerank_probe": "none"}}, "study.rerank_probe of segmentation must"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_costs_little_is_refused_before_the_data_are_read(
    changes: Any, message: str, tiny_pipeline: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr("diffsift.datasets._files.FileDataset.check", never)
    specification = Specification.parse(values(tiny_pipeline, tiny_data, **changes))
    with pytest.raises(DiffsiftError, match=re.escape(message)):
        plan(specification, workspace=tmp_path, reporter=Recorder())


def test_a_study_of_a_version_that_allowed_absent_classes_goes_on(
    tiny_pipeline: Path, data: Path, tmp_path: Path
) -> None:
    files = {"workspace": tmp_path / "workspace", "out": tmp_path / "a.json"}
    four = {"classes": [*tiny.CLASSES, "nothing"], "allow_absent_classes": True}
    diffsift.select(values(tiny_pipeline, data, data=four), **files)
    with StudyStore.existing(files["workspace"]) as store:
        assert "allow_absent_classes" not in store.row("tiny").identity["data"]
        runtime = dict(store.row("tiny").runtime)
        runtime["data"] = {name: value for name, value in runtime["data"].items() if name != "allow_absent_classes"}
        store.ledger.set_runtime("tiny", runtime)
    diffsift.resume("tiny", **files)
    with pytest.raises(DataError, match=r"1 of 4 has none in train or test \(nothing\)"):
        diffsift.select(values(tiny_pipeline, data, data={**four, "allow_absent_classes": False}), **files)
    diffsift.select(values(tiny_pipeline, data, data=four), **files)
