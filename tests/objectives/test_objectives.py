"""Probes of the new tasks against dense computations, and registered objectives."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from support.banks import development_of

from diffsift.backbones import PipelineBackbone, activation_named
from diffsift.bank import Bank, BankSpecification
from diffsift.common.context import RunContext
from diffsift.datasets import FolderSpecification, RenderedScenes, RenderedScenesSpecification, Split
from diffsift.errors import DataError, SpecificationError
from diffsift.extraction import block_scale
from diffsift.objectives import (
    OBJECTIVES,
    ClassificationSpecification,
    CorrespondenceSpecification,
    DepthSpecification,
    ProbeSpecification,
    SegmentationObjective,
    TaskSpecification,
    correspondence,
    register_objective,
)
from diffsift.objectives.metrics import correct_keypoints, depth_measures
from diffsift.spaces import Candidate, Selection
from diffsift.specification import Specification

A, B = (Candidate("main", name, 50) for name in ("up-level1-repeat1-res-out", "up-level1-repeat1-vit-out"))
SELECTION = Selection.of({A: 0.4, B: 1.0})
SCENES = RenderedScenesSpecification(size=32, train=12, validation=8, test=4)


def made(task: Any, folder: Path, backbone: PipelineBackbone) -> tuple[Any, Bank]:
    bank = BankSpecification(pixels_per_image=20, max_channels=6, fit_images=6)
    objective = OBJECTIVES[task.kind](SCENES, task, bank, ProbeSpecification(regularisation=0.01))
    found = Bank(folder, objective.load(), bank, RunContext(batch_size=8))
    known = backbone.activations()
    found.fill(backbone, {50: [activation_named(candidate.activation, known) for candidate in (A, B)]})
    return objective, found


def fused(bank: Bank) -> np.ndarray:
    blocks = [
        bank[candidate].features.astype(np.float64) * block_scale(weight, bank[candidate].standardiser.raw_channels)
        for candidate, weight in SELECTION.members
    ]
    return np.concatenate(blocks, axis=2)


def test_depth_scores_are_those_of_a_dense_fit(tmp_path: Path, tiny_backbone: PipelineBackbone) -> None:
    objective, bank = made(DepthSpecification(kind="depth"), tmp_path, tiny_backbone)
    development, features = bank.development, fused(bank)
    fit, held = development.fold == -1, development.fold == 0
    model = Ridge(alpha=0.01 * development.labels[fit].size)
    model.fit(features[fit].reshape(-1, features.shape[-1]), development.labels[fit].ravel())
    errors = [
        depth_measures(model.predict(places), truth)["rmse"]
        for places, truth in zip(features[held], development.labels[held], strict=True)
    ]
    score = objective.probe(bank).score(SELECTION)
    assert score.value == pytest.approx(-np.mean(errors), abs=1e-4)  # signed: higher is better


def test_classes_are_read_from_averaged_features(tmp_path: Path, tiny_backbone: PipelineBackbone) -> None:
    task = ClassificationSpecification(kind="classification")
    objective, bank = made(task, tmp_path, tiny_backbone)
    development, features = bank.development, fused(bank).mean(1)
    assert development.points.shape[1] == 16  # the largest square grid of at most 20 places
    fit, held = development.fold == -1, development.fold == 0
    model = Ridge(alpha=0.01 * fit.sum()).fit(features[fit], np.eye(7)[development.labels[fit, 0]])
    expected = (model.predict(features[held]).argmax(1) == development.labels[held, 0]).mean()
    assert objective.probe(bank).score(SELECTION).value == pytest.approx(expected)


def test_matches_are_those_of_the_fused_cosine(tmp_path: Path, tiny_backbone: PipelineBackbone) -> None:
    task = CorrespondenceSpecification(kind="correspondence", resolution=5)
    objective, bank = made(task, tmp_path, tiny_backbone)
    development, features = bank.development, fused(bank)
    matching, results = development.matching, []
    assert matching is not None
    for source, target in matching.pairs:
        assert development.fold[source] == development.fold[target] == 0
        for place, row in zip(features[source, 25:], matching.rows[source], strict=True):
            if row < 0:
                continue
            there = features[target, :25]
            cosine = there @ place / np.linalg.norm(there, axis=1) / np.linalg.norm(place)
            predicted = development.points[target, cosine.argmax()]
            truth = development.labels[target, row]
            results.append(correct_keypoints(predicted[None], truth[None], size=(32, 32), threshold=0.1))
    correct, counted = np.sum(results, axis=0)
    assert counted > 10
    assert objective.probe(bank).score(SELECTION).value == pytest.approx(correct / counted, abs=1e-9)
    assert objective.probe(bank).fit(SELECTION) is None


@pytest.mark.parametrize(
    "task",
    [
        TaskSpecification(folds=2),
        ClassificationSpecification(kind="classification"),
        CorrespondenceSpecification(kind="correspondence", resolution=5),
    ],
    ids=["segmentation", "classification", "correspondence"],
)
def test_every_entry_that_is_held_out_has_its_group(tmp_path: Path, tiny_backbone: PipelineBackbone, task: Any) -> None:
    objective, bank = made(task, tmp_path, tiny_backbone)
    development = replace(bank.development, groups=tuple(f"group{number}" for number in range(20)))
    groups, entries = development.held_out_groups, objective.probe(bank).held_out(SELECTION)
    assert len(groups) == len(entries)
    if development.matching is None:
        assert groups == tuple(f"group{number}" for number in range(12, 20))  # of the validation scenes
    else:
        assert groups == tuple(f"group{source}" for source, _ in development.matching.pairs)
    metric = objective.metric
    drawn = metric.resampled(entries, resamples=200, groups=groups)
    low, high = metric.interval(entries, resamples=200, groups=groups)
    quantiles = np.quantile(drawn, [0.025, 0.975])  # which the interval shifts back where resamples lack a class
    assert high - low == pytest.approx(quantiles[1] - quantiles[0])
    assert low <= metric.value(entries) <= high


def test_folds_keep_their_order_among_held_out_groups(tiny_data: Path) -> None:
    development = development_of(tiny_data)
    assert len(development.folds) > 1
    order = np.concatenate([np.flatnonzero(development.fold == fold) for fold in development.folds])
    expected = [development.samples[int(image)].group for image in order]
    assert list(development.held_out_groups) == expected


def test_a_task_without_its_answers_is_refused(tmp_path: Path) -> None:
    folder = FolderSpecification(kind="folder", images=tmp_path, labels=tmp_path, classes=2)
    with pytest.raises(SpecificationError, match=r"'depth' needs data .* has labels for 'segmentation'"):
        OBJECTIVES["depth"](folder, DepthSpecification(kind="depth"), BankSpecification(), ProbeSpecification())
    one = RenderedScenesSpecification(size=32, train=4, validation=0, test=1)
    task = CorrespondenceSpecification(kind="correspondence")
    with pytest.raises(DataError, match="test split must hold at least one pair"):
        OBJECTIVES["correspondence"](one, task, BankSpecification(), ProbeSpecification()).load()


def test_objectives_of_users_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(SegmentationObjective):
        pass

    values = {"model": {"id": "x"}, "data": {"kind": "rendered-scenes"}, "study": {"name": "x"}}
    task = {"kind": "mine", "options": {"a": 1}}
    with pytest.raises(SpecificationError, match=r"task\.kind must be one of segmentation, depth"):
        Specification.parse({**values, "task": task})
    monkeypatch.setattr(OBJECTIVES, "_registered", {})
    register_objective("mine", Mine)
    assert "mine" in OBJECTIVES.names()
    assert OBJECTIVES["mine"] is Mine
    parsed = Specification.parse({**values, "task": task}).task
    assert (parsed.kind, parsed.options) == ("mine", {"a": 1})
    with pytest.raises(SpecificationError, match="'depth' is taken"):
        register_objective("depth", Mine)


def test_fields_of_a_task_are_named_when_they_are_wrong() -> None:
    values = {"model": {"id": "x"}, "data": {"kind": "rendered-scenes"}, "study": {"name": "x"}}
    with pytest.raises(SpecificationError, match=r"task\.alignement is not a field.*alignment"):
        Specification.parse({**values, "task": {"kind": "depth", "alignement": "none"}})
    with pytest.raises(SpecificationError, match=r"task\.resolution must be at least 2, but got 1"):
        Specification.parse({**values, "task": {"kind": "correspondence", "resolution": 1}})


class _Points(RenderedScenes):
    """Keypoints that are wrong, or images without a box."""

    def __init__(self, wrong: str) -> None:
        super().__init__(train=4, validation=4, test=2, size=32, task="correspondence")
        self._wrong = wrong

    def split(self, name: Split) -> Any:
        samples = super().split(name)
        if self._wrong == "box":
            return [replace(sample, box=None) for sample in samples]
        return [replace(sample, label=sample.label + 0.5) for sample in samples]

    def check(self, *_: object) -> None:
        pass


@pytest.mark.parametrize(
    ("wrong", "message"), [("box", "needs a box in every target"), ("outside", "must lie in their image")]
)
def test_pairs_that_cannot_be_scored_are_refused_before_long_work(
    wrong: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(correspondence, "open_dataset", lambda data, task: _Points(wrong))
    task = CorrespondenceSpecification(kind="correspondence", normalise="box")
    objective = OBJECTIVES["correspondence"](SCENES, task, BankSpecification(), ProbeSpecification())
    with pytest.raises(DataError, match=message):
        objective.load()


@pytest.mark.parametrize("average", ["point", "image"])
@pytest.mark.parametrize("normalise", ["box", "image"])
def test_averages_and_normalisations_differ(
    average: str, normalise: str, tmp_path: Path, tiny_backbone: PipelineBackbone
) -> None:
    task = CorrespondenceSpecification(kind="correspondence", resolution=5, average=average, normalise=normalise)
    objective, bank = made(task, tmp_path, tiny_backbone)
    results = objective.probe(bank).held_out(SELECTION)
    assert objective.metric.name == f"PCK@0.1 by {normalise}, per {average}"
    assert (results[:, 1].max() > 1) == (average == "point")
    assert objective.probe(bank).score(SELECTION).value == pytest.approx(results[:, 0].sum() / results[:, 1].sum())
