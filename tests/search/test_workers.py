"""Several processes on one study: nothing twice, nothing lost, exactly the asked number, whoever is killed when."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import text
from support import ROOT, planted
from support.mlflow_store import stored_scores
from support.planted import SyntheticProbe
from support.reporters import Recorder

from diffsift.search import TrialStore
from diffsift.spaces import Selection
from diffsift.tracking import ClaimStatus, Evaluation, Ledger, MlflowLogger, open_database

# One process that loads the libraries and opens nothing; its children are the workers.
SERVER = """
import os, random, signal, sys, time
sys.path.insert(0, sys.argv[1])
from support import planted
from diffsift.tracking import Ledger, open_database

folder, mode, sampler = sys.argv[2], sys.argv[3], sys.argv[4]
url = f"sqlite:///{folder}/studies.db"

class RecordingProbe(planted.SyntheticProbe):
    def score(self, selection):
        time.sleep(0.004)
        found = super().score(selection)
        with open(f"{folder}/scored", "a") as file:
            file.write(f"{os.getpid()} {selection.key}\\n")
        return found

def work(trials, stream, step=None, count=0, logged=False):
    passed = []
    def after_step(now):
        passed.append(now)
        if step is not None and passed.count(step) == count:
            os.kill(os.getpid(), signal.SIGKILL)
    log = None
    if logged:
        study, log = planted.logged_store(folder, sampler=sampler)
    else:
        study = planted.store(url, sampler=sampler)
    planted.search(
        study, RecordingProbe(), trials, stream=stream, logger=log, after_step=after_step, has_peers=True
    )
    if log is not None:
        log.flush()

def fork(*arguments, **options):
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work(*arguments, **options)
            code = 0
        finally:
            os._exit(code)
    return child

def ended(child):
    status = os.waitpid(child, 0)[1]
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)

planted.store(url, sampler=sampler)
if mode == "together":
    print(*map(ended, [fork(40, stream) for stream in (1, 2, 3)]))
else:
    rng = random.Random(0)
    stream = 0
    for step in ["scored", "recorded"] * 4 + ["logged"] * 2:
        stream += 2
        at_point = fork(10_000, stream, step, rng.randint(1, 4), logged=step == "logged")
        at_random = fork(10_000, stream + 1)
        time.sleep(rng.uniform(0.05, 0.6))
        os.kill(at_random, signal.SIGKILL)
        print(ended(at_random), ended(at_point))
    done = Ledger(open_database(url)).evaluated(planted.STUDY)
    print(*map(ended, [fork(done + 15, 98, logged=True), fork(done + 15, 99)]))
    print(done + 15)
"""


def serve(folder: Path, mode: str, sampler: str) -> list[str]:
    arguments = [str(ROOT / "tests"), str(folder), mode, sampler]
    served = subprocess.run(
        [sys.executable, "-c", SERVER, *arguments], capture_output=True, text=True, check=False, timeout=300
    )
    assert served.returncode == 0, served.stderr
    return served.stdout.splitlines()


def whole(folder: Path, trials: int, *, sampler: str) -> TrialStore:
    """The study, after a look at its databases: as many distinct finished trials as asked, and nothing else."""
    url = f"sqlite:///{folder / 'studies.db'}"
    study = planted.store(url, sampler=sampler)
    trials_of = optuna.load_study(study_name=planted.STUDY, storage=url).get_trials(deepcopy=False)
    states = Counter(trial.state for trial in trials_of)
    assert set(states) == {TrialState.COMPLETE}
    records = study.records()
    scores = {record.selection: record.score for record in records}
    assert len(scores) == trials
    if sampler == "sift":  # the others repeat themselves, and that is recorded
        assert len(records) == trials
    engine = open_database(url)
    assert {entry.selection: entry.score for entry in Ledger(engine).evaluations(planted.STUDY)} == scores
    assert all(score == planted.value(selection) for selection, score in scores.items())
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM diffsift_selection WHERE score IS NULL")).scalar() == 0
    engine.dispose()
    return study


@pytest.mark.parametrize("sampler", ["sift", "random"])
def test_workers_share_the_work_and_do_nothing_twice(tmp_path: Path, sampler: str) -> None:
    assert serve(tmp_path, "together", sampler) == ["0 0 0"]
    whole(tmp_path, 40, sampler=sampler)
    scored = [line.split() for line in (tmp_path / "scored").read_text().splitlines()]
    assert len({key for _, key in scored}) == len(scored) == 40
    assert len({process for process, _ in scored}) > 1


def test_twenty_killed_workers_lose_and_repeat_nothing(tmp_path: Path) -> None:
    """Killed in pairs: one at a point of a trial, one at a random moment; at last two finish the study."""
    *rounds, last, trials = serve(tmp_path, "killed", "sift")
    assert rounds == ["-9 -9"] * 10
    assert last == "0 0"
    study = whole(tmp_path, int(trials), sampler="sift")
    scored = [line.split()[1] for line in (tmp_path / "scored").read_text().splitlines()]
    # Only a kill between a score and its way into the ledger, at a random moment, loses that score: the selection is
    # scored again or, as the others have gone on, never proposed again.
    assert {record.selection.key for record in study.records()} <= set(scored)
    assert len(scored) - int(trials) <= 10
    log = MlflowLogger(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts", planted.STUDY)
    log.start({}, None)
    log.repair(study.records())
    assert stored_scores(f"sqlite:///{tmp_path / 'mlflow.db'}", planted.STUDY) == {
        record.uid: record.score for record in study.records()
    }


@pytest.fixture
def url(tmp_path: Path) -> str:
    planted.store(f"sqlite:///{tmp_path / 'studies.db'}")
    return f"sqlite:///{tmp_path / 'studies.db'}"


def alone(number: int) -> Selection:
    return Selection.of([planted.pool()[number]])


def score(selection: Selection) -> Evaluation:
    return Evaluation(selection, planted.value(selection), (0.5,), 8, 0.1)


def test_a_claim_of_a_living_process_is_not_taken_and_counts(url: str) -> None:
    ledger = Ledger(open_database(url))
    with ledger.claims(planted.STUDY) as first, ledger.claims(planted.STUDY) as second:
        assert first.claim(alone(0), 2).status is ClaimStatus.GRANTED
        assert second.claim(alone(0), 2).status is ClaimStatus.TAKEN
        assert [claim.selection for claim in second.others()] == [alone(0)]
        assert ledger.evaluated(planted.STUDY) == 0
        assert ledger.evaluations(planted.STUDY) == []
        assert ledger.evaluation(planted.STUDY, alone(0)) is None
        assert second.claim(alone(1), 2).status is ClaimStatus.GRANTED
        assert first.claim(alone(2), 2).status is ClaimStatus.FULL
        assert first.complete(score(alone(0)))
        assert first.complete(score(alone(0)))  # the answer may have been lost
        assert not second.complete(score(alone(0)))
        assert second.others() == []
        assert second.claim(alone(0), 2).status is ClaimStatus.TAKEN  # its trial is about to be written
    with ledger.claims(planted.STUDY) as third:
        assert third.others() == []
        again = third.claim(alone(0), 0)  # one that has a score needs no room
        assert (again.status, again.is_scored, again.scored, again.has_peers) == (ClaimStatus.GRANTED, True, 1, False)
        assert third.claim(alone(1), 2).status is ClaimStatus.GRANTED


@pytest.mark.parametrize("silent", [False, True])
def test_a_claim_of_another_host_stands_until_it_is_broken_or_that_host_is_silent(
    url: str, monkeypatch: pytest.MonkeyPatch, silent: bool
) -> None:
    engine = open_database(url)
    ledger = Ledger(engine)
    with ledger.claims(planted.STUDY) as first, ledger.claims(planted.STUDY) as second:
        for number in range(2):
            first.claim(alone(number), 9)
        first.complete(score(alone(1)))
        with engine.begin() as connection:
            connection.execute(text("UPDATE diffsift_holder SET host = 'elsewhere', pid = 1"))
        for number in range(2):
            result = second.claim(alone(number), 9)
            assert result.status is ClaimStatus.TAKEN
            assert result.holder is not None
            assert result.holder.process.host == "elsewhere"
        if silent:
            monkeypatch.setattr("diffsift.tracking._lease.LEASE", 0.0)
            assert second.others() == []
        else:
            assert [claim.selection for claim in second.others()] == [alone(0)]
            ledger.unlock(planted.STUDY)
        assert not first.complete(score(alone(0)))
        assert [second.claim(alone(number), 9).is_scored for number in range(2)] == [False, True]


def test_a_loop_says_whom_it_waits_for_and_goes_on_when_the_claim_is_broken(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host that is gone holds the last selection, or a score whose trial it did not write."""
    monkeypatch.setattr("diffsift.search.loop._WAIT_NOTICE", 0.05)
    engine = open_database(url)
    ledger = Ledger(engine)
    with ledger.claims(planted.STUDY) as gone:
        for number in range(2):
            gone.claim(alone(number), 9)
        gone.complete(score(alone(1)))
        with engine.begin() as connection:
            connection.execute(text("UPDATE diffsift_holder SET host = 'elsewhere', pid = 1"))
        recorder = Recorder()
        looks = 0

        def stop() -> bool:
            nonlocal looks
            looks += bool(recorder.lines)
            if looks == 1:
                ledger.unlock(planted.STUDY)
            return False

        store, probe = planted.store(url), SyntheticProbe()
        planted.search(store, probe, 6, reporter=recorder, stop=stop)
    (line,) = recorder.lines
    assert "waiting for process 1 on host elsewhere" in line
    assert "diffsift unlock planted" in line
    selections = [record.selection for record in store.records()]
    assert len(set(selections)) == len(selections) == 6
    assert len(probe.scored) == 5


def test_a_score_without_a_trial_is_finished_and_not_scored_again(url: str) -> None:
    """As a killed worker leaves it, or a diffsift of an older schema; nobody proposes this selection again."""
    ledger = Ledger(open_database(url))
    left = Selection.of(planted.pool()[:3])
    ledger.record_evaluation(planted.STUDY, score(left))
    study, probe = planted.store(url), SyntheticProbe()
    planted.search(study, probe, 10)
    selections = [record.selection for record in study.records()]
    assert len(set(selections)) == len(selections) == 10
    assert left in selections
    assert len(probe.scored) == 9
