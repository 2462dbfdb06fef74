"""Raw features between pass and fit: what half the bytes keep, and how little a bank of a large network runs."""

from __future__ import annotations

import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.banks import Counted, Wanted, bank_of, development_of, features_of, part_of, wanted_of
from torch import Tensor

from diffsift.backbones import Activation, PipelineBackbone
from diffsift.bank import Bank, BankSpecification, DevelopmentSet
from diffsift.bank import _raw as raw_module
from diffsift.bank._extraction import fit_groups
from diffsift.bank._raw import RawFeatures, raw_bytes
from diffsift.common.context import RunContext
from diffsift.errors import BankError
from diffsift.spaces import Candidate

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def development(tiny_data: Path) -> DevelopmentSet:
    return development_of(tiny_data)


@pytest.fixture
def wanted(tiny_backbone: PipelineBackbone) -> Wanted:
    return wanted_of(tiny_backbone)


def free_disk(monkeypatch: pytest.MonkeyPatch, free: float) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(int(free), 0, int(free)))


def stored(folder: Path, raw: Tensor) -> Tensor:
    images, points, channels = raw.shape
    digests = [bytes([image + 1] * 16) for image in range(images)]
    folder.mkdir(exist_ok=True)
    records = RawFeatures(folder, points, channels)
    records.write(digests, range(images), raw)
    assert records.whole(digests).all()
    assert (folder / "raw.bin").stat().st_size == raw_bytes(images, points, channels)
    return RawFeatures(folder, points, channels).read(digests)


def test_up_to_1280_channels_are_stored_as_they_are(tmp_path: Path) -> None:
    raw = torch.randn(3, 5, 1280)
    assert torch.equal(stored(tmp_path / "raw", raw), raw)
    assert raw_bytes(3, 5, 1280) == 3 * 5 * 1280 * 4
    assert raw_bytes(60, 64, 9728) < 0.54 * 60 * 64 * 9728 * 4


@pytest.mark.parametrize("size", [1e-20, 1.0, 1e5, 1e30])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_half_the_bytes_keep_what_varies(size: float, offset: float, tmp_path: Path) -> None:
    """Beyond the range of float16, far from 0, and beside a value that is 10,000 times as large."""
    raw = torch.randn(4, 64, 1300, generator=torch.Generator().manual_seed(0))
    raw[1, 7] *= 1e4
    raw[2, :, 5] = 3.0
    raw = (raw + offset) * size
    error = stored(tmp_path / "raw", raw) - raw
    distance = raw - raw.mean(1, keepdim=True)
    rounding = 2e-7 * (raw.abs() + raw.abs().amax(1, keepdim=True))
    assert bool((error.abs() <= distance.abs() / 2000 + rounding).all())
    assert float(error[0].std() / raw[0].std()) < 5e-4


def test_values_that_are_not_finite_stay_what_they_are(tmp_path: Path) -> None:
    raw = torch.randn(3, 8, 1300) * 1e5
    raw[0, 1, 2], raw[0, 2, 2], raw[1, 3, 4] = torch.nan, torch.inf, -torch.inf
    raw[2, :, 9] = torch.nan
    raw[2, :, 10] = torch.inf
    found = stored(tmp_path / "raw", raw)
    assert torch.equal(torch.isfinite(found), torch.isfinite(raw))
    assert found[1, 3, 4] == -torch.inf
    finite = torch.isfinite(raw)
    assert torch.allclose(found[finite], raw[finite], rtol=1e-3, atol=200)


def test_wide_entries_are_as_those_of_whole_raw_features(
    development: DevelopmentSet,
    tiny_backbone: PipelineBackbone,
    wanted: Wanted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    exact = bank_of(tmp_path / "exact", development, batch_size=1)
    exact.fill(tiny_backbone, wanted)
    monkeypatch.setattr(raw_module, "_PLAIN", 1)
    with pytest.MonkeyPatch.context() as patch:
        Counted(tiny_backbone, patch, stop_at=3)
        with pytest.raises(KeyboardInterrupt):
            bank_of(tmp_path / "halved", development, batch_size=1).fill(tiny_backbone, wanted)
    halved, counted = bank_of(tmp_path / "halved", development, batch_size=1), Counted(tiny_backbone, monkeypatch)
    halved.fill(tiny_backbone, wanted)
    assert sum(counted.images.values()) == 2 * len(development.samples) - 3
    for candidate in features_of(halved, wanted):
        a, b = exact[candidate].standardiser, halved[candidate].standardiser
        assert torch.allclose(a.mean, b.mean, atol=1e-3 / float(a.scale.min()))
        assert not torch.equal(a.mean, b.mean)
        assert torch.allclose(a.scale, b.scale, rtol=1e-2)


def test_a_wide_candidate_with_values_that_are_not_finite_is_rejected(
    development: DevelopmentSet,
    tiny_backbone: PipelineBackbone,
    wanted: Wanted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(raw_module, "_PLAIN", 1)
    few, capture = {50: wanted[50][:2]}, tiny_backbone.capture
    bad, good = (Candidate("main", entry.name, 50) for entry in few[50])

    def broken(*images: Any, **options: Any) -> Any:
        for timestep, maps in capture(*images, **options):
            maps = {name: value.clone() for name, value in maps.items()}
            if bad.activation in maps:  # not once it is rejected
                maps[bad.activation][:, 0] = torch.inf
            yield timestep, maps

    monkeypatch.setattr(tiny_backbone, "capture", broken)
    bank = bank_of(tmp_path, development)
    bank.fill(tiny_backbone, few)
    assert (bad in bank.rejected, good in bank) == (True, True)
    share = 1 / few[50][0].channels
    assert f"not finite (NaN or infinite) in {share:.2%}" in bank.rejected[bad]


def test_timesteps_are_fit_one_by_one_where_the_disk_is_small(
    development: DevelopmentSet,
    tiny_backbone: PipelineBackbone,
    wanted: Wanted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    together, parts = (bank_of(tmp_path / name, development) for name in ("together", "parts"))
    together.fill(tiny_backbone, wanted)
    identity, runs = tiny_backbone.identity(), len(development.samples)
    pending = parts._pending("main", identity, wanted)
    assert all(entry.inspect() is None for entry in pending)
    raw = {t: 4 * 16 * 4 * sum(entry.channels for entry in wanted[t]) for t in wanted}
    assert [len(group) for group in fit_groups(pending, sum(raw.values()))] == [4]
    assert [len(group) for group in fit_groups(pending, sum(raw.values()) - 1)] == [3, 1]
    assert [len(group) for group in fit_groups(pending, 0)] == [3, 1]  # a timestep is never divided
    free_disk(monkeypatch, parts.estimate(wanted) + raw[50])
    counted = Counted(tiny_backbone, monkeypatch)
    assert parts.passes("main", identity, wanted) == 2 * runs
    parts.fill(tiny_backbone, wanted)
    assert counted.images == {50: runs, 300: runs}
    for candidate, features in features_of(parts, wanted).items():
        assert np.array_equal(together[candidate].features, features), candidate
    assert list(tmp_path.rglob("raw.*")) == []


def test_a_disk_too_small_for_a_timestep_is_refused_before_a_pass(
    development: DevelopmentSet,
    tiny_backbone: PipelineBackbone,
    wanted: Wanted,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    bank, counted = bank_of(tmp_path / "bank", development), Counted(tiny_backbone, monkeypatch)
    raw = 4 * 16 * 4 * sum(entry.channels for entry in wanted[50])
    free_disk(monkeypatch, bank.estimate(wanted) + raw - 4096)
    with pytest.raises(
        BankError, match=r"MB of it while the statistics of a timestep are fit, .* lower .* or bank\.fit_images"
    ):
        bank.fill(tiny_backbone, wanted)
    assert counted.images == {}


def test_images_and_activations_added_together_run_once(
    development: DevelopmentSet, tiny_backbone: PipelineBackbone, wanted: Wanted, tmp_path: Path
) -> None:
    """Where statistics of new entries are fit, old ones take what they lack."""
    images = len(development.samples)
    first = bank_of(tmp_path, part_of(development, range(4)), batch_size=1)
    first.fill(tiny_backbone, {50: wanted[50][:1]})
    again, few = bank_of(tmp_path, development, batch_size=1), {50: wanted[50][:2]}
    fresh = set(again._images.positions(again._images.fresh_fit))
    assert fresh - set(range(4)), "an image to fit on must be new"
    with pytest.MonkeyPatch.context() as patch:
        counted = Counted(tiny_backbone, patch)
        assert again.passes("main", tiny_backbone.identity(), few) == images
        again.fill(tiny_backbone, few)
    assert counted.images == {50: images}
    whole = bank_of(tmp_path / "whole", development, batch_size=1)
    whole.fill(tiny_backbone, few)
    new = Candidate("main", wanted[50][1].name, 50)
    assert np.array_equal(whole[new].features, again[new].features)
    old = Candidate("main", wanted[50][0].name, 50)
    assert np.array_equal(again[old].features[:4], first[old].features)
    assert bool(np.isfinite(again[old].features[:]).all())


WIDTHS = {
    "SDXL": {320: 12, 640: 24, 1280: 55},
    "Flux": {3072: 171, 9216: 57, 12288: 57},
    "SD 3.5-L": {2432: 190, 9728: 75},
}


@pytest.mark.parametrize("name", WIDTHS)
@pytest.mark.parametrize("images", [60, 300])
def test_large_networks_run_once_for_each_image_and_timestep(
    name: str, images: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    channels = [width for width, count in WIDTHS[name].items() for _ in range(count)]
    pool = [
        Activation(f"a{n}", "ffn-inner", "blocks", None, n, c, 1, "tokens", f"m{n}") for n, c in enumerate(channels)
    ]
    wanted: Wanted = dict.fromkeys((50, 150, 250, 350, 450), pool)
    bank = Bank(tmp_path, _declared(images), BankSpecification(), RunContext(batch_size=1))
    assert bank.passes("main", {}, wanted) == images * 5
    pending = bank._pending("main", {}, wanted)
    assert all(entry.inspect() is None for entry in pending)
    raw = _raw_of_a_timestep(channels, min(images, 64))
    for timesteps in (1, 2, 5):
        assert len(fit_groups(pending, raw * timesteps)) == -(-5 // timesteps)
    free_disk(monkeypatch, bank.estimate(wanted) + 1.001 * raw)
    bank._check_space(pending)
    free_disk(monkeypatch, bank.estimate(wanted) + 0.999 * raw)
    with pytest.raises(BankError, match=f"{raw / 1e9:.1f} GB of it while"):
        bank._check_space(pending)


def _declared(images: int) -> DevelopmentSet:
    return DevelopmentSet(
        samples=[None] * images,  # type: ignore[arg-type]
        points=np.zeros((images, 64, 2), np.float32),
        labels=np.zeros((images, 64), np.uint8),
        weights=np.ones((images, 64), np.float32),
        fold=np.zeros(images, np.int64),
        training=np.ones(images, bool),
        groups=tuple(map(str, range(images))),
        class_names=(),
        identity={},
        digests=tuple(bytes([image % 255 + 1, image // 255 + 1] * 8) for image in range(images)),
    )


def _raw_of_a_timestep(channels: list[int], images: int) -> int:
    return sum(images * width * (64 * 4 if width <= 1280 else 68 * 2) for width in channels)
