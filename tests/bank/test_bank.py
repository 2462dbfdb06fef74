"""The bank: what it stores, when it extracts, and what it does about damage and values that are not finite."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.banks import (
    NAMES,
    SPECIFICATION,
    Wanted,
    bank_of,
    development_of,
    part_of,
    wanted_of,
)

from diffsift.backbones import PipelineBackbone, PixelControl
from diffsift.backbones._resizing import resize_images
from diffsift.bank import Bank, DevelopmentSet
from diffsift.bank import _extraction as extraction_module
from diffsift.common.context import RunContext
from diffsift.datasets import image_tensors
from diffsift.errors import BankError
from diffsift.extraction import FeatureExtractor, block_scale
from diffsift.spaces import Candidate, Selection


@pytest.fixture(scope="module")
def development(tiny_data: Path) -> DevelopmentSet:
    return development_of(tiny_data)


@pytest.fixture
def open_bank(development: DevelopmentSet, tmp_path: Path) -> Callable[..., Bank]:
    def opened(*, folder: str = "bank", **options: Any) -> Bank:
        return bank_of(tmp_path / folder, development, **options)

    return opened


@pytest.fixture
def wanted(tiny_backbone: PipelineBackbone) -> Wanted:
    return wanted_of(tiny_backbone)


OpenBank = Callable[..., Bank]


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "bank").iterdir())


def test_a_second_fill_extracts_nothing(open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted) -> None:
    first = open_bank()
    assert first.fill(tiny_backbone, wanted) == 4
    assert first.fill(tiny_backbone, wanted) == 0
    second = open_bank(batch_size=7)  # not part of what shapes a feature
    assert second.fill(tiny_backbone, wanted) == 0
    candidate = Candidate("main", NAMES[0], 300)
    assert candidate in second
    assert np.array_equal(first[candidate].features, second[candidate].features)
    assert second.size == first.size
    assert 0 <= second.estimate(wanted) - second.size < 4 * 4096  # what is not features is rounded up


def test_only_what_is_missing_is_extracted(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted
) -> None:
    assert open_bank().fill(tiny_backbone, {50: wanted[50][:1]}) == 1
    assert open_bank().fill(tiny_backbone, wanted) == 3


def test_what_shapes_a_feature_is_part_of_its_key(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted
) -> None:
    few = {50: wanted[50][:1]}
    assert open_bank().fill(tiny_backbone, few) == 1
    assert open_bank(noise_seed=1).fill(tiny_backbone, few) == 1
    assert open_bank().fill(tiny_backbone.untrained(), few) == 1
    assert open_bank().fill(tiny_backbone.untrained(seed=1), few) == 1


def test_entries_do_not_depend_on_the_batch_size(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted
) -> None:
    single, whole = open_bank(folder="a", batch_size=1), open_bank(folder="b", batch_size=12)
    for bank in (single, whole):
        bank.fill(tiny_backbone, wanted)
    for timestep, activations in wanted.items():
        for activation in activations:
            candidate = Candidate("main", activation.name, timestep)
            assert np.allclose(single[candidate].features, whole[candidate].features, rtol=2e-3, atol=2e-3)


def test_entries_are_what_the_extractor_gives(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted, development: DevelopmentSet
) -> None:
    bank = open_bank()
    bank.fill(tiny_backbone, wanted)
    samples = [development.samples[index] for index in range(len(development.samples))]
    images = resize_images(
        image_tensors([sample.image for sample in samples]), tiny_backbone.image_size, "stretch", torch.device("cpu")
    )[0]
    for name in NAMES:
        entry = bank[Candidate("main", name, 50)]
        alone = Selection.of([entry.candidate])
        extractor = FeatureExtractor(alone, [tiny_backbone], {entry.candidate: entry.standardiser}, noise_seed=0)
        found = extractor.features_at(images, torch.from_numpy(development.points)).numpy()
        stored = entry.features.astype(np.float32) * block_scale(1.0, entry.standardiser.raw_channels)
        assert np.allclose(stored, found, rtol=2e-3, atol=1e-3), name


def test_compression_keeps_the_limit(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted, development: DevelopmentSet
) -> None:
    bank = open_bank()
    bank.fill(tiny_backbone, wanted)
    widths = {a.name: bank[Candidate("main", a.name, 50)].features.shape[-1] for a in wanted[50]}
    assert widths == {NAMES[0]: 12, NAMES[1]: 8, NAMES[2]: 12}
    assert bank[Candidate("main", NAMES[0], 50)].features.shape[:2] == development.labels.shape
    assert bank[Candidate("main", NAMES[0], 50)].standardiser.raw_channels == 16


def test_values_that_are_not_finite_reject_one_candidate_only(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted, tmp_path: Path
) -> None:
    denoiser = copy.deepcopy(tiny_backbone.denoiser)
    denoiser.get_submodule("up_blocks.1.attentions.1.transformer_blocks.0.ff.net.0.proj").weight.data[0] = float("nan")
    backbone = tiny_backbone.with_denoiser(denoiser, name="main")
    for extracted in (4, 0):  # also when it is opened again
        bank = open_bank()
        assert bank.fill(backbone, wanted) == extracted
        assert set(bank.rejected) == {Candidate("main", NAMES[2], 50)}
        assert "not finite" in bank.rejected[Candidate("main", NAMES[2], 50)]
        assert Candidate("main", NAMES[2], 50) not in bank
        assert Candidate("main", NAMES[1], 50) in bank
    rejected = [path for path in entries(tmp_path) if json.loads((path / "entry.json").read_text())["rejected"]]
    assert [sorted(file.name for file in path.iterdir()) for path in rejected] == [["entry.json"]]


def test_a_value_that_is_not_finite_behind_the_fit_rejects_for_data_sets_with_that_image(
    development: DevelopmentSet, tiny_backbone: PipelineBackbone, wanted: Wanted, tmp_path: Path
) -> None:
    few, candidate = {50: wanted[50][:1]}, Candidate("main", NAMES[0], 50)
    last = len(development.samples) - 1
    first = development.training & (np.arange(last + 1) < 4)  # statistics are fit on the first four

    def filled(images: Sequence[int], backbone: PipelineBackbone) -> tuple[Bank, int]:
        bank = Bank(
            tmp_path / "bank",
            part_of(replace(development, training=first), images),
            SPECIFICATION,
            RunContext(batch_size=1),
        )
        return bank, bank.fill(backbone, few)

    with pytest.MonkeyPatch.context() as patch:
        capture, runs = tiny_backbone.capture, iter(range(100))

        def broken(images: list[Any], wanted: Wanted, **options: Any) -> Iterator[Any]:
            for timestep, maps in capture(images, wanted, **options):
                yield timestep, {name: value * (torch.inf if next(runs) == last else 1) for name, value in maps.items()}

        patch.setattr(tiny_backbone, "capture", broken)
        bank, extracted = filled(range(last + 1), tiny_backbone)
    assert extracted == 1
    assert "not finite" in bank.rejected[candidate]
    bank, extracted = filled(range(last + 1), tiny_backbone)
    assert (extracted, candidate in bank.rejected) == (0, True)
    bank, extracted = filled(range(last), tiny_backbone)
    assert (extracted, candidate in bank) == (0, True)


def test_controls_go_through_the_same_bank(open_bank: OpenBank, tiny_backbone: PipelineBackbone) -> None:
    pixels, bank = PixelControl(tiny_backbone), open_bank()
    assert bank.fill(pixels, {0: list(pixels.activations())}) == 1
    assert bank[Candidate("pixels", "pixels-5x5", 0)].standardiser.raw_channels == 75


def test_a_folder_that_cannot_be_made_is_refused(open_bank: OpenBank, tmp_path: Path) -> None:
    (tmp_path / "bank").write_text("a file")
    with pytest.raises(BankError, match="bank cannot be made"):
        open_bank()


def test_memory_for_fitting_is_bounded(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted, monkeypatch: pytest.MonkeyPatch
) -> None:
    few, candidate = {50: wanted[50][:1]}, Candidate("main", NAMES[0], 50)
    channels = wanted[50][0].channels
    exact, bounded = open_bank(), open_bank(folder="other")
    exact.fill(tiny_backbone, few)
    most = bounded.fit_memory(few)
    monkeypatch.setattr(extraction_module, "_FIT_MEMORY", 4 * 4 * 8 * channels)  # eight of sixteen points, two images
    assert bounded.fit_memory(few) < most
    bounded.fill(tiny_backbone, few)
    assert not torch.equal(exact[candidate].standardiser.mean, bounded[candidate].standardiser.mean)
    statistics, fewer = exact[candidate].standardiser, bounded[candidate].standardiser
    assert ((statistics.mean - fewer.mean) * statistics.scale).abs().max() < 1  # within a deviation
    monkeypatch.setattr(extraction_module, "_FIT_MEMORY", 4 * 4 * 16 * channels)  # all points
    whole = open_bank(folder="third")
    whole.fill(tiny_backbone, few)
    assert np.array_equal(exact[candidate].features, whole[candidate].features)


def test_pooled_entries_are_means_over_points(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted, development: DevelopmentSet, tmp_path: Path
) -> None:
    whole = open_bank()
    whole.fill(tiny_backbone, wanted)
    means = Bank(
        tmp_path / "pooled",
        replace(development, pooled=True),
        SPECIFICATION,
        RunContext(batch_size=3),
    )
    means.fill(tiny_backbone, wanted)
    candidate = Candidate("main", NAMES[0], 50)
    assert means[candidate].features.shape[:2] == (len(development.samples), 1)
    expected = np.asarray(whole[candidate].features, np.float32).mean(1, keepdims=True)
    assert np.allclose(means[candidate].features, expected, atol=2e-3)
    saved = 2 * len(development.samples) * (development.points.shape[1] - 1) * (12 + 8 + 12 + 12)
    assert whole.estimate(wanted) - means.estimate(wanted) == saved
