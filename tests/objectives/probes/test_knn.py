"""The nearest-neighbour probe against scikit-learn's on dense fused features, on the bank and at full resolution."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.neighbors import KNeighborsRegressor

from diffsift.backbones import BackboneCache, PipelineBackbone, activation_named
from diffsift.bank import Bank, BankSpecification
from diffsift.common.context import RunContext
from diffsift.datasets import RenderedScenesSpecification, image_tensors
from diffsift.errors import SpecificationError
from diffsift.extraction import block_scale, sample_map
from diffsift.objectives import (
    OBJECTIVES,
    ClassificationSpecification,
    CorrespondenceSpecification,
    DepthSpecification,
    FittedSelection,
    NeighbourProbe,
    NormalsSpecification,
    ProbeSpecification,
    TaskSpecification,
)
from diffsift.spaces import Candidate, Selection

A, B = (Candidate("main", name, 50) for name in ("up-level0-repeat0-vit-block0-cross-q", "up-level1-repeat1-vit-out"))
SELECTION = Selection.of({A: 0.4, B: 1.0})
TASKS = {
    "segmentation": TaskSpecification(),
    "depth": DepthSpecification(kind="depth"),
    "normals": NormalsSpecification(kind="normals"),
    "classification": ClassificationSpecification(kind="classification"),
}


@pytest.fixture(scope="module", params=list(TASKS))
def made(
    request: pytest.FixtureRequest, tiny_backbone: PipelineBackbone, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Any, Bank]:
    bank = BankSpecification(pixels_per_image=20, max_channels=6, fit_images=6)
    data = RenderedScenesSpecification(size=32, train=12, validation=8, test=5)
    probe = ProbeSpecification(kind="knn", neighbours=3)
    objective = OBJECTIVES[request.param](data, TASKS[request.param], bank, probe)
    folder = tmp_path_factory.mktemp("bank")
    found = Bank(folder, objective.load(), bank, RunContext(batch_size=8))
    known = tiny_backbone.activations()
    found.fill(tiny_backbone, {50: [activation_named(candidate.activation, known) for candidate in (A, B)]})
    return objective, found


def fused(bank: Bank) -> np.ndarray:
    """(images, rows, channels)."""
    blocks = [
        bank[candidate].features.astype(np.float64) * block_scale(weight, bank[candidate].standardiser.raw_channels)
        for candidate, weight in SELECTION.members
    ]
    found = np.concatenate(blocks, axis=2)
    return found.mean(1, keepdims=True) if bank.development.pooled else found


def targets_of(bank: Bank) -> np.ndarray:
    """(images, rows, outputs)."""
    development = bank.development
    if not development.class_names:
        return np.asarray(development.labels.reshape(*development.labels.shape[:2], -1))
    return np.eye(len(development.class_names))[development.labels]


def dense_fit(bank: Bank, fit: np.ndarray) -> KNeighborsRegressor:
    features, targets = fused(bank)[fit], targets_of(bank)[fit]
    model = KNeighborsRegressor(n_neighbors=3, algorithm="brute")
    return model.fit(features.reshape(-1, features.shape[-1]), targets.reshape(-1, targets.shape[-1]))


def test_outputs_are_the_means_over_the_nearest_rows(made: tuple[Any, Bank]) -> None:
    objective, bank = made
    development, features = bank.development, fused(bank)
    held_out = development.fold == 0
    expected = dense_fit(bank, ~held_out).predict(features[held_out].reshape(-1, features.shape[-1]))
    probe = objective.probe(bank)
    (outputs,) = probe.fold_outputs(SELECTION)
    agree = np.isclose(outputs, expected, atol=1e-5).all(1)
    assert agree.mean() > 0.99  # of two rows equally near, either may count
    results = probe._readout.results(development, np.flatnonzero(held_out), expected)
    value = objective.metric.sign * objective.metric.value(results)
    assert probe.score(SELECTION).value == pytest.approx(value, abs=0.02)


def test_the_test_split_is_scored_at_full_resolution(made: tuple[Any, Bank], tiny_backbone: PipelineBackbone) -> None:
    objective, bank = made
    known = {entry.name: entry for entry in tiny_backbone.activations()}
    samples = list(objective.dataset.split("test"))
    targets = [objective.targets(sample) for sample in samples]
    images = torch.stack(image_tensors([sample.image for sample in samples]))
    wanted = {50: [known[candidate.activation] for candidate in (A, B)]}
    maps = dict(next(iter(tiny_backbone.capture(images, wanted, seed=0)))[1])
    model, results = dense_fit(bank, np.ones(20, bool)), []
    for index, entry in enumerate(targets):
        blocks = []
        for candidate, weight in SELECTION.members:
            statistics = bank[candidate].standardiser
            sampled = sample_map(maps[candidate.activation][index : index + 1], torch.from_numpy(entry.points)[None])
            blocks.append(statistics.apply(sampled[0]) * block_scale(weight, statistics.raw_channels))
        features = torch.cat(blocks, dim=1).numpy()
        outputs = model.predict(features.mean(0, keepdims=True) if entry.pooled else features)
        results.append(objective.result(entry, outputs))
    standardisers = {candidate: bank[candidate].standardiser for candidate in (A, B)}
    fitted = FittedSelection("knn", SELECTION, objective.probe(bank).fit(SELECTION), standardisers)
    backbones = BackboneCache()
    backbones.add("main", lambda: tiny_backbone)
    for batch_size in (2, 5):
        found = objective.test([fitted], backbones, RunContext(batch_size=batch_size))
        expected = objective.metric.value(np.stack(results))
        assert objective.metric.value(found.results["knn"]) == pytest.approx(expected, abs=0.02 * max(1, expected))


def test_exemplars_are_drawn_once_for_all_selections(made: tuple[Any, Bank]) -> None:
    objective, bank = made
    specification = ProbeSpecification(kind="knn", neighbours=3, exemplars=7)
    probe = NeighbourProbe(bank, specification, objective.probe(bank)._readout)
    heads = [probe.fit(selection) for selection in (Selection.of([A]), Selection.of([B]))]
    assert {len(head.intercept) for head in heads} == {7}
    np.testing.assert_array_equal(heads[0].targets, heads[1].targets)
    rows = fused(bank).reshape(-1, fused(bank).shape[-1])
    head = probe.fit(SELECTION)
    blocks = [
        head.weights[candidate].T / block_scale(weight, bank[candidate].standardiser.raw_channels)
        for candidate, weight in SELECTION.members
    ]
    exemplars = np.concatenate(blocks, axis=1)
    assert (np.abs(rows[:, None] - exemplars[None]).max(2).min(0) < 1e-3).all()
    assert len(probe._drawn([-1, -2, -3])) == 3


def test_weights_of_locations_count(made: tuple[Any, Bank]) -> None:
    head = made[0].probe(made[1]).fit(SELECTION)
    sums = np.zeros((1, len(head.intercept)), np.float32)
    sums[0, [1, 4, 6]] = 1
    emphasis = np.ones_like(head.emphasis)
    emphasis[4] = 3
    weighed = type(head)(head.weights, head.intercept, head.targets, emphasis, 3).outputs(sums)
    expected = (head.targets[1] + 3 * head.targets[4] + head.targets[6]) / 5
    np.testing.assert_allclose(weighed[0], expected, rtol=1e-5)


def test_correspondence_refuses_a_probe_of_its_own() -> None:
    task = CorrespondenceSpecification(kind="correspondence")
    with pytest.raises(SpecificationError, match=r"probe\.kind must be left out for correspondence.*'knn'"):
        OBJECTIVES["correspondence"](
            RenderedScenesSpecification(), task, BankSpecification(), ProbeSpecification(kind="knn")
        )
