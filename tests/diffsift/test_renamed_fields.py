"""Fields of older versions keep working under their old names, in specifications and in stored studies."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT
from support.commands import done, refused

from diffsift import load_specification
from diffsift.errors import SpecificationError
from diffsift.specification import Specification
from diffsift.study_store import StudyStore

OLD: dict[str, Any] = {
    "model": {"id": "a/b"},
    "data": {"kind": "rendered-scenes"},
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


OLD_DATA = '{"kind": "digit-scenes", "train": 60, "validation": 60, "test": 30, "seed": 0, "detail": 3}'


def old_study(folder: Path, data: str | None = None) -> None:
    """A workspace of schema 2 with the study ``planted``, made on data that there were then."""
    script = (ROOT / "tests" / "assets" / "study_of_schema_2.sql").read_text(encoding="utf-8")
    if data is not None:
        script = script.replace(OLD_DATA, data)
    with sqlite3.connect(folder / "studies.db") as connection:
        connection.executescript(script)
    connection.close()


def test_a_stored_study_keeps_its_old_fields(tmp_path: Path) -> None:
    old_study(
        tmp_path,
        OLD_DATA.replace("digit-scenes", "rendered-scenes").replace(
            '"detail": 3', '"size": 32, "difficulty": "medium"'
        ),
    )
    with StudyStore.existing(tmp_path) as store:
        specification = store.specification("planted")
        store.refuse_other_identity(specification, {})
    assert (specification.study.rerank, specification.study.rerank_probe) == (4, "mlp")


def test_a_study_on_data_that_were_removed_can_be_read_but_not_continued(tmp_path: Path) -> None:
    old_study(tmp_path)
    with StudyStore.existing(tmp_path) as store, pytest.raises(SpecificationError, match="install the version that"):
        store.specification("planted")
    assert "planted" in done("status", "--workspace", tmp_path)
    assert "install the version that made it" in refused("resume", "planted", "--workspace", tmp_path)
