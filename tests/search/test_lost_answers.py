"""A connection that breaks after the server has done what was asked, before it could say so: nothing is done twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session
from support import planted
from support.planted import SyntheticProbe

from diffsift.errors import StudyError
from diffsift.spaces import Selection
from diffsift.tracking import ClaimStatus, Evaluation, Ledger, open_database, retried
from diffsift.tracking import _database as database
from diffsift.tracking import _retry as retry


class LostConnectionError(Exception):
    """As psycopg's: without a state, since the server could not send one."""

    sqlstate = None


def lost() -> OperationalError:
    return OperationalError("COMMIT", {}, LostConnectionError("server closed the connection unexpectedly"))


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "_PAUSES", (0.0,))


@pytest.fixture
def lose_answers(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes some of the following transactions of claims lose their answer after the commit."""
    left = 0

    @contextmanager
    def losing(engine: Engine) -> Iterator[Session]:
        nonlocal left
        with database.transaction(engine) as session:
            yield session
        if left:
            left -= 1
            raise StudyError("study database failed") from lost()

    def lose(count: int) -> None:
        nonlocal left
        left = count

    monkeypatch.setattr("diffsift.tracking.claims.transaction", losing)
    return lose


@pytest.fixture
def url(tmp_path: Path) -> str:
    planted.store(f"sqlite:///{tmp_path / 'studies.db'}")
    return f"sqlite:///{tmp_path / 'studies.db'}"


def test_a_claim_whose_answer_was_lost_is_held_and_completed_once(
    url: str, lose_answers: Callable[[int], None]
) -> None:
    ledger = Ledger(open_database(url), lambda _: None)
    selection = Selection.of([planted.pool()[0]])
    evaluation = Evaluation(selection, 0.5, (0.5,), 8, 0.1)
    with ledger.claims(planted.STUDY) as claims:
        lose_answers(1)
        assert claims.claim(selection, 1).status is ClaimStatus.GRANTED
        lose_answers(2)
        assert claims.complete(evaluation)
        assert not claims.complete(Evaluation(selection, 0.6, (0.6,), 8, 0.1))
    assert [entry.score for entry in ledger.evaluations(planted.STUDY)] == [0.5]


def test_a_trial_whose_answer_was_lost_is_written_once(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store, writes = planted.store(url), 0
    create = store._storage.create_new_trial

    def losing(*args: Any, **options: Any) -> int:
        nonlocal writes
        writes += 1
        number = create(*args, **options)
        if writes % 3 == 0:
            raise lost()
        return number

    monkeypatch.setattr(store._storage, "create_new_trial", losing)
    planted.search(store, SyntheticProbe(), 12)
    trials = planted.store(url).records()
    assert len(trials) == len({trial.selection for trial in trials}) == 12
    assert {trial.state for trial in store.finished_trials()} == {TrialState.COMPLETE}
    assert writes > 12 - 1


def test_only_a_lost_connection_is_tried_again() -> None:
    notes: list[str] = []
    tries = 0

    def fail(error: Exception) -> None:
        nonlocal tries
        tries += 1
        raise error

    full = OperationalError("INSERT", {}, type("DiskFull", (Exception,), {"sqlstate": "53100"})())
    for error in (full, OperationalError("INSERT", {}, Exception("locked")), StudyError("no such study"), ValueError()):
        tries = 0
        with pytest.raises(type(error)):
            retried(lambda error=error: fail(error), notes.append)  # type: ignore[misc]
        assert tries == 1
    assert notes == []


def test_the_user_is_told_once_that_it_is_tried_again_and_once_that_it_worked() -> None:
    notes: list[str] = []
    left = 3

    def answer() -> int:
        nonlocal left
        left -= 1
        if left:
            raise lost()
        return 7

    assert retried(answer, notes.append) == 7
    assert [note.partition(";")[0] for note in notes] == [
        "the study database does not answer",
        "the study database answers again",
    ]
    assert "server closed the connection" in notes[0]
