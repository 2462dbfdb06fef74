"""The search study: distinct selections, resuming, and being stopped or killed at any point of a trial."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from support import ROOT, planted
from support.planted import SyntheticProbe

from diffsift.errors import StudyError
from diffsift.search import SearchStudy
from diffsift.tracking import MlflowLogger

SAMPLERS = ("sift", "tpe", "nsga2", "random")


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def states(url: str) -> dict[TrialState, int]:
    trials = optuna.load_study(study_name=planted.STUDY, storage=url).get_trials(deepcopy=False)
    return {state: sum(trial.state == state for trial in trials) for state in TrialState}


def distinct(study: SearchStudy) -> int:
    return len({record.selection for record in study.records()})


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_exactly_the_asked_number_of_distinct_selections(url: str, sampler: str) -> None:
    study, probe = planted.study(url, sampler=sampler), SyntheticProbe()
    study.run(probe, trials=25)
    assert distinct(study) == 25
    assert states(url)[TrialState.RUNNING] == 0
    assert len({record.uid for record in study.records()}) == len(study.records())
    study.run(probe, trials=25)
    assert len(probe.asked) == 25


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_selection_met_again_is_not_scored_again(url: str, sampler: str) -> None:
    study, probe = planted.study(url, sampler=sampler, pool=4, activations=1), SyntheticProbe()
    study.run(probe, trials=4)
    records = study.records()
    assert len(records) > distinct(study) == 4
    assert len(probe.asked) == 4
    by_selection = {record.selection: record.score for record in records}
    assert all(by_selection[record.selection] == record.score for record in records)


def test_a_pool_that_is_used_up_ends_the_search(url: str) -> None:
    study = planted.study(url, sampler="sift", pool=3, activations=1)
    with pytest.warns(UserWarning, match="ends after 3 distinct selections: the sift sampler proposed no new one"):
        study.run(SyntheticProbe(), trials=10)
    assert distinct(study) == 3


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_resuming_goes_on_and_repeats_nothing(url: str, sampler: str) -> None:
    planted.study(url, sampler=sampler).run(SyntheticProbe(), trials=10)
    again, probe = planted.study(url, sampler=sampler), SyntheticProbe()
    before = [record.selection for record in again.records()]
    again.run(probe, trials=20)
    assert distinct(again) == 20
    assert len(probe.asked) == 10
    assert set(probe.asked).isdisjoint(before)
    assert [record.selection for record in again.records()][: len(before)] == before


def test_an_interrupted_sift_search_goes_on_as_if_it_had_not_been(url: str, tmp_path: Path) -> None:
    for trials in (7, 30):
        planted.study(url).run(SyntheticProbe(), trials=trials)
    through = planted.study(f"sqlite:///{tmp_path / 'other.db'}")
    through.run(SyntheticProbe(), trials=30)
    resumed = planted.study(url)
    assert [r.selection for r in resumed.records()] == [r.selection for r in through.records()]
    assert resumed.best().selection == through.best().selection


class _StopsAtFifth(SyntheticProbe):
    def score(self, selection):  # type: ignore[no-untyped-def]
        if len(self.asked) == 4:
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
    study = planted.study(url)
    with pytest.raises(KeyboardInterrupt):
        study.run(_StopsAtFifth(), trials=20)
    assert states(url) == {state: 4 if state is TrialState.COMPLETE else 0 for state in TrialState}
    assert distinct(study) == 4


@pytest.mark.parametrize(("step", "finished"), [("scored", 4), ("told", 5)])
def test_ctrl_c_within_a_trial_loses_no_more_than_it(url: str, step: str, finished: int) -> None:
    study = planted.study(url)
    with pytest.raises(KeyboardInterrupt):
        study.run(SyntheticProbe(), trials=20, after_step=stop_at(step, 5))
    assert states(url)[TrialState.RUNNING] == 0
    assert distinct(study) == finished
    again, probe = planted.study(url), SyntheticProbe()
    again.run(probe, trials=12)
    assert distinct(again) == 12
    assert len(probe.asked) == 12 - 5  # what was scored is in the ledger, even where its trial is lost


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
    study, log = planted.logged_study(sys.argv[2])
    study.run(planted.SyntheticProbe(), trials=40, log=log, after_step=after_step)

for step, count in (("scored", 6), ("told", 5), ("logged", 4)):
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
    study, log = planted.logged_study(tmp_path)
    assert distinct(study) == 5 + 5 + 4
    study.run(SyntheticProbe(), trials=18, log=log)
    log.flush()
    counts = states(f"sqlite:///{tmp_path / 'studies.db'}")
    assert (counts[TrialState.RUNNING], counts[TrialState.COMPLETE]) == (0, 18)
    assert distinct(study) == 18
    fresh = MlflowLogger(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts", planted.STUDY)
    fresh.start({}, None)
    assert fresh.scores() == {record.uid: record.score for record in study.records()}


def test_a_study_without_a_finished_trial_has_no_best(url: str) -> None:
    with pytest.raises(StudyError, match="must have a finished trial, but has none"):
        planted.study(url).best()


def test_a_timeout_ends_the_search(url: str) -> None:
    study = planted.study(url)
    study.run(SyntheticProbe(), trials=100, timeout=1e-9)
    assert distinct(study) == 0
