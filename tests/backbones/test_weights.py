"""Digests of weights: once for each network, remembered by its files, and never another than that of the weights."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from support import tiny
from torch import nn

from diffsift import select
from diffsift.backbones import DigestCache, ModelSpecification, _untrained, digest_of, load, weights


@pytest.fixture
def folder(tiny_pipeline: Path, tmp_path: Path) -> Path:
    """A copy of the tiny pipeline that a test may change."""
    return Path(shutil.copytree(tiny_pipeline, tmp_path / "model"))


@contextmanager
def hashed() -> Iterator[list[str]]:
    """Class names of the networks that are hashed inside, one entry for each time."""
    networks: list[str] = []

    def counted(*modules: nn.Module) -> str:
        networks.extend(type(module).__name__ for module in modules)
        return digest_of(*modules)

    with (
        mock.patch.object(weights, "digest_of", counted),
        mock.patch("diffsift.backbones._loading.digest_of", counted),
        mock.patch.object(_untrained, "digest_of", counted),
        mock.patch.dict(_untrained._DIGESTS, clear=True),
    ):
        yield networks


def identity(folder: Path, digests: DigestCache, **fields: Any) -> dict[str, Any]:
    return load(ModelSpecification(id=str(folder), device="cpu", **fields), digests=digests).identity()


def test_a_second_load_hashes_nothing_and_has_the_same_identity(folder: Path, tmp_path: Path) -> None:
    plain = load(ModelSpecification(id=str(folder), device="cpu")).identity()
    file = tmp_path / "workspace" / "weights.json"
    with hashed() as networks:
        assert identity(folder, DigestCache(file)) == plain
        assert sorted(networks) == ["AutoencoderKL", "CLIPTextModel", "UNet2DConditionModel"]
        networks.clear()
        assert identity(folder, DigestCache(file)) == plain
        assert networks == []
        moved = Path(shutil.copytree(folder, tmp_path / "moved"))
        assert identity(moved, DigestCache(file)) == plain
        assert len(networks) == 3


def test_another_type_or_file_is_hashed_again(folder: Path, tmp_path: Path) -> None:
    digests = DigestCache(tmp_path / "weights.json")
    before = identity(folder, digests)
    half = identity(folder, digests, dtype="float16")
    assert half["denoiser"] != before["denoiser"]
    assert half == load(ModelSpecification(id=str(folder), device="cpu", dtype="float16")).identity()
    file = next((folder / "unet").glob("*.safetensors"))
    with hashed() as networks:
        os.utime(file, ns=(0, 0))
        assert identity(folder, digests) == before
        assert networks == ["UNet2DConditionModel"]


def test_untrained_networks_are_never_taken_for_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    backbone = load(ModelSpecification(id=str(folder), device="cpu"), digests=DigestCache(tmp_path / "weights.json"))
    untrained = backbone.untrained(name="random")
    assert untrained.identity()["denoiser"] == digest_of(untrained.denoiser) != backbone.identity()["denoiser"]


def test_a_damaged_or_unwritable_cache_is_no_more_than_a_loss_of_time(folder: Path, tmp_path: Path) -> None:
    plain = identity(folder, DigestCache())
    damaged = tmp_path / "weights.json"
    damaged.write_text("{")
    assert identity(folder, DigestCache(damaged)) == plain
    whole = damaged.read_text()
    damaged.write_text(whole.replace(plain["denoiser"], "0" * len(plain["denoiser"])))
    assert damaged.read_text() != whole
    assert identity(folder, DigestCache(damaged)) == plain
    assert identity(folder, DigestCache(tmp_path / "weights.json" / "below a file")) == plain


def test_a_search_hashes_each_network_once_and_the_next_one_only_what_has_no_file(
    folder: Path, tiny_data: Path, tmp_path: Path
) -> None:
    def search(name: str) -> None:
        values = tiny.specification(folder, tiny_data, timesteps=[50], study={"name": name, "trials": 2})
        select(values, out=tmp_path / f"{name}.json")

    with hashed() as networks:
        search("first")
        trained_and_random = ["UNet2DConditionModel"] * 2
        assert sorted(networks) == ["AutoencoderKL", "CLIPTextModel", *trained_and_random]
        networks.clear()
        _untrained._DIGESTS.clear()  # as in another process
        search("second")
        assert networks == ["UNet2DConditionModel"]


def test_a_backbone_hashes_its_weights_once(folder: Path) -> None:
    model = ModelSpecification(id=str(folder), device="cpu")
    with hashed() as networks:
        first = load(model)
        assert first.identity() == first.identity()
        assert sorted(networks) == ["AutoencoderKL", "CLIPTextModel", "UNet2DConditionModel"]
