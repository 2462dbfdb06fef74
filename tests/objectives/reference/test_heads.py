"""Reference heads against plain computations, and uncompressed features against the definition of the fused feature."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn

from diffsift.backbones import BackboneCache, PipelineBackbone
from diffsift.common.context import RunContext
from diffsift.datasets import RenderedScenes, image_tensors
from diffsift.extraction import Standardiser, sample_map
from diffsift.objectives.reference import (
    FeatureMaps,
    LinearHead,
    LogisticHead,
    MlpEnsembleHead,
    ReferenceHead,
    TrainingLocations,
)
from diffsift.objectives.reference._heads import _Networks
from diffsift.spaces import Candidate, Selection


def clusters(seed: int = 0, count: int = 600, classes: int = 3) -> tuple[torch.Tensor, np.ndarray]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(classes, size=count)
    centers = np.eye(classes, 8) * 3
    return torch.from_numpy(centers[labels] + generator.normal(size=(count, 8))).float(), labels


def locations(features: torch.Tensor, targets: np.ndarray, classes: int) -> TrainingLocations:
    return TrainingLocations(
        lambda chosen: features[torch.from_numpy(chosen)], targets, features.shape[1], classes, 0, torch.device("cpu")
    )


@pytest.mark.parametrize("head", [MlpEnsembleHead(epochs=8), LogisticHead(), LinearHead(steps=300)])
def test_heads_learn_what_can_be_learnt(head: ReferenceHead) -> None:
    features, labels = clusters()
    head.fit(locations(features, labels, 3))
    fresh, truth = clusters(seed=1)
    assert (head.outputs(fresh).argmax(1) == truth).mean() > 0.95
    again = type(head)(**{name: getattr(head, name) for name in head.__dataclass_fields__})
    again.fit(locations(features, labels, 3))
    np.testing.assert_array_equal(again.outputs(fresh), head.outputs(fresh))


def test_directions_are_learnt_by_their_cosine() -> None:
    features, labels = clusters()
    directions = np.array([[0, 0, 1], [0.6, 0.8, 0], [-1, 0, 0]], np.float32)[labels]
    head = LinearHead(steps=300)
    head.fit(locations(features, directions, 0))
    fresh, truth = clusters(seed=1)
    found = head.outputs(fresh)
    assert found.shape == (600, 3)
    expected = np.array([[0, 0, 1], [0.6, 0.8, 0], [-1, 0, 0]])[truth]
    cosines = (found * expected).sum(1) / np.linalg.norm(found, axis=1)
    assert cosines.mean() > 0.9
    again = LinearHead(steps=300)  # their lengths mean nothing, as they would to squared errors
    again.fit(locations(features, 10 * directions, 0))
    np.testing.assert_allclose(again.outputs(fresh), found, rtol=1e-3, atol=1e-4)


def test_heads_learn_nothing_from_noise() -> None:
    features, labels = clusters()
    head = MlpEnsembleHead(epochs=5)
    head.fit(locations(torch.from_numpy(np.random.default_rng(2).normal(size=features.shape)).float(), labels, 3))
    fresh, truth = clusters(seed=1)
    assert (head.outputs(fresh).argmax(1) == truth).mean() < 0.6


def test_votes_are_those_of_ten_networks() -> None:
    features, labels = clusters(count=128)
    head = MlpEnsembleHead(epochs=1)
    head.fit(locations(features, labels, 3))
    votes = head.outputs(features)
    np.testing.assert_array_equal(votes.sum(1), 10)
    assert np.all(votes == np.round(votes))


def test_networks_side_by_side_are_the_networks_alone() -> None:
    """Same outputs and gradients as ten separate ``nn.Sequential``."""
    together = _Networks(3, (8, 16, 4), torch.Generator().manual_seed(0)).train()
    features = torch.randn(3, 32, 8, generator=torch.Generator().manual_seed(1))
    outputs = together(features)
    outputs.square().sum().backward()
    for index in range(3):
        alone = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.BatchNorm1d(16), nn.Linear(16, 4)).train()
        with torch.no_grad():
            for layer, number in ((alone[0], 0), (alone[3], 1)):
                layer.weight.copy_(together.weights[number][index].T)
                layer.bias.copy_(together.biases[number][index, 0])
        expected = alone(features[index])
        torch.testing.assert_close(outputs[index], expected)
        expected.square().sum().backward()
        torch.testing.assert_close(together.weights[0].grad[index], alone[0].weight.grad.T)  # type: ignore[union-attr]


def test_training_ends_early_once_the_loss_no_longer_falls() -> None:
    features, labels = clusters(count=640)
    steps = []

    def counted(chosen: np.ndarray) -> torch.Tensor:
        steps.append(len(chosen))
        return features[torch.from_numpy(chosen)]

    head = MlpEnsembleHead()
    head.fit(TrainingLocations(counted, labels, 8, 3, 0, torch.device("cpu")))
    per_epoch = 640 // head.batch
    assert len(steps) >= head.sure_epochs * per_epoch + head.patience
    assert len(steps) < head.epochs * per_epoch


def test_the_logistic_head_is_scikit_learns() -> None:
    features, labels = clusters()
    head = LogisticHead()
    head.fit(locations(features, labels, 4))  # the fourth class is not met
    expected = LogisticRegression(C=1.0, max_iter=1000).fit(features.numpy(), labels).predict_proba(features.numpy())
    outputs = head.outputs(features)
    np.testing.assert_allclose(outputs[:, :3], expected, atol=1e-6)
    assert (outputs[:, 3] == 0).all()


def test_the_linear_head_finds_a_linear_function() -> None:
    features = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
    truth = (features @ torch.tensor([1.0, -2.0, 0.0, 3.0, 0.5])).numpy() + 40
    head = LinearHead()
    head.fit(locations(features, truth, 0))
    np.testing.assert_allclose(head.outputs(features)[:, 0], truth, atol=0.1)


def test_uncompressed_features_are_those_of_the_fused_feature(tiny_backbone: PipelineBackbone) -> None:
    known = {entry.name: entry for entry in tiny_backbone.activations()}
    names = [name for name in known if name.endswith("res-out")][:2]
    first, second = (Candidate(tiny_backbone.name, name, 100) for name in names)
    selection = Selection.of({first: 1.0, second: 0.5})
    samples = RenderedScenes(3, 0, 1, size=32).split("train")
    images = torch.stack(image_tensors([sample.image for sample in samples]))
    maps = dict(next(iter(tiny_backbone.capture(images, {100: [known[name] for name in names]}, seed=0)))[1])
    statistics = {
        entry: Standardiser.fit(maps[entry.activation].permute(0, 2, 3, 1).flatten(0, 2), max_channels=1)
        for entry in (first, second)
    }
    backbones = BackboneCache()
    backbones.add(tiny_backbone.name, lambda: tiny_backbone)
    found = FeatureMaps(samples, backbones, statistics, RunContext(batch_size=2)).of(selection)

    generator = np.random.default_rng(0)
    points = generator.random((40, 2)).astype(np.float32)
    points[:4] = [[0, 0], [1, 1], [0, 1], [0.5, 0.5]]
    expected = []
    for entry, weight in selection.members:
        statistic = statistics[entry]
        plain = (maps[entry.activation].permute(0, 2, 3, 1) - statistic.mean) * statistic.scale
        block = sample_map(plain.permute(0, 3, 1, 2), torch.from_numpy(points).expand(3, -1, -1))
        expected.append(block * weight * (found.channels / block.shape[-1]) ** 0.5)
    fused = torch.cat(expected, dim=2)
    for image in range(3):
        torch.testing.assert_close(found.of_image(image, points), fused[image], atol=5e-3, rtol=5e-3)
    at = generator.integers(3, size=40)
    torch.testing.assert_close(found.at(at, points), fused[at, np.arange(40)], atol=5e-3, rtol=5e-3)
