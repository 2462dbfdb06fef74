"""A workspace with any name, and the databases that it remembers."""

from __future__ import annotations

from pathlib import Path

import pytest

from diffsift.common.workspace import Workspace, sqlite_url
from diffsift.errors import StudyError
from diffsift.study_store import StudyStore
from diffsift.tracking import Ledger, open_database

ODD = "50% done?mode=ro&x #1 'é' ü%41"


def test_any_folder_can_be_a_workspace(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path / ODD)
    with StudyStore(workspace) as store:
        store.ledger.create_study("horses", {}, {}, [])
    assert [file.relative_to(tmp_path).parts for file in tmp_path.rglob("studies.db")] == [(ODD, "studies.db")]
    assert [path.name for path in tmp_path.iterdir()] == [ODD]
    with StudyStore.existing(workspace) as store:
        assert [row.name for row in store.ledger.studies()] == ["horses"]


def test_a_workspace_remembers_the_database_of_a_study_without_its_password(tmp_path: Path) -> None:
    workspace = Workspace.at(tmp_path)
    workspace.remember_storage("horses", "postgresql://me:s3cret@host/studies")
    assert workspace.storage_of("horses") == "postgresql://me@host/studies"
    assert all(b"s3cret" not in file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert StudyStore.existing(tmp_path, study="horses").storage == "postgresql://me@host/studies"
    assert StudyStore.existing(tmp_path).storage == "postgresql://me@host/studies"
    workspace.remember_storage("horses", None)
    assert workspace.storages() == []
    with pytest.raises(StudyError, match="holds no studies"):
        StudyStore.existing(tmp_path, study="horses")


def test_what_is_named_counts_before_what_is_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = Workspace.at(tmp_path)
    workspace.remember_storage("horses", "postgresql://me@host/studies")
    monkeypatch.setenv("DIFFSIFT_STORAGE", "postgresql://me:s3cret@host/studies")
    assert StudyStore.existing(tmp_path, study="horses").url == "postgresql://me:s3cret@host/studies"
    named = sqlite_url(tmp_path / "other.db")
    assert StudyStore.existing(tmp_path, named, study="horses").url == named


def test_studies_of_the_workspace_and_of_other_databases_are_told_apart(tmp_path: Path) -> None:
    elsewhere = sqlite_url(tmp_path / "elsewhere.db")
    with StudyStore(tmp_path) as store:
        store.ledger.create_study("here", {}, {}, [])
    with Ledger(open_database(elsewhere)) as ledger:
        ledger.create_study("there", {}, {}, [])
    Workspace.at(tmp_path).remember_storage("there", elsewhere)
    assert StudyStore.existing(tmp_path, study="here").storage is None
    assert StudyStore.existing(tmp_path, study="there").storage == elsewhere
