"""A search over two data sets from the command line to the final table, and intervals by group."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import tiny
from typer.testing import CliRunner

from diffsift.backbones import PipelineBackbone
from diffsift.bank import Bank
from diffsift.cli.app import app
from diffsift.common.context import RunContext
from diffsift.common.workspace import Workspace
from diffsift.datasets import RenderedScenes
from diffsift.errors import SpecificationError, StudyError
from diffsift.evaluation import decide_weights
from diffsift.objectives import make_objective
from diffsift.objectives.metrics import RatioMetric
from diffsift.runs.pick import pick
from diffsift.runs.score import score_file
from diffsift.runs.select import select
from diffsift.runs.workers import join
from diffsift.spaces import Candidate, Selection
from diffsift.study_store import StudyStore
from diffsift.tracking import Ledger, open_database

SCENES = {"kind": "rendered-scenes", "size": 32, "train": 12, "validation": 8, "test": 8}
OTHER = {"kind": "rendered-scenes", "size": 32, "train": 14, "validation": 0, "test": 9, "seed": 5}


def specification(model: Path, folder: Path, **changes: Any) -> dict[str, Any]:
    values = tiny.specification(model, folder, filters={"rules": "none", "keep": ["up-*-res-out", "mid-*"]})
    values |= {"data": SCENES, **changes}
    values["study"] = {"name": "both", "trials": 6, **changes.get("study", {})}
    return values


@pytest.fixture(scope="module")
def searched(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("both")
    values = specification(tiny_pipeline, folder, further_data={"other": OTHER})
    (folder / "both.yaml").write_text(yaml.safe_dump(values))
    arguments = ["search", "both.yaml", "--workspace", "workspace", "--out", "both.json"]
    arguments = [str(folder / word) if word in ("both.yaml", "workspace", "both.json") else word for word in arguments]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    return folder, result.output


def test_a_search_over_two_data_sets_ends_in_one_table(searched: tuple[Path, str]) -> None:
    folder, said = searched
    for word in ("raw pixels", "random weights", "Verdict", "mean IoU, mean over 2 data sets"):
        assert word in re.sub(r"\s+", " ", said)
    score = json.loads((folder / "both.json").read_text())["about"]["test_score"]
    assert score["metric"] == "mean IoU, mean over 2 data sets"
    assert 0 < score["low"] < score["high"] < 1
    report = (folder / "both.html").read_text()
    assert "main: mean IoU" in report
    assert "other: mean IoU" in report
    assert "other: IoU background" in report


@pytest.mark.parametrize("probe", ["ridge", "linear"])
def test_a_selection_is_scored_on_both_data_sets(searched: tuple[Path, str], probe: str) -> None:
    folder, _ = searched
    options: dict[str, Any] = {"workspace": folder / "workspace", "device": "cpu"}
    found = score_file(folder / "both.json", probe=probe, **options)
    assert found.images == 8 + 14
    assert 0 < found.interval.low < found.interval.high < 1
    if probe == "ridge":
        before = json.loads((folder / "both.json").read_text())["about"]["test_score"]["value"]
        again = score_file(folder / "both.json", probe=probe, split="test", **options)
        assert again.images == 8 + 9
        assert again.value == pytest.approx(before, rel=1e-4)


def test_a_worker_scores_on_both_data_sets_without_model_and_images(
    searched: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Workspace.at(shutil.copytree(searched[0] / "workspace", tmp_path / "workspace"))
    monkeypatch.setattr(RenderedScenes, "split", None)
    monkeypatch.setattr(PipelineBackbone, "__init__", None)
    with StudyStore.existing(place) as store:
        specification = store.specification("both")
    with Ledger(open_database(place.study_url)) as ledger:
        before = ledger.evaluations("both")
        ledger.set_runtime("both", specification.with_runtime(trials=8).model_dump(mode="json"))
    join("both", workspace=place.folder)
    with Ledger(open_database(place.study_url)) as ledger:
        after = ledger.evaluations("both")
    assert len(after) == 8
    assert {len(entry.fold_scores) for entry in after} == {len(before[0].fold_scores)} == {1 + 3}
    bank = Bank.reopened(place.shared("both"), place.bank, specification.bank, RunContext(batch_size=1))
    parts = (specification.data_sets, specification.task, specification.bank, specification.probe)
    probe = make_objective(*parts).probe(bank)
    assert [probe.score(entry.selection).value for entry in after] == [entry.score for entry in after]


def test_data_that_are_in_python_alone_keep_a_study_to_one_process(tiny_pipeline: Path, tmp_path: Path) -> None:
    values = specification(tiny_pipeline, tmp_path, further_data={"other": {"kind": "python"}}, study={"workers": 2})
    with pytest.raises(SpecificationError, match=r"study\.workers must be 1 with data from Python, but got 2"):
        select(values, workspace=tmp_path, out=tmp_path / "both.json")


def test_a_pick_says_how_both_data_sets_are_scored(searched: tuple[Path, str], tmp_path: Path) -> None:
    options: dict[str, Any] = {"workspace": searched[0] / "workspace"}
    found = pick("both", channels=10_000, out=tmp_path / "picked.json", **options)
    about = json.loads(found.file.read_text())["about"]
    assert about["validation_score"] == {"metric": "mean IoU, mean over 2 data sets", "value": found.record.score}
    assert "then the mean over 2 data sets" in about["protocol"]


def test_a_study_keeps_its_data_sets(searched: tuple[Path, str], tiny_pipeline: Path) -> None:
    folder, _ = searched
    changed = specification(tiny_pipeline, folder, further_data={"other": {**OTHER, "seed": 6}})
    with pytest.raises(StudyError, match=r"further_data\.other\.seed=5, but got further_data\.other\.seed=6"):
        select(changed, workspace=folder / "workspace", out=folder / "again.json")


@dataclass
class _Probe:
    """Results of images in groups of ten that go together: the weights gain a little in three groups of five."""

    groups: list[str]
    metric = RatioMetric("share")

    def held_out(self, selection: Selection) -> np.ndarray:
        per_group = [0.9, 0.9, 0.9, 0.4, 0.4] if selection != Selection.of(selection.candidates) else [0.6] * 5
        return np.stack([np.repeat(per_group, 10), np.ones(50)], axis=1)


@pytest.mark.unchecked
def test_weights_are_decided_by_group() -> None:
    found = Selection.of({Candidate("main", "a", 1): 0.5, Candidate("main", "b", 1): 1.0})
    alone = _Probe([str(image) for image in range(50)])
    assert decide_weights(alone, found)[0] == found  # type: ignore[arg-type]
    grouped = _Probe([str(image // 10) for image in range(50)])
    assert decide_weights(grouped, found)[0] == Selection.of(found.candidates)  # type: ignore[arg-type]


def test_a_selection_is_scored_with_intervals_by_group(tiny_pipeline: Path, tmp_path: Path) -> None:
    """The same images, once each by itself and once as three clips: the score stays, its interval does not."""
    intervals, values = {}, {}
    for name, separator in (("images", None), ("clips", "_")):
        data = tiny.write_data(tmp_path / name)
        for kind in ("images", "labels"):
            for number, file in enumerate(sorted((data / kind).iterdir())):
                file.rename(file.with_name(f"clip{number // 3}_{number}.png"))
        stems = [f"clip{number // 3}_{number}" for number in range(tiny.IMAGES)]
        (data / "split.json").write_text(json.dumps({"train": stems[:3], "validation": stems[3:9], "test": stems[9:]}))
        values[name] = specification(tiny_pipeline, data, study={"name": name, "trials": 2})
        values[name]["data"] = {
            "kind": "folder",
            "images": str(data / "images"),
            "labels": str(data / "labels"),
            "classes": list(tiny.CLASSES),
            "split_file": str(data / "split.json"),
            "group_separator": separator,
        }
        select(values[name], workspace=tmp_path, out=tmp_path / f"{name}.json")
        for probe in ("ridge", "linear"):
            options: dict[str, Any] = {"workspace": tmp_path, "device": "cpu"}
            found = score_file(tmp_path / "images.json", study=name, probe=probe, **options)
            intervals[name, probe] = (found.value, found.interval)
    for probe in ("ridge", "linear"):
        assert intervals["images", probe][0] == pytest.approx(intervals["clips", probe][0])
        assert intervals["images", probe][1] != pytest.approx(intervals["clips", probe][1])
