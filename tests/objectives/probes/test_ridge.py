"""The ridge probe against scikit-learn's, which sees the same features as one dense matrix."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from support import tiny

from diffsift.backbones import PipelineBackbone, activation_named
from diffsift.bank import Bank, BankSpecification
from diffsift.common.context import RunContext
from diffsift.datasets import FolderSpecification
from diffsift.errors import DataError, SpecificationError
from diffsift.extraction import block_scale
from diffsift.objectives import ProbeSpecification, RidgeProbe, SegmentationObjective, TaskSpecification
from diffsift.objectives.metrics import Accuracy, confusion, mean_iou
from diffsift.objectives.probes import PENALTIES, ClassReadout, fast_probe
from diffsift.objectives.probes._folds import parts_of
from diffsift.spaces import Candidate, Selection
from diffsift.specification import Specification

A, B, C = (
    Candidate("main", name, 50)
    for name in ("up-level0-repeat0-vit-block0-cross-q", "up-level1-repeat1-res-out", "up-level1-repeat1-vit-out")
)
SELECTIONS = [
    Selection.of([A]),
    Selection.of([A, B]),
    Selection.of({A: 0.3, B: 1.0, C: 0.6}),
]


def filled(
    data: Path,
    backbone: PipelineBackbone,
    folder: Path,
    fractions: tuple[float, float, float],
    balance: float = 0.5,
) -> Bank:
    bank = BankSpecification(pixels_per_image=40, max_channels=12, fit_images=4, balance=balance)
    specification = FolderSpecification(
        kind="folder", images=data / "images", labels=data / "labels", classes=tiny.CLASSES, fractions=fractions
    )
    objective = SegmentationObjective(specification, TaskSpecification(folds=3), bank, ProbeSpecification())
    found = Bank(folder, objective.load(), bank, RunContext(batch_size=12))
    known = backbone.activations()
    found.fill(backbone, {50: [activation_named(candidate.activation, known) for candidate in (A, B, C)]})
    return found


@pytest.fixture(scope="module")
def bank(tiny_data: Path, tiny_backbone: PipelineBackbone, tmp_path_factory: pytest.TempPathFactory) -> Bank:
    """Cross-validated in three folds."""
    return filled(tiny_data, tiny_backbone, tmp_path_factory.mktemp("bank"), (0.6, 0.0, 0.4))


def dense(bank: Bank, selection: Selection) -> np.ndarray:
    """(images, points, channels): the fused feature, scaled as the extractor scales it."""
    blocks = [
        bank[candidate].features.astype(np.float64) * block_scale(weight, bank[candidate].standardiser.raw_channels)
        for candidate, weight in selection.members
    ]
    return np.concatenate(blocks, axis=2)


def dense_fit(bank: Bank, selection: Selection, fit: np.ndarray, specification: ProbeSpecification) -> Ridge:
    development = bank.development
    emphasis = development.weights.astype(np.float64) ** (1 - specification.balance)
    emphasis = (emphasis / emphasis.mean())[fit].ravel()
    features = dense(bank, selection)[fit].reshape(len(emphasis), -1)
    targets = np.eye(len(tiny.CLASSES))[development.labels[fit].ravel()]
    model = Ridge(alpha=specification.regularisation * emphasis.sum(), solver="cholesky")
    return model.fit(features, targets, sample_weight=emphasis)


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_scores_are_those_of_a_dense_fit(bank: Bank, selection: Selection, balance: float) -> None:
    specification = ProbeSpecification(balance=balance, regularisation=1e-2)
    development, counts = bank.development, []
    features = dense(bank, selection)
    for fold in development.folds:
        model = dense_fit(bank, selection, development.fold != fold, specification)
        held_out = development.fold == fold
        predicted = model.predict(features[held_out].reshape(-1, features.shape[-1])).argmax(1)
        weights = development.weights[held_out].ravel()
        counts.append(confusion(development.labels[held_out].ravel(), predicted, weights, len(tiny.CLASSES)))
    score = RidgeProbe(bank, specification).score(selection)
    assert score.value == pytest.approx(mean_iou(np.sum(counts, axis=0)), abs=1e-6)
    assert score.folds == pytest.approx([mean_iou(count) for count in counts], abs=1e-6)


def test_the_head_fit_on_everything_is_that_of_a_dense_fit(bank: Bank) -> None:
    specification, selection = ProbeSpecification(), SELECTIONS[2]
    head = RidgeProbe(bank, specification).fit(selection)
    logits = head.intercept + sum(
        bank[candidate].features.astype(np.float64) @ weights for candidate, weights in head.weights.items()
    )
    model = dense_fit(bank, selection, np.ones(len(bank.development.samples), bool), specification)
    features = dense(bank, selection)
    expected = model.predict(features.reshape(-1, features.shape[-1])).reshape(logits.shape)
    assert np.allclose(logits, expected, atol=1e-3)
    assert (logits.argmax(-1) == expected.argmax(-1)).mean() > 0.999


def dense_choice(bank: Bank, selection: Selection, parts: list[np.ndarray], balance: float) -> float:
    """The penalty with the least weighted squared error over parts that are held out in turn."""
    features, labels = dense(bank, selection), bank.development.labels
    targets = np.eye(len(tiny.CLASSES))[labels]
    emphasis = bank.development.weights.astype(np.float64) ** (1 - balance)
    errors = []
    for penalty in PENALTIES:
        error, specification = 0.0, ProbeSpecification(regularisation=penalty, balance=balance)
        for part in parts:
            fit = np.any([other for other in parts if other is not part], axis=0)
            predicted = dense_fit(bank, selection, fit, specification).predict(
                features[part].reshape(-1, features.shape[-1])
            )
            squares = ((predicted.reshape(targets[part].shape) - targets[part]) ** 2).sum(-1)
            error += (emphasis[part] * squares).sum()
        errors.append(error)
    return PENALTIES[int(np.argmin(errors))]


@pytest.mark.parametrize("selection", SELECTIONS, ids=str)
@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_the_penalty_chosen_is_that_of_dense_inner_folds(bank: Bank, selection: Selection, balance: float) -> None:
    fold = bank.development.fold
    auto = RidgeProbe(bank, ProbeSpecification(regularisation="auto", balance=balance))
    found = auto.score(selection)
    for held_out in bank.development.folds:
        penalty = dense_choice(bank, selection, [fold == other for other in range(3) if other != held_out], balance)
        fixed = RidgeProbe(bank, ProbeSpecification(regularisation=penalty, balance=balance))
        assert found.folds[held_out] == pytest.approx(fixed.score(selection).folds[held_out], abs=1e-9)
    on_all = dense_choice(bank, selection, [fold == part for part in range(3)], balance)
    expected = RidgeProbe(bank, ProbeSpecification(regularisation=on_all, balance=balance)).fit(selection)
    np.testing.assert_allclose(auto.fit(selection).weights[A], expected.weights[A], rtol=1e-5)


def test_penalties_differ_between_selections(bank: Bank) -> None:
    """Else the test above could not tell a choice from a constant."""
    fold = bank.development.fold
    assert len({dense_choice(bank, entry, [fold == 0, fold == 1], 1.0) for entry in SELECTIONS}) > 1


def test_labels_of_a_fold_never_change_what_it_is_scored_with(bank: Bank) -> None:
    development = bank.development
    labels = np.where((development.fold == 1)[:, None], (development.labels + 1) % 3, development.labels)
    changed = copy.copy(bank)
    changed._development = replace(development, labels=labels)
    specification = ProbeSpecification(regularisation="auto")
    before, after = (list(RidgeProbe(entry, specification).fold_outputs(SELECTIONS[2])) for entry in (bank, changed))
    np.testing.assert_array_equal(before[1], after[1])
    assert not np.allclose(before[0], after[0], atol=1e-3)


def test_images_that_are_always_fit_on_are_divided_by_group(
    tiny_data: Path, tiny_backbone: PipelineBackbone, tmp_path: Path
) -> None:
    held_out = filled(tiny_data, tiny_backbone, tmp_path, (0.5, 0.25, 0.25))
    always = np.flatnonzero(held_out.development.fold == -1)
    groups = tuple(str(image // 2) for image in range(len(held_out.development.samples)))
    parts = parts_of(replace(held_out.development, groups=groups))
    assert sorted(parts) == [-3, -2, -1, 0]
    assert sorted(np.concatenate([parts[-1], parts[-2], parts[-3]])) == list(always)
    part_of = {image: part for part, images in parts.items() for image in images}
    assert all(part_of[image] == part_of[image + 1] for image in always if image % 2 == 0 and image + 1 in always)
    auto = RidgeProbe(held_out, ProbeSpecification(regularisation="auto"))
    penalty = dense_choice(
        held_out,
        SELECTIONS[1],
        [
            np.isin(np.arange(len(groups)), images)
            for part, images in parts_of(held_out.development).items()
            if part < 0
        ],
        1.0,
    )
    assert auto.score(SELECTIONS[1]) == RidgeProbe(held_out, ProbeSpecification(regularisation=penalty)).score(
        SELECTIONS[1]
    )
    one = copy.copy(held_out)
    one._development = replace(held_out.development, groups=("same",) * len(groups))
    with pytest.raises(DataError, match="auto needs at least two groups"):
        RidgeProbe(one, ProbeSpecification(regularisation="auto")).score(SELECTIONS[1])


@pytest.mark.parametrize("value", [0, -1e-3, "most", True, None])
def test_a_penalty_is_a_number_or_auto(value: object) -> None:
    values = {"model": {"id": "x"}, "data": {"kind": "rendered-scenes"}, "study": {"name": "x"}}
    with pytest.raises(
        SpecificationError, match=r"probe\.regularisation must be a number above 0, or auto, but (got|is empty)"
    ):
        Specification.parse({**values, "probe": {"regularisation": value}})


def test_a_signal_is_found_and_noise_is_not(bank: Bank) -> None:
    """Three classes by colour: features of a network that sees the image do better than the largest class alone."""
    development = bank.development
    always_background = confusion(
        development.labels.ravel(), np.zeros(development.labels.size, int), development.weights.ravel(), 3
    )
    assert RidgeProbe(bank, ProbeSpecification()).score(SELECTIONS[2]).value > mean_iou(always_background) + 0.1


def test_a_validation_split_is_the_only_fold(tiny_data: Path, tiny_backbone: PipelineBackbone, tmp_path: Path) -> None:
    held_out = filled(tiny_data, tiny_backbone, tmp_path, (0.5, 0.25, 0.25))
    assert held_out.development.folds == (0,)
    probe = RidgeProbe(held_out, ProbeSpecification())
    score = probe.score(SELECTIONS[1])
    assert score.folds == (score.value,)
    assert len(probe.held_out(SELECTIONS[1])) == 3


def test_folds_hold_every_image_out_once(bank: Bank) -> None:
    assert len(bank.development.folds) == 3
    counts = RidgeProbe(bank, ProbeSpecification()).held_out(SELECTIONS[0])
    assert len(counts) == len(bank.development.samples)
    score = RidgeProbe(bank, ProbeSpecification()).score(SELECTIONS[0])
    assert mean_iou(counts.sum(0)) == pytest.approx(score.value)
    assert len(score.folds) == 3


@pytest.mark.parametrize("kind", ["ridge", "knn"])
def test_the_error_of_sampling_is_that_of_binomial_counts(
    tiny_data: Path, tiny_backbone: PipelineBackbone, tmp_path: Path, kind: str
) -> None:
    """Locations drawn uniformly, scored by accuracy: hits are binomial in each image, which weighs as its pixels."""
    held_out = filled(tiny_data, tiny_backbone, tmp_path, (0.6, 0.0, 0.4), balance=0.0)
    probe = fast_probe(held_out, ProbeSpecification.model_validate({"kind": kind}), ClassReadout(Accuracy()))
    counts = probe.held_out(SELECTIONS[1])
    pixels = counts.sum((1, 2))
    share = np.trace(counts, axis1=1, axis2=2) / pixels
    expected = np.sqrt((pixels**2 * share * (1 - share) / 40).sum()) / pixels.sum()
    assert probe.sampling_error(SELECTIONS[1], resamples=2000) == pytest.approx(expected, rel=0.08)
    assert probe.sampling_error(SELECTIONS[1]) == probe.sampling_error(SELECTIONS[1])


def test_memory_does_not_change_the_numbers(bank: Bank) -> None:
    roomy, tight = (RidgeProbe(bank, ProbeSpecification(), memory=memory) for memory in (10**9, 1))
    for selection in [*SELECTIONS, *SELECTIONS]:
        assert roomy.score(selection) == tight.score(selection)
    assert len(tight._cache) == 0
    assert len(roomy._cache) > 1


def test_weights_matter_and_a_global_factor_does_not(bank: Bank) -> None:
    probe = RidgeProbe(bank, ProbeSpecification(regularisation=0.1))
    light, heavy = (probe.fit(Selection.of({A: weight, B: 1.0})) for weight in (0.05, 1.0))
    assert not np.allclose(light.weights[A], heavy.weights[A], rtol=0.1)
    assert probe.score(Selection.of({A: 2.0, B: 2.0})) == probe.score(Selection.of([A, B]))


def test_wide_selections_are_fit_as_narrow_ones_are(bank: Bank, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is too wide to be kept pair by pair is one product: the same scores but for rounding."""
    specification = ProbeSpecification(balance=0.5, regularisation=1e-2)
    narrow = RidgeProbe(bank, specification).fit(SELECTIONS[2])
    monkeypatch.setattr("diffsift.objectives.probes.ridge.SMALL", 8)
    wide_probe = RidgeProbe(bank, specification)
    monkeypatch.setattr(wide_probe, "_second", None)
    wide = wide_probe.fit(SELECTIONS[2])
    assert wide.intercept == pytest.approx(narrow.intercept, abs=1e-4)
    for candidate, weights in narrow.weights.items():
        assert wide.weights[candidate] == pytest.approx(weights, rel=1e-3, abs=1e-4)
