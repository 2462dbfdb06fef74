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
from diffsift.objectives.bank import _extraction as extraction_module
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


class Counted:
    """A backbone's passes: how many images ran at each timestep, and a moment to stop at."""

    def __init__(self, backbone: PipelineBackbone, monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> None:
        self.images: dict[int, int] = {}
        capture = backbone.capture

        def counted(images: list[Any], wanted: Wanted, **options: Any) -> Iterator[Any]:
            for timestep, maps in capture(images, wanted, **options):
                if sum(self.images.values()) == stop_at:
                    raise KeyboardInterrupt
                self.images[timestep] = self.images.get(timestep, 0) + len(images)
                yield timestep, maps

        monkeypatch.setattr(backbone, "capture", counted)


def part_of(development: DevelopmentSet, images: Sequence[int]) -> DevelopmentSet:
    """A data set of some of the images."""
    chosen = list(images)
    return replace(
        development,
        samples=[development.samples[image] for image in chosen],
        **{name: getattr(development, name)[chosen] for name in ("points", "labels", "weights", "fold", "training")},
        identity={"images": chosen},
    )


def features_of(bank: Bank, wanted: Wanted) -> dict[Candidate, np.ndarray]:
    candidates = [Candidate("main", entry.name, t) for t, activations in wanted.items() for entry in activations]
    return {candidate: np.asarray(bank[candidate].features) for candidate in candidates}


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


def flip_a_bit(file: Path, at: int = -3) -> None:
    content = bytearray(file.read_bytes())
    content[at] ^= 1
    file.write_bytes(content)


DAMAGES: dict[str, tuple[int, Callable[[Path], object]]] = {
    "a flipped bit": (1, lambda entry: flip_a_bit(entry / "features.bin")),
    "a flipped bit of a checksum": (1, lambda entry: flip_a_bit(entry / "features.index", 28 * 3 + 17)),
    "a flipped bit of a digest": (1, lambda entry: flip_a_bit(entry / "features.index", 28 * 3)),
    "cut short": (1, lambda entry: (entry / "features.bin").write_bytes((entry / "features.bin").read_bytes()[:-64])),
    "index cut short": (
        2,
        lambda entry: (entry / "features.index").write_bytes((entry / "features.index").read_bytes()[:-30]),
    ),
    "no features": (12, lambda entry: (entry / "features.bin").unlink()),
    "no index": (12, lambda entry: (entry / "features.index").unlink()),
    "broken statistics": (12, lambda entry: flip_a_bit(entry / "statistics.safetensors")),
    "no statistics": (12, lambda entry: (entry / "statistics.safetensors").unlink()),
    "broken description": (12, lambda entry: (entry / "entry.json").write_text("{")),
    "changed description": (
        12,
        lambda entry: (entry / "entry.json").write_text((entry / "entry.json").read_text().replace('"main', '"nain')),
    ),
    "no description": (12, lambda entry: (entry / "entry.json").unlink()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_only_damaged_records_are_rebuilt(
    open_bank: OpenBank,
    tiny_backbone: PipelineBackbone,
    wanted: Wanted,
    tmp_path: Path,
    damage: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = {50: wanted[50][:2]}
    first = open_bank(batch_size=1)
    first.fill(tiny_backbone, few)
    whole = features_of(first, few)
    images, do_damage = DAMAGES[damage]
    whole = {candidate: features.copy() for candidate, features in whole.items()}
    before = {file: file.read_bytes() for file in (tmp_path / "bank").glob("*/features.*")}
    do_damage(entries(tmp_path)[0])
    images = min(images, len(first.development.samples))
    again, counted = open_bank(batch_size=1), Counted(tiny_backbone, monkeypatch)
    assert again.passes("main", tiny_backbone.identity(), few) == images
    assert again.fill(tiny_backbone, few) == 1
    assert counted.images == {50: images}
    for candidate, features in features_of(again, few).items():
        assert np.array_equal(features, whole[candidate])
    assert {file: file.read_bytes() for file in (tmp_path / "bank").glob("*/features.*")} == before


def test_added_images_and_timesteps_alone_are_extracted(
    development: DevelopmentSet,
    tiny_backbone: PipelineBackbone,
    wanted: Wanted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def opened(images: Sequence[int]) -> Bank:
        return Bank(
            tmp_path / "bank",
            part_of(development, images),
            SPECIFICATION,
            noise_seed=0,
            batch_size=1,
            progress=False,
        )

    few, everything = {50: wanted[50]}, range(len(development.samples))
    small = opened(everything[1:6])
    small.fill(tiny_backbone, few)
    counted = Counted(tiny_backbone, monkeypatch)
    large = opened(everything)
    assert large.passes("main", tiny_backbone.identity(), few) == len(everything) - 5
    large.fill(tiny_backbone, few)
    assert counted.images == {50: len(everything) - 5}  # also where one comes before those that are there
    for candidate, features in features_of(large, few).items():
        assert np.array_equal(features[1:6], small[candidate].features)
        assert torch.equal(large[candidate].standardiser.mean, small[candidate].standardiser.mean)
        order = [3, 0, 6]  # a gather, as of a fold
        assert np.array_equal(large[candidate].features[np.array(order)], features[order])
    counted.images.clear()
    large.fill(tiny_backbone, wanted)
    assert counted.images == {300: len(everything)}
    counted.images.clear()
    back = opened(list(everything)[::-1])
    back.fill(tiny_backbone, wanted)
    assert counted.images == {}
    for candidate, features in features_of(back, wanted).items():
        assert np.array_equal(features[::-1], large[candidate].features)


def test_statistics_are_never_fit_on_images_outside_of_the_training_set(
    development: DevelopmentSet, tiny_backbone: PipelineBackbone, wanted: Wanted, tmp_path: Path
) -> None:
    few = {50: wanted[50][:1]}
    candidate = Candidate("main", NAMES[0], 50)

    def filled(chosen: DevelopmentSet) -> Bank:
        bank = Bank(tmp_path / "bank", chosen, SPECIFICATION, noise_seed=0, batch_size=4, progress=False)
        bank.fill(tiny_backbone, few)
        return bank

    first = filled(development)
    others = np.arange(len(development.samples)) >= 4  # the first images are for validation now
    second = filled(replace(development, training=others))
    assert not torch.equal(first[candidate].standardiser.mean, second[candidate].standardiser.mean)
    assert len(entries(tmp_path)) == 2
    again = filled(development)
    assert torch.equal(first[candidate].standardiser.mean, again[candidate].standardiser.mean)


def test_a_fit_on_far_fewer_images_is_not_taken(
    development: DevelopmentSet, tiny_backbone: PipelineBackbone, wanted: Wanted, tmp_path: Path
) -> None:
    for images in (1, len(development.samples)):  # a new fit would take four
        bank = Bank(
            tmp_path / "bank",
            part_of(development, range(images)),
            SPECIFICATION,
            noise_seed=0,
            batch_size=4,
            progress=False,
        )
        assert bank.fill(tiny_backbone, {50: wanted[50][:1]}) == 1
    assert len(entries(tmp_path)) == 2


@pytest.mark.parametrize("stop_at", [0, 1, 3, 4, 5, 9])
def test_an_interrupted_fill_goes_on_where_it_stopped(
    open_bank: OpenBank,
    tiny_backbone: PipelineBackbone,
    wanted: Wanted,
    development: DevelopmentSet,
    stop_at: int,
) -> None:
    whole = open_bank(folder="whole", batch_size=1)
    whole.fill(tiny_backbone, wanted)
    with pytest.MonkeyPatch.context() as patch:
        stopped = Counted(tiny_backbone, patch, stop_at)
        with pytest.raises(KeyboardInterrupt):
            open_bank(batch_size=1).fill(tiny_backbone, wanted)
    again = open_bank(batch_size=1)
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(tiny_backbone, patch)
        left = again.passes("main", tiny_backbone.identity(), wanted)
        assert again.fill(tiny_backbone, wanted) == 4
    assert sum(stopped.images.values()) == stop_at
    assert left == sum(counted.images.values()) == 2 * len(development.samples) - stop_at
    for candidate, features in features_of(again, wanted).items():
        assert np.array_equal(features, whole[candidate].features), candidate


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
            noise_seed=0,
            batch_size=1,
            progress=False,
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
    assert bank.fill(pixels, {0: list(pixels.declared)}) == 1
    assert bank[Candidate("pixels", "pixels-5x5", 0)].standardiser.raw_channels == 75


def test_a_folder_that_cannot_be_made_is_refused(open_bank: OpenBank, tmp_path: Path) -> None:
    (tmp_path / "bank").write_text("a file")
    with pytest.raises(BankError, match="bank cannot be made"):
        open_bank()


def test_raw_features_on_disk_are_bounded_without_changing_anything(
    open_bank: OpenBank,
    tiny_backbone: PipelineBackbone,
    wanted: Wanted,
    development: DevelopmentSet,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    together, parts = open_bank(), open_bank(folder="other")
    together.fill(tiny_backbone, wanted)
    identity, runs = tiny_backbone.identity(), len(development.samples)
    monkeypatch.setattr(extraction_module, "_FIT_DISK", 1)  # every candidate by itself
    assert parts.passes("main", identity, wanted) == 4 * 4 + (runs - 4) * 2
    counted = Counted(tiny_backbone, monkeypatch)
    parts.fill(tiny_backbone, wanted)
    assert sum(counted.images.values()) == 4 * 4 + (runs - 4) * 2
    monkeypatch.setattr(extraction_module, "_FIT_DISK", 4 * 16 * 4 * sum(entry.channels for entry in wanted[50]))
    assert open_bank(folder="third").passes("main", identity, wanted) == runs * 2  # not split where it fits
    for candidate, features in features_of(parts, wanted).items():
        assert np.array_equal(together[candidate].features, features), candidate
    assert list(tmp_path.rglob("raw.*")) == []


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
        noise_seed=0,
        batch_size=3,
        progress=False,
    )
    means.fill(tiny_backbone, wanted)
    candidate = Candidate("main", NAMES[0], 50)
    assert means[candidate].features.shape[:2] == (len(development.samples), 1)
    expected = np.asarray(whole[candidate].features, np.float32).mean(1, keepdims=True)
    assert np.allclose(means[candidate].features, expected, atol=2e-3)
    saved = 2 * len(development.samples) * (development.points.shape[1] - 1) * (12 + 8 + 12 + 12)
    assert whole.estimate(wanted) - means.estimate(wanted) == saved
