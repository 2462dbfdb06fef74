"""One feature for an image: the same in the bank, on the test split, for reference probes and out of the extractor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from diffsift import FeatureExtractor
from diffsift.backbones import BackboneCache, PipelineBackbone, activation_named
from diffsift.bank import Bank, BankSpecification
from diffsift.common.context import RunContext
from diffsift.datasets import RenderedScenesSpecification, image_tensors
from diffsift.extraction import block_scale
from diffsift.objectives import ClassificationSpecification, FittedSelection, ProbeSpecification, make_objective
from diffsift.objectives.reference import FeatureMaps
from diffsift.spaces import Candidate, Selection

MAP, PLAIN = (
    Candidate("main", name, 50) for name in ("up-level0-repeat0-vit-block0-self-map", "up-level1-repeat1-res-out")
)
SELECTION = Selection.of({MAP: 1.0, PLAIN: 0.5})
BANK = BankSpecification(pixels_per_image=20, fit_images=6)


@pytest.fixture(scope="module")
def made(tiny_backbone: PipelineBackbone, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Bank, BackboneCache]:
    scenes = RenderedScenesSpecification(size=32, train=10, validation=6, test=5)
    task = ClassificationSpecification(kind="classification")
    objective = make_objective({"main": scenes}, task, BANK, ProbeSpecification())
    bank = Bank(tmp_path_factory.mktemp("bank"), objective.load(), BANK, RunContext(batch_size=8))
    known, backbones = tiny_backbone.activations(), BackboneCache()
    bank.fill(tiny_backbone, {50: [activation_named(candidate.activation, known) for candidate in (MAP, PLAIN)]})
    backbones.add("main", lambda: tiny_backbone)
    return objective, bank, backbones


def statistics(bank: Bank) -> dict[Candidate, Any]:
    return {candidate: bank[candidate].standardiser for candidate in SELECTION.candidates}


def test_the_extractor_pools_as_the_bank_does(
    made: tuple[Any, Bank, BackboneCache], tiny_backbone: PipelineBackbone
) -> None:
    _, bank, _ = made
    extractor = FeatureExtractor(SELECTION, [tiny_backbone], statistics(bank), noise_seed=0)
    samples = [bank.development.samples[index] for index in range(16)]
    found = extractor.pooled(torch.stack(image_tensors([sample.image for sample in samples])), side=4).numpy()
    blocks = [
        np.asarray(bank[c].features[:], np.float32)[:, 0] * block_scale(weight, bank[c].standardiser.raw_channels)
        for c, weight in SELECTION.members
    ]
    np.testing.assert_allclose(found, np.concatenate(blocks, axis=1), atol=3e-3)
    # A spread of standardised values is above 0, their mean about 0.
    assert (np.asarray(bank[MAP].features[:]).mean((0, 1)) > 0.2).all()
    assert (np.abs(np.asarray(bank[PLAIN].features[:]).mean((0, 1))) < 0.2).all()


def test_the_test_split_is_pooled_alike(made: tuple[Any, Bank, BackboneCache], tiny_backbone: PipelineBackbone) -> None:
    objective, bank, backbones = made
    head = objective.probe(bank).fit(SELECTION)
    fitted = FittedSelection("found", SELECTION, head, statistics(bank))
    result = objective.test([fitted], backbones, RunContext(batch_size=5)).results["found"]
    extractor = FeatureExtractor(SELECTION, [tiny_backbone], statistics(bank), noise_seed=0)
    samples = [objective.dataset.split("test")[index] for index in range(5)]
    features = extractor.pooled(torch.stack(image_tensors([sample.image for sample in samples])), side=4).numpy()
    outputs, start = np.array(head.intercept), 0
    for candidate, weight in SELECTION.members:
        channels = bank[candidate].standardiser.channels
        scale = block_scale(weight, bank[candidate].standardiser.raw_channels)
        outputs = outputs + features[:, start : start + channels] / scale @ head.weights[candidate]
        start += channels
    np.testing.assert_array_equal(result.argmax(2).max(1), outputs.argmax(1))


def test_reference_probes_pool_alike(made: tuple[Any, Bank, BackboneCache]) -> None:
    objective, bank, backbones = made
    maps = FeatureMaps(bank.development.samples, backbones, statistics(bank), RunContext(batch_size=8))
    targets = objective.targets(bank.development.samples[3])
    found = maps.of(SELECTION).pooled(3, targets.points)[0].numpy() / maps.of(SELECTION).channels ** 0.5
    blocks = [
        np.asarray(bank[c].features[3], np.float32)[0] * block_scale(weight, bank[c].standardiser.raw_channels)
        for c, weight in SELECTION.members
    ]
    np.testing.assert_allclose(found, np.concatenate(blocks), atol=3e-3)
