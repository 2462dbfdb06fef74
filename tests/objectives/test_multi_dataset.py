"""Several data sets in one objective: the mean of their scores, intervals within each, one standardiser for all."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffsift.backbones import PipelineBackbone, activation_named
from diffsift.bank import (
    Bank,
    BankPart,
    BankSpecification,
    join_development_sets,
    measured_similarity,
    pack_groups,
)
from diffsift.bank._similarity import _spread_rows
from diffsift.common.context import RunContext
from diffsift.datasets import FolderSpecification, RenderedScenesSpecification, image_tensors
from diffsift.errors import DataError, SpecificationError
from diffsift.extraction import block_scale, sample_map
from diffsift.objectives import (
    CorrespondenceSpecification,
    MultiDatasetObjective,
    ProbeSpecification,
    RidgeProbe,
    TaskSpecification,
    make_objective,
)
from diffsift.objectives.metrics import MeanIou, MeanOverDataSets, RatioMetric, correct_keypoints
from diffsift.spaces import Candidate, Selection
from diffsift.specification import Specification

A, B = (Candidate("main", name, 50) for name in ("up-level1-repeat1-res-out", "up-level1-repeat1-vit-out"))
SELECTION = Selection.of({A: 0.4, B: 1.0})
BANK = BankSpecification(pixels_per_image=16, max_channels=6, fit_images=6)
VALUES = {"model": {"id": "x"}, "data": {"kind": "rendered-scenes"}, "study": {"name": "x"}}


def objective_of(data: Path, task: Any = None) -> Any:
    """Rendered scenes (8 classes) and, for segmentation, the tiny folder (3 classes)."""
    scenes = RenderedScenesSpecification(size=32, train=24, validation=8, test=4)
    further: Any = FolderSpecification(kind="folder", images=data / "images", labels=data / "labels", classes=3)
    if task is not None:
        further = RenderedScenesSpecification(size=32, train=6, validation=6, test=4, seed=1)
    return make_objective({"main": scenes, "further": further}, task or TaskSpecification(), BANK, ProbeSpecification())


def bank_of(folder: Path, objective: Any, backbone: PipelineBackbone) -> Bank:
    bank = Bank(folder, objective.load(), BANK, RunContext(batch_size=8))
    known = backbone.activations()
    bank.fill(backbone, {50: [activation_named(candidate.activation, known) for candidate in (A, B)]})
    return bank


def counts(images: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(1, 9, (images, classes, classes)).astype(float)


def test_the_score_is_the_mean_whatever_the_numbers_of_images_and_classes() -> None:
    few, many = counts(3, 2, 0), counts(40, 5, 1)
    metric = MeanOverDataSets([MeanIou(), MeanIou()])
    expected = (MeanIou().value(few) + MeanIou().value(many)) / 2
    assert metric.value(metric.pack([few, many])) == pytest.approx(expected, abs=1e-12)
    assert metric.name == "mean IoU, mean over 2 data sets"


def test_each_data_set_is_resampled_within_itself() -> None:
    """A data set of one image is in every resample: what varies is half of what the other one does."""
    many, one = counts(30, 4, 0), counts(1, 2, 1)
    metric, alone, fixed = MeanOverDataSets([MeanIou(), MeanIou()]), MeanIou(), MeanIou().value(one)
    assert metric.interval(metric.pack([many, one])) == pytest.approx(
        [(bound + fixed) / 2 for bound in alone.interval(many)], abs=1e-12
    )
    other = many.copy()
    other[:, 0, 0] += 2 * np.arange(30)
    other[:, 0, 1:] = (other[:, 0, 1:].T * (many[:, 0].sum(1) - other[:, 0, 0]) / many[:, 0, 1:].sum(1)).T.clip(0)
    other[:, 0, 0] = many[:, 0].sum(1) - other[:, 0, 1:].sum(1)  # the same pixels, predicted in another way
    gain = metric.gain(metric.pack([other, one]), metric.pack([many, one]))
    assert gain == pytest.approx(tuple(value / 2 for value in alone.gain(other, many)), abs=1e-12)


def test_groups_of_two_data_sets_are_apart_and_resampled_whole() -> None:
    values = np.stack([np.repeat([0.0, 1.0], 20), np.ones(40)], axis=1)
    groups = ["a"] * 20 + ["b"] * 20
    metric = MeanOverDataSets([RatioMetric("share"), RatioMetric("share")])
    packed, names = metric.pack([values, values]), pack_groups([groups, groups])
    assert len(set(names)) == 4
    assert metric.interval(packed, groups=names) == (0.0, 1.0)  # of two groups each, a resample may have one alone
    low, high = metric.interval(packed)
    assert 0.3 < low < high < 0.7


def test_errors_keep_their_direction_and_strange_mixtures_are_refused() -> None:
    error = RatioMetric("error", higher_is_better=False)
    assert MeanOverDataSets([error, error]).sign == -1
    with pytest.raises(ValueError, match="must be the same, but got error, mean IoU"):
        MeanOverDataSets([error, MeanIou()])
    metric = MeanOverDataSets([MeanIou(), MeanIou()])
    with pytest.raises(ValueError, match=r"of each of 2 data sets, but got \[2, 0\]"):
        metric.pack([counts(2, 2, 0), counts(0, 2, 0)])
    first, second = counts(4, 2, 0), counts(4, 2, 1)
    with pytest.raises(ValueError, match="must be scored on the same points"):
        metric.gain(metric.pack([first, first]), metric.pack([first, second]))


def test_one_standardiser_is_fit_on_equally_many_images_of_each(
    tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone
) -> None:
    objective = objective_of(tiny_data)
    bank = bank_of(tmp_path, objective, tiny_backbone)
    development = bank.development
    assert [len(part.samples) for part in development.members] == [32, 7]
    # Of 24 and 7 training images, three each: taken as often, not by how many there are.
    order = development.in_turn(np.random.default_rng([BANK.seed, 1]).permutation(np.flatnonzero(development.training)))
    fit = order[: BANK.fit_images]
    assert np.bincount(development.member[fit]).tolist() == [3, 3]
    assert development.training[fit].all()
    raw = []
    for image in sorted(int(index) for index in fit):
        batch = image_tensors([development.samples[image].image])
        activation = activation_named(A.activation, tiny_backbone.activations())
        for _, maps in tiny_backbone.capture(batch, {50: [activation]}, seed=0):
            raw.append(sample_map(maps[A.activation], torch.from_numpy(development.points[[image]]))[0])
    expected = torch.cat(raw).double()
    torch.testing.assert_close(bank[A].standardiser.mean.double(), expected.mean(0), rtol=1e-4, atol=1e-5)
    parts = [BankPart(bank, number)[A] for number in range(2)]
    assert parts[0].standardiser is parts[1].standardiser
    whole = np.asarray(bank[A].features[:])
    np.testing.assert_array_equal(np.concatenate([np.asarray(part.features[:]) for part in parts]), whole)


def test_statistics_of_one_data_set_alone_do_not_stand_for_two(
    tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone
) -> None:
    several = objective_of(tiny_data)
    first = bank_of(tmp_path, several.objectives["main"], tiny_backbone)
    bank = bank_of(tmp_path, several, tiny_backbone)  # the same folder
    assert not torch.equal(first[A].standardiser.mean, bank[A].standardiser.mean)
    again = bank_of(tmp_path, several, tiny_backbone)
    assert torch.equal(again[A].standardiser.mean, bank[A].standardiser.mean)


def test_a_selection_scores_the_mean_of_a_probe_per_data_set(
    tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone
) -> None:
    objective = objective_of(tiny_data)
    bank = bank_of(tmp_path, objective, tiny_backbone)
    probe = objective.probe(bank)
    parts = [RidgeProbe(BankPart(bank, number), ProbeSpecification()).score(SELECTION) for number in range(2)]
    score = probe.score(SELECTION)
    assert score.value == pytest.approx(np.mean([part.value for part in parts]))
    assert score.folds == (*parts[0].folds, *parts[1].folds)  # one of the validation split, three of cross-validation
    assert len(score.folds) == 4
    held_out = probe.held_out(SELECTION)
    assert probe.metric.value(held_out) == pytest.approx(score.value)
    assert len(probe.groups) == len(held_out) == 8 + 7
    heads = probe.fit(SELECTION).heads
    assert [len(head.intercept) for head in heads] == [8, 3]


TASKS = [TaskSpecification(), CorrespondenceSpecification(kind="correspondence", resolution=5)]


@pytest.mark.parametrize("task", TASKS, ids=["segmentation", "correspondence"])
def test_other_processes_reopen_the_data_sets_with_their_groups(
    tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone, task: Any
) -> None:
    objective = objective_of(tiny_data, None if task.kind == "segmentation" else task)
    bank = bank_of(tmp_path / "bank", objective, tiny_backbone)
    bank.publish(tmp_path / "shared", [A, B])
    reopened = Bank.reopened(tmp_path / "shared", tmp_path / "bank", BANK, RunContext(batch_size=1))
    probe, again = objective.probe(bank), objective.probe(reopened)
    assert again.score(SELECTION) == probe.score(SELECTION)
    assert again.groups == probe.groups == reopened.development.held_out_groups
    assert len(again.groups) == len(again.held_out(SELECTION))
    assert reopened.development.groups == bank.development.groups
    assert np.array_equal(measured_similarity(reopened, [A, B]), measured_similarity(bank, [A, B]))


def test_similarity_looks_at_every_data_set(tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone) -> None:
    bank = bank_of(tmp_path, objective_of(tiny_data), tiny_backbone)
    images, _ = _spread_rows(bank, 32)  # places of four images
    assert bank.development.member[images].tolist() == [0, 0, 1, 1]
    assert bank.development.training[images].all()


def test_correspondence_of_images_with_other_numbers_of_keypoints(
    tiny_data: Path, tmp_path: Path, tiny_backbone: PipelineBackbone
) -> None:
    task = CorrespondenceSpecification(kind="correspondence", resolution=5)
    objective = objective_of(tiny_data, task)
    alone = [part.load() for part in objective.objectives.values()]
    bank = bank_of(tmp_path, objective, tiny_backbone)
    assert bank.development.matching is not None
    assert len(bank.development.matching.pairs) == sum(len(part.matching.pairs) for part in alone if part.matching)
    scores = []
    for number, development in enumerate(alone):
        view, matching = BankPart(bank, number), development.matching
        assert matching is not None
        blocks = [
            np.asarray(view[c].features[:], np.float64) * block_scale(weight, view[c].standardiser.raw_channels)
            for c, weight in SELECTION.members
        ]
        features, right = np.concatenate(blocks, axis=2), []
        for source, target in matching.pairs:
            for place, row in zip(features[source, 25:], matching.rows[source], strict=False):
                if row >= 0:
                    there = features[target, :25]
                    best = (there @ place / np.linalg.norm(there, axis=1)).argmax()
                    predicted, truth = development.points[target, best], development.labels[target, row]
                    right.append(correct_keypoints(predicted[None], truth[None], size=(32, 32), threshold=0.1))
        correct, counted = np.sum(right, axis=0)
        scores.append(correct / counted)
    assert objective.probe(bank).score(SELECTION).value == pytest.approx(np.mean(scores), abs=1e-9)


def test_prompts_for_some_data_sets_alone_are_refused(tiny_data: Path) -> None:
    objective = objective_of(tiny_data)
    parts = {name: part.load() for name, part in objective.objectives.items()}
    told = replace(parts["further"], has_prompts=True)
    with pytest.raises(DataError, match="further has them and main has none"):
        join_development_sets({**parts, "further": told})


def test_the_protocol_says_what_differs(tiny_data: Path) -> None:
    objective = objective_of(tiny_data)
    assert isinstance(objective, MultiDatasetObjective)
    protocol = objective.protocol
    assert protocol.averaging.endswith("then the mean over 2 data sets")
    assert protocol.metric == "main: mean IoU over 8 classes, further: mean IoU over 3 classes"
    assert protocol.search.startswith("main: the validation split, further: 3-fold")
    turned = MultiDatasetObjective(dict(reversed(objective.objectives.items())))
    assert turned.protocol.data != protocol.data


@pytest.mark.parametrize(
    ("further", "message"),
    [
        ({"main": {"kind": "rendered-scenes"}}, "further_data must not use the name main, which stands for data"),
        ({"b": {"kind": "rendered-scenes", "trian": 3}}, r"further_data\.b\.trian is not a field.*train"),
        ({"voc": {"kind": "voc", "rot": "x"}}, r"further_data\.voc\.rot is not a field.*root"),
        ({"b": {"kind": "scenes"}}, r"further_data\.b\.kind must be one of"),
    ],
)
def test_mistakes_in_further_data_are_named(further: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        Specification.parse({**VALUES, "further_data": further})


def test_a_further_data_set_of_another_task_is_refused(tmp_path: Path) -> None:
    folder = FolderSpecification(kind="folder", images=tmp_path, labels=tmp_path, classes=2)
    task = CorrespondenceSpecification(kind="correspondence")
    with pytest.raises(SpecificationError, match="'correspondence' needs data"):
        make_objective({"main": RenderedScenesSpecification(), "b": folder}, task, BANK, ProbeSpecification())


def test_further_data_identify_a_study() -> None:
    one = Specification.parse(VALUES)
    two = Specification.parse({**VALUES, "further_data": {"b": {"kind": "rendered-scenes", "seed": 1}}})
    assert list(two.data_sets) == ["main", "b"]
    assert one.identity() != two.identity()
