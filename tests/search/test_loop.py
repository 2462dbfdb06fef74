"""The search loop: distinct selections, resuming, and being stopped or killed at any point of a trial."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import optuna
import pytest
from optuna.trial import TrialState
from support import ROOT, planted
from support.mlflow_store import stored_scores
from support.planted import SyntheticProbe
from support.reporters import Recorder

from diffsift.errors import StudyError
from diffsift.search import TrialStore

SAMPLERS = ("sift", "tpe", "nsga2", "random")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def states(url: str) -> dict[TrialState, int]:
    trials = optuna.load_study(study_name=planted.STUDY, storage=url).get_trials(deepcopy=False)
    return {state: sum(trial.state == state for trial in trials) for state in TrialState}


def distinct(study: TrialStore) -> int:
    return len({record.selection for record in study.records()})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_exactly_the_asked_number_of_distinct_selections(url: str, sampler: str) -> None:
    study, probe = planted.store(url, sampler=sampler), SyntheticProbe()
    planted.search(study, probe, 25)
    assert distinct(study) == 25
    assert states(url)[TrialState.RUNNING] == 0
    assert len({record.uid for record in study.records()}) == len(study.records())
    planted.search(study, probe, 25)
    assert len(probe.scored) == 25


@pytest.mark.parametrize(("frozen", "calls"), [(0, ["collect", "freeze", "unfreeze"]), (9, [])])
def test_objects_are_frozen_unless_the_program_did_so_itself(
    url: str, monkeypatch: pytest.MonkeyPatch, frozen: int, calls: list[str]
) -> None:
    made: list[str] = []
    names = ("collect", "freeze", "unfreeze")
    collector = {name: partial(made.append, name) for name in names} | {"get_freeze_count": lambda: frozen}
    monkeypatch.setattr("diffsift.search.loop.gc", SimpleNamespace(**collector))
    planted.search(planted.store(url, sampler="random"), SyntheticProbe(), 1)
    assert made == calls


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_selection_met_again_is_not_scored_again(url: str, sampler: str) -> None:
    study, probe = planted.store(url, sampler=sampler, pool=4, activations=1), SyntheticProbe()
    planted.search(study, probe, 4)
    records = study.records()
    assert len(records) > distinct(study) == 4
    assert len(probe.scored) == 4
    by_selection = {record.selection: record.score for record in records}
    assert all(by_selection[record.selection] == record.score for record in records)


def test_a_pool_that_is_used_up_ends_the_search(url: str) -> None:
    study = planted.store(url, sampler="sift", pool=3, activations=1)
    recorder = Recorder()
    planted.search(study, SyntheticProbe(), 10, reporter=recorder)
    (line,) = recorder.lines
    assert "ends after 3 distinct selections: the sift sampler proposed no new one" in line
    assert distinct(study) == 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_resuming_goes_on_and_repeats_nothing(url: str, sampler: str) -> None:
    planted.search(planted.store(url, sampler=sampler), SyntheticProbe(), 10)
    again, probe = planted.store(url, sampler=sampler), SyntheticProbe()
    before = [record.selection for record in again.records()]
    planted.search(again, probe, 20)
    assert distinct(again) == 20
    assert len(probe.scored) == 10
    assert set(probe.scored).isdisjoint(before)
    assert [record.selection for record in again.records()][: len(before)] == before


def test_an_interrupted_sift_search_goes_on_as_if_it_had_not_been(url: str, tmp_path: Path) -> None:
    for trials in (7, 30):
        planted.search(planted.store(url), SyntheticProbe(), trials)
    through = planted.store(f"sqlite:///{tmp_path / 'other.db'}")
    planted.search(through, SyntheticProbe(), 30)
    resumed = planted.store(url)
    assert [r.selection for r in resumed.records()] == [r.selection for r in through.records()]
    assert resumed.best().selection == through.best().selection


class _StopsAtFifth(SyntheticProbe):
    def score(self, selection):  # type: ignore[no-untyped-def]
        if len(self.scored) == 4:
            raise KeyboardInterrupt
        return super().score(selection)


def stop_at(step: str, count: int) -> Callable[[str], None]:
    passed: list[str] = []

    def after_step(now: str) -> None:
        passed.append(now)
        if passed.count(step) == count:
            raise KeyboardInterrupt

    return after_step


def test_ctrl_c_while_scoring_leaves_none_running(url: str) -> None:
    study = planted.store(url)
    with pytest.raises(KeyboardInterrupt):
        planted.search(study, _StopsAtFifth(), 20)
    assert states(url) == {state: 4 if state is TrialState.COMPLETE else 0 for state in TrialState}
    assert distinct(study) == 4


@pytest.mark.parametrize(("step", "finished"), [("scored", 4), ("recorded", 5)])
def test_ctrl_c_within_a_trial_loses_no_more_than_it(url: str, step: str, finished: int) -> None:
    study = planted.store(url)
    with pytest.raises(KeyboardInterrupt):
        planted.search(study, SyntheticProbe(), 20, after_step=stop_at(step, 5))
    assert states(url)[TrialState.RUNNING] == 0
    assert distinct(study) == finished
    again, probe = planted.store(url), SyntheticProbe()
    planted.search(again, probe, 12)
    assert distinct(again) == 12
    assert len(probe.scored) == 12 - 5  # what was scored is in the ledger, even where its trial is lost


# One process that loads the libraries and opens nothing; each of its children searches until it kills itself.
KILLED = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from support import planted

def search_until(step, count):
    passed = []
    def after_step(now):
        passed.append(now)
        if passed.count(step) == count:
            os.kill(os.getpid(), signal.SIGKILL)
    study, log = planted.logged_store(sys.argv[2])
    planted.search(study, planted.SyntheticProbe(), 40, logger=log, after_step=after_step)

for step, count in (("scored", 6), ("recorded", 5), ("logged", 4)):
    child = os.fork()
    if child == 0:
        search_until(step, count)
        os._exit(0)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
"""


def test_a_killed_search_resumes_whole(tmp_path: Path) -> None:
    """Killed in turn between score and commit, between commit and MLflow, and after MLflow; then resumed."""
    arguments = [str(ROOT / "tests"), str(tmp_path)]
    killer = subprocess.run([sys.executable, "-c", KILLED, *arguments], capture_output=True, text=True, check=False)
    assert killer.stdout.split() == [str(int(signal.SIGKILL))] * 3, killer.stderr
    study, log = planted.logged_store(tmp_path)
    assert distinct(study) == 5 + 5 + 4
    planted.search(study, SyntheticProbe(), 18, logger=log)
    log.flush()
    counts = states(f"sqlite:///{tmp_path / 'studies.db'}")
    assert (counts[TrialState.RUNNING], counts[TrialState.COMPLETE]) == (0, 18)
    assert distinct(study) == 18
    assert stored_scores(f"sqlite:///{tmp_path / 'mlflow.db'}", planted.STUDY) == {
        record.uid: record.score for record in study.records()
    }


def test_a_study_without_a_finished_trial_has_no_best(url: str) -> None:
    with pytest.raises(StudyError, match="must have a finished trial, but has none"):
        planted.store(url).best()


def test_a_timeout_ends_the_search(url: str) -> None:
    study = planted.store(url)
    planted.search(study, SyntheticProbe(), 100, timeout=1e-9)
    assert distinct(study) == 0
