"""What workers start from: one bit that flips on the disk is noticed, wherever it is."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from support.banks import development_of

from diffsift.bank import DevelopmentSet
from diffsift.bank._snapshot import read_snapshot, write_snapshot
from diffsift.errors import BankError
from diffsift.spaces import Candidate

FOLDERS = {Candidate("main", "mid-vit-out", 50): "a" * 16, Candidate("main", "up-vit-out", 100): "b" * 16}


@pytest.fixture
def file(tiny_data: Path, tmp_path: Path) -> tuple[Path, DevelopmentSet]:
    path, development = tmp_path / "shared" / "study.safetensors", development_of(tiny_data)
    digests = [bytes([number] * 16) for number in range(len(development.samples))]
    write_snapshot(path, development, digests, FOLDERS)
    return path, development


def test_a_snapshot_reads_back_as_it_was_written(file: tuple[Path, DevelopmentSet]) -> None:
    path, development = file
    found = read_snapshot(path)
    assert found.folders == FOLDERS
    np.testing.assert_array_equal(found.development.weights, development.weights)
    np.testing.assert_array_equal(found.development.labels, development.labels)


def test_a_flipped_bit_is_noticed_in_any_byte(file: tuple[Path, DevelopmentSet]) -> None:
    path, _ = file
    content = path.read_bytes()
    rng = random.Random(0)
    for place in [*range(0, 400, 7), *(rng.randrange(len(content)) for _ in range(200))]:
        damaged = bytearray(content)
        damaged[place] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        with pytest.raises(BankError, match=r"cannot be used .*'diffsift resume' writes it again"):
            read_snapshot(path)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_a_file_that_was_cut_short_is_named(file: tuple[Path, DevelopmentSet], part: float) -> None:
    path, _ = file
    path.write_bytes(path.read_bytes()[: int(part * path.stat().st_size)])
    with pytest.raises(BankError, match=r"cannot be used .*'diffsift resume' writes it again"):
        read_snapshot(path)
