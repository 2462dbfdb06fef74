"""A bank of a network with very wide activations takes little memory beyond a pass."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import tiny, wide
from support.allocations import counted
from support.banks import bank_of, development_of
from support.tiny_pipelines import backbone_of

from diffsift.bank import BankSpecification
from diffsift.bank._extraction import record_groups


def test_a_wide_model_takes_hardly_more_than_its_own_pass(tiny_data: Path, tmp_path: Path) -> None:
    """9,728 channels of 4,096 locations: 80 MB a map, of which a pass alone holds two."""
    backbone = backbone_of(wide.pipeline())
    pool = [entry for entry in backbone.activations() if not entry.unreadable]
    assert max(entry.channels for entry in pool) == wide.CHANNELS
    bank = bank_of(tmp_path, development_of(tiny_data), batch_size=2)
    images = len(bank.development.samples)
    assert images > 4  # both stages: statistics are fit on four
    with counted() as found:
        assert bank.fill(backbone, {9: pool, 20: pool[:4]}) == len(pool) + 4
    # Of two images together, no copy of any map.
    assert found.largest <= 2 * wide.MAP_BYTES
    assert found.peak < 500_000_000
    assert not bank.rejected


def test_projections_of_many_timesteps_are_not_held_together(
    tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = backbone_of(tiny.pipeline())
    pool = [entry for entry in backbone.activations() if not entry.unreadable][:3]
    limit = BankSpecification(pixels_per_image=16, max_channels=4, fit_images=4)
    bank = bank_of(tmp_path, development_of(tiny_data, limit))
    pending = bank._pending("main", backbone.identity(), dict.fromkeys((50, 150, 300), pool))
    one = sum(4 * entry.channels * 4 for entry in pool if entry.channels > 4)
    monkeypatch.setattr("diffsift.bank._extraction._PROJECTION_MEMORY", 2 * one)
    assert [len(group) for group in record_groups(pending, 4)] == [6, 3]
    monkeypatch.setattr("diffsift.bank._extraction._PROJECTION_MEMORY", 0)
    assert [len(group) for group in record_groups(pending, 4)] == [3, 3, 3]
    assert record_groups([], 4) == []
