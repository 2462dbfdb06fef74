"""All tasks from the command line to the final table and the verdict, and what compares with what."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

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
from diffsift.errors import BankError, SpecificationError, StudyError
from diffsift.objectives import OBJECTIVES
from diffsift.objectives.metrics import NORMALS_MEASURES
from diffsift.objectives.reference import reference_kinds
from diffsift.runs.compare import compare
from diffsift.runs.score import score_file
from diffsift.runs.workers import join
from diffsift.study_store import StudyStore
from diffsift.tracking import Ledger, open_database

TASKS = ("segmentation", "depth", "normals", "classification", "correspondence")
METRICS = {
    "segmentation": "mean IoU",
    "depth": "rmse",
    "normals": "mean-angle in degrees",
    "classification": "accuracy",
    "correspondence": "PCK@0.1 by image, per point",
}


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def search(folder: Path, model: Path, name: str, task: dict[str, Any], **changes: Any) -> str:
    values = tiny.specification(model, folder, filters={"rules": "none", "keep": ["up-*-res-out", "mid-*"]}, **changes)
    values["data"] = {"kind": "rendered-scenes", "size": 32, "train": 14, "validation": 12, "test": 12}
    values["task"], values["study"]["name"], values["study"]["trials"] = task, name, 5
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(values))
    out = folder / f"{name}.json"
    return run("search", folder / f"{name}.yaml", "--workspace", folder / "workspace", "--out", out)


class Searched:
    """Finished searches of the tasks in one workspace. Each is made when a test asks for it: processes share the tests.

    Attributes:
        folder: with the workspace and the selections.
    """

    def __init__(self, folder: Path, model: Path) -> None:
        self.folder, self._model = folder, model
        self._said: dict[str, str] = {}

    def ran(self, task: str) -> str:
        """What the search of a task said."""
        if task not in self._said:
            given = {"kind": task, **({"resolution": 6} if task == "correspondence" else {})}
            self._said[task] = search(self.folder, self._model, task, given)
        return self._said[task]


@pytest.fixture(scope="module")
def searched(tiny_pipeline: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    return Searched(tmp_path_factory.mktemp("tasks"), tiny_pipeline)


@pytest.mark.parametrize("task", TASKS)
def test_a_search_ends_with_a_table_and_a_verdict(searched: Searched, task: str) -> None:
    said = searched.ran(task)
    for word in ("raw pixels", "VAE latents", "random weights", "Verdict", "sealed test split"):
        assert word in said
    about = json.loads((searched.folder / f"{task}.json").read_text())["about"]
    assert about["task"] == task
    assert about["test_score"]["metric"] == METRICS[task]
    assert about["test_score"]["low"] <= about["test_score"]["value"] <= about["test_score"]["high"]


def test_the_report_shows_further_measures(searched: Searched) -> None:
    for task in ("correspondence", "normals"):
        searched.ran(task)
    assert "PCK@0.15 by box, per image" in (searched.folder / "correspondence.html").read_text()
    text = (searched.folder / "normals.html").read_text()
    assert all(f">{measure}</th>" in text for measure in NORMALS_MEASURES)
    assert "Prediction for test scene 1" in text


def test_studies_of_one_protocol_are_compared_and_others_refused(searched: Searched, tiny_pipeline: Path) -> None:
    folder = searched.folder
    for task in ("depth", "segmentation"):
        searched.ran(task)
    search(folder, tiny_pipeline, "depth-again", {"kind": "depth"}, timesteps=[50])
    found = compare(["depth", "depth-again"], workspace=folder / "workspace")
    assert found.metric == "rmse"
    scores = {study: {row["name"]: row["score"] for row in rows} for study, (_, rows) in found.rows.items()}
    assert scores["depth"]["raw pixels"] == pytest.approx(scores["depth-again"]["raw pixels"])
    assert "raw pixels" in run("compare", "depth", "depth-again", "--workspace", folder / "workspace")
    with pytest.raises(StudyError, match="one protocol, but depth and segmentation differ in task: 'depth'"):
        compare(["depth", "segmentation"], workspace=folder / "workspace")
    search(folder, tiny_pipeline, "depth-abs", {"kind": "depth", "score": "abs-rel"})
    with pytest.raises(StudyError, match="differ in metric: 'rmse, scale-aware' against 'abs-rel, scale-aware'"):
        compare(["depth", "depth-abs"], workspace=folder / "workspace")


@pytest.mark.parametrize("task", TASKS)
def test_a_worker_needs_neither_model_nor_images_and_scores_alike(
    searched: Searched, task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    searched.ran(task)
    place = Workspace.at(shutil.copytree(searched.folder / "workspace", tmp_path / "workspace"))
    monkeypatch.setattr(RenderedScenes, "split", None)
    monkeypatch.setattr(PipelineBackbone, "__init__", None)
    with StudyStore.existing(place) as store:
        specification = store.specification(task)
    with Ledger(open_database(place.study_url)) as ledger:
        before = ledger.evaluations(task)
        ledger.set_runtime(task, specification.with_runtime(trials=8).model_dump(mode="json"))
    assert f"study {task} has 8 of 8 selections" in run("worker", task, "--workspace", place.folder)
    bank = Bank.reopened(place.shared(task), place.bank, specification.bank, RunContext(batch_size=1))
    parts = (specification.data, specification.task, specification.bank, specification.probe)
    probe = OBJECTIVES[task](*parts).probe(bank)
    assert [probe.score(entry.selection).value for entry in before] == [entry.score for entry in before]
    place.shared(task).write_bytes(b"half a file")
    with pytest.raises(BankError, match=r"cannot be used .*: 'diffsift resume' writes it again"):
        join(task, workspace=place.folder)


@pytest.mark.timeout(600)  # every head is trained in earnest
@pytest.mark.parametrize("task", TASKS)
def test_a_selection_is_scored_by_every_probe_of_its_task(searched: Searched, task: str) -> None:
    searched.ran(task)
    file, workspace = searched.folder / f"{task}.json", searched.folder / "workspace"
    for kind in reference_kinds(task):
        found = score_file(file, probe=kind, workspace=workspace, device="cpu")
        assert found.interval.low <= found.value <= found.interval.high
        assert (found.probe, found.metric) == (kind, METRICS[task])


def test_the_fast_probe_on_the_test_split_repeats_the_final_table(searched: Searched) -> None:
    searched.ran("depth")
    file, workspace = searched.folder / "depth.json", searched.folder / "workspace"
    before = json.loads(file.read_text())["about"]["test_score"]["value"]
    found = score_file(file, probe="ridge", split="test", workspace=workspace, device="cpu")
    assert found.value == pytest.approx(before, rel=1e-4)
    said = run("score", file, "--probe", "ridge", "--split", "test", "--workspace", workspace, "--device", "cpu")
    assert "opened 3 times in study depth" in said


def test_a_probe_of_another_task_is_refused(searched: Searched) -> None:
    folder = searched.folder
    searched.ran("depth")
    with pytest.raises(SpecificationError, match="depth must be one of ridge, reference, linear, conv, but got 'mlp'"):
        score_file(folder / "depth.json", probe="mlp", workspace=folder / "workspace")
