"""The final table with and without random weights, and where memory does not hold two networks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support import tiny

import diffsift
from diffsift.backbones import PipelineBackbone, cache
from diffsift.errors import BankError
from diffsift.runs.plan import Plan, plan


def searched(pipeline: Path, data: Path, folder: Path, **study: Any) -> dict[str, float]:
    """Scores of the final table by the row's name."""
    values = tiny.specification(pipeline, data, timesteps=[50], study={"trials": 2, **study})
    result = diffsift.select(values, workspace=folder / "workspace", out=folder / "selection.json")
    return {row.name: row.score for row in result.outcome.table}


def test_random_weights_may_be_left_out_and_be_made_in_place_of_the_model(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[bool] = []
    untrained, free = PipelineBackbone.untrained, PipelineBackbone.free_weights
    monkeypatch.setattr(
        PipelineBackbone, "untrained", lambda *args, **kw: (made.append(False), untrained(*args, **kw))[1]
    )
    without = searched(tiny_pipeline, tiny_data, tmp_path / "first", random_weights=False)
    assert "random weights" not in without
    assert made == []
    # It may change on resume, but does not open the test split again.
    assert searched(tiny_pipeline, tiny_data, tmp_path / "first") == without
    whole = searched(tiny_pipeline, tiny_data, tmp_path / "third")
    assert list(whole) == [*list(without)[:2], "random weights", *list(without)[2:]]
    assert {name: whole[name] for name in without} == without
    freed: list[str] = []
    monkeypatch.setattr(PipelineBackbone, "free_weights", lambda self: (freed.append(self.name), free(self))[1])
    monkeypatch.setattr(cache, "free_memory", lambda device: 0)
    assert searched(tiny_pipeline, tiny_data, tmp_path / "second") == pytest.approx(whole, abs=1e-6)
    assert freed == ["main"]


def test_what_is_left_out_costs_neither_time_nor_room(tiny_pipeline: Path, tiny_data: Path, tmp_path: Path) -> None:
    def planned(**study: Any) -> Plan:
        values = tiny.specification(tiny_pipeline, tiny_data, timesteps=[50], study=study, bank={"budget_gb": budget})
        return plan(diffsift.Specification.parse(values), workspace=tmp_path / "workspace")

    budget = 1.0
    control = "the same network with random weights"
    whole, less = ({part.name: part for part in planned(random_weights=with_it).parts} for with_it in (True, False))
    assert whole[control].memory > 0
    assert whole[control].fields.startswith("study.random_weights")
    assert control not in less
    budget = 1e-6
    with pytest.raises(BankError, match=r"the bank needs") as error:
        planned(random_weights=False)
    needs = float(re.search(r"needs ([0-9.]+) GB", str(error.value))[1])  # type: ignore[index]
    with pytest.raises(BankError, match=r"the bank needs") as error:
        planned()
    assert float(re.search(r"needs ([0-9.]+) GB", str(error.value))[1]) > needs  # type: ignore[index]
