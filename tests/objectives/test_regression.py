"""Regression at every pixel: scores of normals against a dense fit, what is reported and drawn, unknown pixels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from diffsift.backbones import BackboneCache, PipelineBackbone, activation_named
from diffsift.bank import Bank, BankSpecification
from diffsift.common.context import RunContext
from diffsift.datasets import DATASETS, RenderedScenesSpecification
from diffsift.errors import SpecificationError
from diffsift.extraction import block_scale
from diffsift.objectives import (
    OBJECTIVES,
    DepthSpecification,
    FittedSelection,
    NormalsSpecification,
    ProbeSpecification,
    make_objective,
)
from diffsift.objectives.metrics import DEPTH_MEASURES, NORMALS_MEASURES, normals_measures
from diffsift.spaces import Candidate, Selection

A, B = (Candidate("main", name, 50) for name in ("up-level1-repeat1-res-out", "up-level1-repeat1-vit-out"))
SELECTION = Selection.of({A: 0.4, B: 1.0})
SCENES = RenderedScenesSpecification(train=10, validation=6, test=3, size=32)
NORMALS = NormalsSpecification(kind="normals")
BANK = BankSpecification(pixels_per_image=20, max_channels=6, fit_images=6)


@pytest.fixture(scope="module")
def made(tiny_backbone: PipelineBackbone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Bank]:
    objective = OBJECTIVES["normals"](SCENES, NORMALS, BANK, ProbeSpecification(regularisation=0.01))
    bank = Bank(tmp_path_factory.mktemp("bank"), objective.load(), BANK, RunContext(batch_size=8))
    known = tiny_backbone.activations()
    bank.fill(tiny_backbone, {50: [activation_named(candidate.activation, known) for candidate in (A, B)]})
    return objective, bank


def test_scores_are_those_of_a_dense_fit(made: tuple[Any, Bank]) -> None:
    objective, bank = made
    development = bank.development
    assert development.labels.shape == (16, 20, 3)
    np.testing.assert_allclose(np.linalg.norm(development.labels, axis=2), 1, atol=1e-4)
    blocks = [
        bank[candidate].features.astype(np.float64) * block_scale(weight, bank[candidate].standardiser.raw_channels)
        for candidate, weight in SELECTION.members
    ]
    features = np.concatenate(blocks, axis=2)
    fit, held = development.fold == -1, development.fold == 0
    model = Ridge(alpha=0.01 * fit.sum() * 20)
    model.fit(features[fit].reshape(-1, features.shape[-1]), development.labels[fit].reshape(-1, 3))
    errors = [
        normals_measures(model.predict(places), truth)["mean-angle"]
        for places, truth in zip(features[held], development.labels[held], strict=True)
    ]
    score = objective.probe(bank).score(SELECTION)
    assert score.value == pytest.approx(-np.mean(errors), abs=1e-3)  # signed: higher is better
    assert np.mean(errors) > 5


def test_all_measures_are_reported_and_predictions_are_unit_vectors(
    made: tuple[Any, Bank], tiny_backbone: PipelineBackbone
) -> None:
    objective, bank = made
    fitted = FittedSelection("row", SELECTION, objective.probe(bank).fit(SELECTION), bank.standardisers([A, B]))
    backbones = BackboneCache()
    backbones.add("main", lambda: tiny_backbone)
    found = objective.test([fitted], backbones, RunContext(batch_size=2))
    assert tuple(found.measures["row"]) == NORMALS_MEASURES
    assert found.measures["row"]["mean-angle"] == objective.metric.value(found.results["row"])
    measured = []
    for sample, predicted in zip(found.samples, found.predictions["row"], strict=True):
        assert predicted.shape == sample.label.shape == (32, 32, 3)
        np.testing.assert_allclose(np.linalg.norm(predicted, axis=2), 1, atol=1e-5)
        measured.append(normals_measures(predicted.reshape(-1, 3), sample.label.reshape(-1, 3)))
    for name in NORMALS_MEASURES:
        assert found.measures["row"][name] == pytest.approx(np.mean([entry[name] for entry in measured]), rel=1e-4)


def test_targets_are_the_known_pixels(made: tuple[Any, Bank]) -> None:
    objective, _ = made
    sample = objective.dataset.split("train")[0]
    label = sample.label.copy()
    label[:5] = np.nan
    targets = objective.targets(replace(sample, label=label))
    known = np.isfinite(label[..., 0])
    np.testing.assert_array_equal(targets.counted, known)
    assert targets.targets.shape == (known.sum(), 3)
    assert len(targets.points) == known.sum()
    rows = (targets.points[:, 1] * 32).astype(int)
    assert rows.min() >= 5
    assert objective.result(targets, 7.0 * targets.targets)[0] == pytest.approx(0, abs=0.05)


@pytest.mark.parametrize(("alignment", "optimised"), [("none", "rmse"), ("scale-and-shift", "rmse aligned")])
def test_depth_is_reported_plain_and_aligned(
    alignment: str, optimised: str, tiny_backbone: PipelineBackbone, tmp_path: Path
) -> None:
    task = DepthSpecification.model_validate({"kind": "depth", "alignment": alignment})
    objective = OBJECTIVES["depth"](SCENES, task, BANK, ProbeSpecification())
    bank = Bank(tmp_path, objective.load(), BANK, RunContext(batch_size=8))
    bank.fill(tiny_backbone, {50: [activation_named(A.activation, tiny_backbone.activations())]})
    selection, backbones = Selection.of([A]), BackboneCache()
    backbones.add("main", lambda: tiny_backbone)
    fitted = FittedSelection("row", selection, objective.probe(bank).fit(selection), bank.standardisers([A]))
    found = objective.test([fitted], backbones, RunContext(batch_size=2))
    measures = found.measures["row"]
    assert list(measures) == [f"{name}{suffix}" for suffix in ("", " aligned") for name in DEPTH_MEASURES]
    assert objective.metric.value(found.results["row"]) == measures[optimised]
    assert measures["rmse aligned"] < measures["rmse"]
    for sample, predicted in zip(found.samples, found.predictions["row"], strict=True):
        assert predicted.shape == sample.label.shape == (32, 32)


@pytest.mark.parametrize("score", NORMALS_MEASURES)
def test_shares_are_maximised_and_angles_minimised(score: str) -> None:
    task = NormalsSpecification.model_validate({"kind": "normals", "score": score})
    metric = OBJECTIVES["normals"](SCENES, task, BANK, ProbeSpecification()).metric
    assert metric.higher_is_better == score.startswith("within")
    assert metric.name == (score if score.startswith("within") else f"{score} in degrees")


def test_several_data_sets_are_scored_by_their_mean(tmp_path: Path, tiny_backbone: PipelineBackbone) -> None:
    data = {"a": SCENES, "b": SCENES.model_copy(update={"seed": 1, "train": 6, "validation": 4})}
    objective = make_objective(data, NORMALS, BANK, ProbeSpecification())
    bank = Bank(tmp_path, objective.load(), BANK, RunContext(batch_size=8))
    bank.fill(tiny_backbone, {50: [activation_named(A.activation, tiny_backbone.activations())]})
    score = objective.probe(bank).score(Selection.of([A])).value
    assert -90 < score < -5


def test_data_without_normals_are_refused(tmp_path: Path) -> None:
    folder = DATASETS["depth-folder"].model_validate({"kind": "depth-folder", "root": tmp_path})
    with pytest.raises(SpecificationError, match=r"'normals' needs data .* has labels for 'depth'"):
        OBJECTIVES["normals"](folder, NORMALS, BANK, ProbeSpecification())
    normals = DATASETS["normals-folder"].model_validate({"kind": "normals-folder", "root": tmp_path})
    with pytest.raises(SpecificationError, match=r"'depth' needs data .* has labels for 'normals'"):
        OBJECTIVES["depth"](normals, DepthSpecification(kind="depth"), BANK, ProbeSpecification())
