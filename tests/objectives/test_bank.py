"""The bank: what it stores, when it extracts, and what it does about damage and values that are not finite."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from diffsift.backbones import Activation, PipelineBackbone, PixelControl, with_random_weights
from diffsift.backbones._fitting import fit
from diffsift.errors import BankError
from diffsift.objectives import (
    Bank,
    BankSpecification,
    DevelopmentSet,
    ProbeSpecification,
    SegmentationObjective,
    TaskSpecification,
)
from diffsift.objectives import bank as bank_module
from diffsift.objectives.bank import image_tensors
from diffsift.objectives.specification import FolderSpecification
from diffsift.spaces import Candidate, Selection, activation_named, block_scale, catalogue
from diffsift.tracking.extractor import FeatureExtractor

NAMES = ("up-level0-repeat0-vit-block0-cross-q", "up-level1-repeat1-res-out", "up-level1-repeat1-vit-block0-ffn-inner")
SPECIFICATION = BankSpecification(pixels_per_image=16, max_channels=12, fit_images=4)


@pytest.fixture(scope="module")
def development(tiny_data: Path) -> DevelopmentSet:
    data = FolderSpecification(
        kind="folder", images=tiny_data / "images", labels=tiny_data / "labels", classes=tiny.CLASSES
    )
    return SegmentationObjective(data, TaskSpecification(), SPECIFICATION, ProbeSpecification()).load()


@pytest.fixture
def open_bank(development: DevelopmentSet, tmp_path: Path) -> Callable[..., Bank]:
    def opened(*, folder: str = "bank", noise_seed: int = 0, batch_size: int = 3) -> Bank:
        return Bank(
            tmp_path / folder,
            development,
            SPECIFICATION,
            noise_seed=noise_seed,
            batch_size=batch_size,
            progress=False,
        )

    return opened


@pytest.fixture
def wanted(tiny_backbone: PipelineBackbone) -> dict[int, list[Activation]]:
    known = catalogue(tiny_backbone)
    return {50: [activation_named(name, known) for name in NAMES], 300: [activation_named(NAMES[0], known)]}


OpenBank = Callable[..., Bank]
Wanted = dict[int, list[Activation]]


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
    assert second.size == first.size > second.estimate(wanted)


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
    assert open_bank().fill(with_random_weights(tiny_backbone), few) == 1
    assert open_bank().fill(with_random_weights(tiny_backbone, seed=1), few) == 1


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
    images = fit(
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


def flip_a_bit(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a flipped bit": lambda entry: flip_a_bit(entry / "features.npy"),
    "cut short": lambda entry: (entry / "features.npy").write_bytes((entry / "features.npy").read_bytes()[:-64]),
    "empty": lambda entry: (entry / "features.npy").write_bytes(b""),
    "no features": lambda entry: (entry / "features.npy").unlink(),
    "broken statistics": lambda entry: (entry / "statistics.safetensors").write_bytes(b"{"),
    "broken description": lambda entry: (entry / "entry.json").write_text("{"),
    "description without a checksum": lambda entry: (entry / "entry.json").write_text('{"rejected": null}'),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_entry_is_rebuilt(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted, tmp_path: Path, damage: str
) -> None:
    few, candidate = {50: wanted[50][:2]}, Candidate("main", NAMES[0], 50)
    open_bank().fill(tiny_backbone, few)
    whole = {path.name: (path / "features.npy").read_bytes() for path in entries(tmp_path)}
    DAMAGES[damage](entries(tmp_path)[0])
    again = open_bank()
    assert again.fill(tiny_backbone, few) == 1
    assert candidate in again
    assert {path.name: (path / "features.npy").read_bytes() for path in entries(tmp_path)} == whole


def test_a_partial_entry_is_never_read(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted, tmp_path: Path
) -> None:
    few = {50: wanted[50][:1]}
    open_bank().fill(tiny_backbone, few)
    (entry,) = entries(tmp_path)
    entry.rename(entry.with_name(f"{entry.name}.1.partial"))
    assert open_bank().fill(tiny_backbone, few) == 1


def test_an_interrupted_fill_leaves_nothing_behind(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted, tmp_path: Path
) -> None:
    broken = tiny_backbone.with_denoiser(copy.deepcopy(tiny_backbone.denoiser), name="main")
    calls = iter(range(100))

    def stop_later(*_: object) -> None:
        if next(calls) == 3:
            raise KeyboardInterrupt

    broken.denoiser.register_forward_pre_hook(stop_later)
    with pytest.raises(KeyboardInterrupt):
        open_bank().fill(broken, wanted)
    assert entries(tmp_path) == []


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


def test_controls_go_through_the_same_bank(open_bank: OpenBank, tiny_backbone: PipelineBackbone) -> None:
    pixels, bank = PixelControl(tiny_backbone), open_bank()
    assert bank.fill(pixels, {0: list(pixels.declared)}) == 1
    assert bank[Candidate("pixels", "pixels-5x5", 0)].standardiser.raw_channels == 75


def test_a_folder_that_cannot_be_made_is_refused(open_bank: OpenBank, tmp_path: Path) -> None:
    (tmp_path / "bank").write_text("a file")
    with pytest.raises(BankError, match="bank cannot be made"):
        open_bank()


def test_memory_for_fitting_is_bounded_without_changing_anything(
    open_bank: OpenBank,
    tiny_backbone: PipelineBackbone,
    wanted: Wanted,
    development: DevelopmentSet,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together, parts = open_bank(), open_bank(folder="other")
    together.fill(tiny_backbone, wanted)
    passes = []
    capture = tiny_backbone.capture
    monkeypatch.setattr(
        tiny_backbone,
        "capture",
        lambda images, wanted, **rest: passes.append(wanted) or capture(images, wanted, **rest),
    )
    monkeypatch.setattr(bank_module, "_FIT_MEMORY", 1)  # every candidate by itself
    parts.fill(tiny_backbone, wanted)
    candidates = [Candidate("main", entry.name, t) for t, entries in wanted.items() for entry in entries]
    assert sum(sum(map(len, group.values())) == 1 for group in passes) >= len(candidates)
    assert parts.passes(wanted) == 4 * 4 + (len(development.samples) - 4) * 2
    monkeypatch.setattr(bank_module, "_FIT_MEMORY", 4 * 16 * 4 * sum(entry.channels for entry in wanted[50]))
    assert parts.passes(wanted) == len(development.samples) * 2  # a timestep is not split where it fits
    for candidate in candidates:
        assert np.array_equal(together[candidate].features, parts[candidate].features), candidate


def test_pooled_entries_are_means_over_points(
    open_bank: OpenBank, tiny_backbone: PipelineBackbone, wanted: Wanted, development: DevelopmentSet, tmp_path: Path
) -> None:
    whole = open_bank()
    whole.fill(tiny_backbone, wanted)
    means = Bank(
        tmp_path / "pooled",
        replace(development, pooled=True),
        SPECIFICATION,
        noise_seed=0,
        batch_size=3,
        progress=False,
    )
    means.fill(tiny_backbone, wanted)
    candidate = Candidate("main", NAMES[0], 50)
    assert means[candidate].features.shape[:2] == (len(development.samples), 1)
    expected = np.asarray(whole[candidate].features, np.float32).mean(1, keepdims=True)
    assert np.allclose(means[candidate].features, expected, atol=2e-3)
    assert means.estimate(wanted) * development.points.shape[1] == whole.estimate(wanted)
