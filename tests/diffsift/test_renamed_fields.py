"""Fields of older versions keep working under their old names, in specifications and in stored studies."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

from diffsift import load_specification
from diffsift.specification import Specification
from diffsift.study_store import StudyStore

OLD: dict[str, Any] = {
    "model": {"id": "a/b"},
    "data": {"kind": "digit-scenes"},
    "study": {"name": "s", "confirm": 4, "confirm_probe": "mlp"},
}


@pytest.mark.parametrize("source", ["file", "mapping"])
def test_old_names_work_and_are_noted(tmp_path: Path, source: str) -> None:
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(OLD), encoding="utf-8")
    specification = load_specification(file) if source == "file" else Specification.of(OLD)
    assert (specification.study.rerank, specification.study.rerank_probe) == (4, "mlp")
    assert specification.notes == (
        "study.confirm is now called study.rerank",
        "study.confirm_probe is now called study.rerank_probe",
    )


def test_new_names_are_not_noted() -> None:
    assert Specification.of({**OLD, "study": {"name": "s", "rerank": 4}}).notes == ()


def test_a_stored_study_keeps_its_old_fields(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "studies.db") as connection:
        connection.executescript((ROOT / "tests" / "assets" / "study_of_schema_2.sql").read_text(encoding="utf-8"))
    connection.close()
    with StudyStore.existing(tmp_path) as store:
        specification = store.specification("planted")
        store.refuse_other_identity(specification, {})
    assert (specification.study.rerank, specification.study.rerank_probe) == (4, "mlp")
