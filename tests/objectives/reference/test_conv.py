"""The convolutional head: windows of features, what it can learn that no head of single places can, ignored pixels."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from diffsift.backbones import BackboneCache, PipelineBackbone
from diffsift.common.context import RunContext
from diffsift.datasets import RenderedScenes, image_tensors
from diffsift.extraction import Standardiser
from diffsift.objectives.reference import (
    ConvolutionalHead,
    FeatureMaps,
    LinearHead,
    TrainingLocations,
    Windows,
    reference_kinds,
)
from diffsift.objectives.reference._maps import SelectionFeatures
from diffsift.spaces import Candidate, Selection

CPU = torch.device("cpu")
Spans = Callable[[tuple[int, int], tuple[int, int]], torch.Tensor]


def maps_of(count: int, seed: int) -> tuple[torch.Tensor, np.ndarray]:
    """Random signs, and whether the pixel and its right neighbour agree: no pixel alone tells."""
    signs = torch.from_numpy(np.sign(np.random.default_rng(seed).normal(size=(count, 1, 16, 16)))).float()
    right = torch.cat([signs[..., 1:], signs[..., -1:]], dim=-1)
    return signs, (signs == right)[:, 0].numpy().astype(np.float32)


def windows(features: torch.Tensor, targets: np.ndarray, classes: int) -> Windows:
    padded = functional.pad(features, (1, 1, 1, 1), mode="replicate")

    def window(image: int, rows: tuple[int, int], columns: tuple[int, int]) -> torch.Tensor:
        return padded[image, :, rows[0] + 1 : rows[1] + 1, columns[0] + 1 : columns[1] + 1]

    return Windows(window, dict(enumerate(targets)), features.shape[1], classes, 0, CPU)


def outputs_of(head: ConvolutionalHead, features: torch.Tensor, image: int) -> np.ndarray:
    found = windows(features, np.zeros((len(features), 16, 16)), 2)
    return head.outputs(lambda rows, columns: found.features(image, rows, columns), (16, 16), features.shape[1])


def test_it_learns_what_depends_on_the_pixel_beside() -> None:
    features, targets = maps_of(12, 0)
    head = ConvolutionalHead(steps=120, edge=16)
    head.fit(windows(features, targets, 2))
    fresh, truth = maps_of(3, 1)
    found = np.stack([outputs_of(head, fresh, image).argmax(2) for image in range(3)])
    assert (found == truth).mean() > 0.95
    linear = LinearHead(steps=100)
    flat, labels = features.flatten().reshape(-1, 1), targets.ravel().astype(int)
    linear.fit(TrainingLocations(lambda chosen: flat[torch.from_numpy(chosen)], labels, 1, 2, 0, CPU))
    assert (linear.outputs(fresh.flatten().reshape(-1, 1)).argmax(1) == truth.ravel()).mean() < 0.7


def test_pixels_that_do_not_count_teach_nothing() -> None:
    features, targets = maps_of(6, 0)
    hidden = np.random.default_rng(2).random(targets.shape) < 0.4
    heads = []
    for wrong in (0.0, 1.0):
        masked = np.where(hidden, wrong, targets)
        masked[hidden] = np.nan
        head = ConvolutionalHead(steps=5, edge=8)
        head.fit(windows(features, masked, 2))
        heads.append(outputs_of(head, features, 0))
    np.testing.assert_array_equal(heads[0], heads[1])
    nothing = ConvolutionalHead(steps=3, edge=8)
    nothing.fit(windows(features, np.full_like(targets, np.nan), 2))
    assert np.isfinite(outputs_of(nothing, features, 0)).all()


def test_values_come_back_in_their_own_unit_and_images_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    features, agree = maps_of(8, 0)
    head = ConvolutionalHead(steps=150, edge=16)
    head.fit(windows(features, agree * 10 + 40, 0))
    whole = outputs_of(head, features, 0)
    assert np.abs(whole[..., 0] - (agree[0] * 10 + 40)).mean() < 1.0
    monkeypatch.setattr("diffsift.objectives.reference._conv._FLOATS", 5 * 18)
    np.testing.assert_allclose(outputs_of(head, features, 0), whole, atol=1e-4)


def test_directions_are_learnt_where_they_are_known() -> None:
    features, agree = maps_of(8, 0)
    upwards, aside = np.array([0.0, 0.6, 0.8], np.float32), np.array([1.0, 0.0, 0.0], np.float32)
    directions = np.where(agree[..., None] > 0, upwards, aside).astype(np.float32)
    directions[:, :3] = np.nan
    head = ConvolutionalHead(steps=150, edge=16)
    head.fit(windows(features, directions, 0))
    found = outputs_of(head, features, 0)
    assert found.shape == (16, 16, 3)
    cosines = (found * directions[0]).sum(2) / np.linalg.norm(found, axis=2)
    assert np.nanmean(cosines) > 0.95


def test_windows_are_the_features_at_pixel_centers(tiny_backbone: PipelineBackbone) -> None:
    known = {entry.name: entry for entry in tiny_backbone.activations()}
    entry = Candidate(tiny_backbone.name, next(name for name in known if name.endswith("res-out")), 100)
    samples = RenderedScenes(2, 0, 1, size=32).split("train")
    images = torch.stack(image_tensors([sample.image for sample in samples]))
    maps = dict(next(iter(tiny_backbone.capture(images, {100: [known[entry.activation]]}, seed=0)))[1])
    raw = maps[entry.activation].permute(0, 2, 3, 1).flatten(0, 2)
    backbones = BackboneCache()
    backbones.add(tiny_backbone.name, lambda: tiny_backbone)
    statistics = {entry: Standardiser.fit(raw, max_channels=1)}
    found: SelectionFeatures = FeatureMaps(samples, backbones, statistics, RunContext(batch_size=2)).of(
        Selection.of([entry])
    )
    window = found.window(1, (32, 20), (-1, 4), (17, 21))
    assert window.shape == (found.channels, 5, 4)
    centers = np.array([[(17 + 0.5) / 20, 0.5 / 32], [(19 + 0.5) / 20, (3 + 0.5) / 32]], np.float32)
    expected = found.of_image(1, centers)
    torch.testing.assert_close(window[:, 1, 0], expected[0])
    torch.testing.assert_close(window[:, 4, 2], expected[1])
    torch.testing.assert_close(
        window[:, :, 3], found.window(1, (32, 20), (-1, 4), (19, 20))[:, :, 0], atol=0.5, rtol=0.5
    )
    assert torch.isfinite(window).all()


def test_tasks_with_maps_have_it() -> None:
    tasks = ("segmentation", "depth", "normals", "classification")
    assert [task for task in tasks if "conv" in reference_kinds(task)] == ["segmentation", "depth", "normals"]
