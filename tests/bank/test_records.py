"""Records of the bank: damage, added images, fits that are frozen, and fills that were interrupted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from support.banks import NAMES, Counted, Wanted, bank_of, development_of, features_of, part_of, wanted_of

from diffsift.backbones import PipelineBackbone
from diffsift.bank import Bank, DevelopmentSet
from diffsift.spaces import Candidate


@pytest.fixture(scope="module")
def development(tiny_data: Path) -> DevelopmentSet:
    return development_of(tiny_data)


@pytest.fixture
def open_bank(development: DevelopmentSet, tmp_path: Path) -> Callable[..., Bank]:
    def opened(*, folder: str = "bank", **options: object) -> Bank:
        return bank_of(tmp_path / folder, development, **options)

    return opened


@pytest.fixture
def wanted(tiny_backbone: PipelineBackbone) -> Wanted:
    return wanted_of(tiny_backbone)


OpenBank = Callable[..., Bank]


def entries(tmp_path: Path) -> list[Path]:
    return sorted((tmp_path / "bank").iterdir())


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
        return bank_of(tmp_path / "bank", part_of(development, images), batch_size=1)

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
        bank = bank_of(tmp_path / "bank", chosen, batch_size=4)
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
        bank = bank_of(tmp_path / "bank", part_of(development, range(images)), batch_size=4)
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
