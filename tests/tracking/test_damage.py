"""A study database that is damaged is named, and never taken for another or read as something else."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support import planted

from diffsift.errors import StudyError
from diffsift.tracking import ActivationDecision, Ledger, open_database

DAMAGED = "is damaged.*[Rr]estore"


@pytest.fixture
def file(stored: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(stored, tmp_path / "studies.db"))


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of eight trials, with one row in every table."""
    file = tmp_path_factory.mktemp("study") / "written.db"
    store = planted.store(f"sqlite:///{file}")
    planted.search(store, planted.SyntheticProbe(), 8)
    with Ledger(open_database(f"sqlite:///{file}")) as ledger:
        decision = ActivationDecision("mid-vit-out", "vit-out", "mid", None, 7, 128, 4, True, "kept")
        ledger.record_decisions(planted.STUDY, [decision])
        ledger.record_elimination(planted.STUDY, planted.space().repaired(dict.fromkeys(planted.pool()[:3], 1.0)), 9)
        ledger.open_test_split(planted.STUDY, ["found"])
        ledger.record_outcome(planted.STUDY, {"verdict": "better"})
        ledger.set_runtime(planted.STUDY, {"study": {"trials": 8}})
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("VACUUM INTO ?", [str(file.with_name("studies.db"))])
    return file.with_name("studies.db")


def read_all(file: Path) -> object:
    with Ledger(open_database(f"sqlite:///{file}")) as ledger:
        name = planted.STUDY
        row = ledger.study(name)
        facts = (ledger.evaluations(name), ledger.decisions(name), ledger.elimination(name), ledger.outcome(name))
        openings = [opening.rows for opening in ledger.openings(name)]
    return row, facts, openings, planted.store(f"sqlite:///{file}").records()


def change(file: Path, statement: str) -> None:
    with closing(sqlite3.connect(file)) as connection, connection:
        assert connection.execute(statement).rowcount > 0


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE diffsift_selection SET score = score + 1e-9 WHERE id = 3",
        "UPDATE diffsift_selection SET fold_scores = '[0.75]' WHERE id = 3",
        "UPDATE diffsift_selection SET selection = replace(selection, '1.0', '0.5') WHERE id = 3",
        "UPDATE diffsift_selection SET fold_scores = '[0.7' WHERE id = 3",
        'UPDATE diffsift_study SET pool = \'[["main", "mid", 50]]\'',
        'UPDATE diffsift_study SET runtime = \'{"study": {"trials": 9}}\'',
        "UPDATE diffsift_decision SET kept = 0",
        "UPDATE diffsift_elimination SET solves = 8",
        'UPDATE diffsift_outcome SET outcome = \'{"verdict": "worse"}\'',
        "UPDATE diffsift_opening SET row_names = '[]'",
        "UPDATE trials SET state = 'COMPLFTE' WHERE trial_id = 3",
        "UPDATE trial_user_attributes SET value_json = '{' WHERE trial_id = 3",
    ],
)
def test_a_value_that_changed_is_noticed(file: Path, statement: str) -> None:
    read_all(file)
    change(file, statement)
    with pytest.raises(StudyError, match=DAMAGED):
        read_all(file)


def test_a_score_that_is_another_in_optuna_is_noticed(file: Path) -> None:
    change(file, "UPDATE trial_values SET value = value + 1e-9 WHERE trial_id = 3")
    with pytest.raises(StudyError, match=r"trial 2 of study 'planted' must have the same values .* and in the ledger"):
        read_all(file)
    store = planted.store(f"sqlite:///{file}")
    with pytest.raises(StudyError, match="trial 2 of study 'planted'"):
        planted.search(store, planted.SyntheticProbe(), 10)


@pytest.mark.parametrize("size", [0, 1, 99])
def test_a_database_that_was_cut_short_is_not_taken_for_an_empty_one(file: Path, size: int) -> None:
    with file.open("r+b") as opened:
        opened.truncate(size)
    with pytest.raises(StudyError, match=f"but has {size} bytes: it was cut short"):
        open_database(f"sqlite:///{file}")
    assert file.stat().st_size == size


def test_a_database_that_was_cut_in_half_is_named(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(file.stat().st_size // 2)
    with pytest.raises(StudyError, match="is damaged"):
        read_all(file)


def test_a_damaged_page_is_named_before_a_search_goes_on(file: Path) -> None:
    """One bit of an index."""
    with closing(sqlite3.connect(file)) as connection:
        query = "SELECT rootpage FROM sqlite_master WHERE name = 'diffsift_selection_score'"
        (page,) = connection.execute(query).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(file.read_bytes())
    content[page * size - 3] ^= 1  # entries lie at the end of a page
    file.write_bytes(content)
    with Ledger(open_database(f"sqlite:///{file}")) as ledger, pytest.raises(StudyError, match=DAMAGED):
        ledger.require_sound()


def test_a_sound_database_is_said_to_be_sound(file: Path) -> None:
    with Ledger(open_database(f"sqlite:///{file}")) as ledger:
        ledger.require_sound()


def test_a_database_appears_with_all_its_tables_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    file = tmp_path / "studies.db"
    with monkeypatch.context() as patch:
        patch.setattr("diffsift.tracking._tables.VersionTable.__init__", killed)
        with pytest.raises(KeyboardInterrupt):
            open_database(f"sqlite:///{file}")
    assert not file.exists()
    open_database(f"sqlite:///{file}").dispose()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["studies.db", "studies.db.lock"]
