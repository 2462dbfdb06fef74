"""A study that is confirmed by a slow probe, picked from and started from: end to end on the tiny pipeline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from support import tiny
from support.reporters import Recorder

import diffsift
from diffsift.common.workspace import Workspace
from diffsift.errors import SpecificationError, StudyError
from diffsift.extraction import read_selection
from diffsift.objectives import RidgeProbe
from diffsift.runs.pick import finished_selections, front_of, pick
from diffsift.runs.plan import plan
from diffsift.specification import Specification
from diffsift.study_store import StudyStore
from diffsift.tracking import Ledger, TrialRecord, open_database


def planned(values: Any, **options: Any) -> None:
    plan(Specification.parse(values), **options)


def quiet(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def ended(tiny_pipeline: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A workspace with a study that has ended, and its result."""
    folder = tmp_path_factory.mktemp("picking")
    study = {
        "trials": 12,
        "rerank": 2,
        "rerank_probe": "logistic",
        "objectives": ["score", "channels", "operations"],
    }
    values = tiny.specification(tiny_pipeline, tiny_data, study=study, limits={"operations": 1.5})
    result = diffsift.select(values, workspace=folder, out=folder / "found.json")
    return folder, result


def test_the_outcome_says_how_it_was_confirmed_how_stable_it_is_and_what_the_front_is(
    ended: tuple[Path, Any],
) -> None:
    folder, result = ended
    outcome = result.outcome
    assert [entry.taken for entry in outcome.reranked].count(True) == 1
    assert outcome.rerank_probe == "logistic"
    taken = next(entry for entry in outcome.reranked if entry.taken)
    assert taken.slow_score == max(entry.slow_score for entry in outcome.reranked)
    assert set(outcome.found.candidates) == set(taken.selection.candidates)
    assert "by the logistic probe" in str(outcome.verdict)
    assert outcome.stability[0].share > 0.2
    assert outcome.front_costs == ("channels", "operations")
    assert max(outcome.front, key=lambda entry: entry.score).score == max(trial.score for trial in outcome.trials)
    assert all(trial.operations is not None and trial.operations <= 1.5 for trial in outcome.trials)
    report = (folder / "found.html").read_text()
    for heading in ("Reranking", "Stability", "Score against cost", "of resamples"):
        assert heading in report
    with Ledger(open_database(Workspace.at(folder).study_url)) as ledger:
        stored = ledger.outcome("tiny")
    assert stored is not None
    assert stored["stability"][0]["share"] == outcome.stability[0].share


def selections(folder: Path) -> tuple[TrialRecord, ...]:
    with StudyStore.existing(folder) as store:
        return finished_selections("tiny", store)


def test_a_pick_is_the_best_within_the_bounds_and_can_be_used(ended: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = ended
    records = selections(folder)
    bound = sorted(record.channels for record in records)[len(records) // 2]
    found = pick("tiny", channels=bound, out=tmp_path / "small.json", workspace=folder)
    fitting = [record for record in records if record.channels <= bound]
    assert found.record.score == max(record.score for record in fitting)
    assert found.record.selection in {record.selection for record in front_of("tiny", workspace=folder)}
    file = read_selection(tmp_path / "small.json")
    assert file.selection == found.record.selection
    about = json.loads((tmp_path / "small.json").read_text())["about"]
    assert about["validation_score"]["value"] == pytest.approx(found.record.score)
    assert "not tested" in about["verdict"]
    assert "test_score" not in about
    extractor = diffsift.FeatureExtractor.from_selection(tmp_path / "small.json", device="cpu")
    assert extractor is not None
    with Ledger(open_database(Workspace.at(folder).study_url)) as ledger:
        assert len(ledger.openings("tiny")) == 1  # by the search itself


def test_bounds_that_nothing_meets_and_a_study_that_is_not_there(ended: tuple[Path, Any], tmp_path: Path) -> None:
    folder, _ = ended
    smallest = min(record.channels for record in selections(folder))
    with pytest.raises(StudyError, match=rf"within 1 channels, but none is: the smallest has {smallest}"):
        pick("tiny", channels=1, out=tmp_path / "x.json", workspace=folder)
    with pytest.raises(StudyError, match=r"within 1 passes and 0.0001 operations.*each minimum taken separately"):
        pick("tiny", passes=1, operations=0.0001, out=tmp_path / "x.json", workspace=folder)
    with pytest.raises(StudyError, match="no study is named 'tinny'"):
        pick("tinny", channels=10, out=tmp_path / "x.json", workspace=folder)
    assert not (tmp_path / "x.json").exists()


def test_a_search_may_start_from_another(
    ended: tuple[Path, Any], tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder, first = ended
    study = {"name": "next", "trials": 7, "warm_start": ["tiny"]}
    values = tiny.specification(tiny_pipeline, tiny_data, study=study)
    result = diffsift.select(values, workspace=folder, out=tmp_path / "next.json")
    best = sorted(first.outcome.trials, key=lambda trial: -trial.score)[0]
    assert result.outcome.trials[0].selection == best.selection
    assert result.outcome.trials[0].proposed_by == "warm start"


def test_the_pool_is_eliminated_once_and_the_ledger_counts_it(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = tiny.specification(tiny_pipeline, tiny_data, study={"trials": 3})
    recorder = Recorder()
    files: dict[str, Any] = {"workspace": tmp_path, "out": tmp_path / "x.json", "reporter": recorder}
    solve, solved = RidgeProbe.eliminate, []

    def eliminate(probe: RidgeProbe, pool: Any, most: int) -> Any:
        solved.append(solve(probe, pool, most))
        return solved[-1]

    monkeypatch.setattr(RidgeProbe, "eliminate", eliminate)
    first = diffsift.select(values, **files)
    again = diffsift.resume("tiny", trials=5, **files)
    study = {"name": "without", "trials": 1, "skip": ["elimination"]}
    diffsift.select(tiny.specification(tiny_pipeline, tiny_data, study=study), **files, force=True)
    with Ledger(open_database(Workspace.at(tmp_path).study_url)) as ledger:
        known = ledger.elimination("tiny")
    assert len(solved) == 1
    assert known is not None
    assert known.solves == solved[0].solves > 0
    assert first.outcome.trials[0].selection == known.selection
    assert again.outcome.trials[:3] == first.outcome.trials
    assert (
        sum(line.startswith(f"elimination {known.solves} candidate sets fit on labels") for line in recorder.lines) == 2
    )


def test_a_warm_start_that_is_no_study_makes_none(
    ended: tuple[Path, Any], tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    folder, _ = ended
    values = tiny.specification(tiny_pipeline, tiny_data, study={"name": "warm", "warm_start": ["tinny"]})
    for start in (diffsift.select, planned):
        with pytest.raises(StudyError, match=r"there is no study 'tinny'; did you mean 'tiny'"):
            start(values, workspace=folder)
    with Ledger(open_database(Workspace.at(folder).study_url)) as ledger:
        assert ledger.study("warm") is None


def test_limits_that_leave_no_room_are_refused_before_the_bank_is_filled(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    values = tiny.specification(tiny_pipeline, tiny_data, limits={"channels": 1})
    with pytest.raises(SpecificationError, match=r"none is within limits.channels 1 \(the narrowest has \d+ channels"):
        diffsift.select(values, workspace=tmp_path, out=tmp_path / "x.json")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_a_slow_probe_that_the_task_does_not_have_is_refused(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    values = tiny.specification(tiny_pipeline, tiny_data, study={"rerank": 3, "rerank_probe": "exact"})
    with pytest.raises(SpecificationError, match=r"study.rerank_probe of segmentation must be one of reference, mlp"):
        diffsift.select(values, workspace=tmp_path, out=tmp_path / "x.json")


def test_a_logger_that_does_not_exist_is_refused_before_anything_is_done(
    tiny_pipeline: Path, tiny_data: Path, tmp_path: Path
) -> None:
    values = tiny.specification(tiny_pipeline, tiny_data, tracking={"loggers": ["nowhere"]})
    for start in (diffsift.select, planned):
        with pytest.raises(SpecificationError, match="there is no logger 'nowhere'"):
            start(values, workspace=tmp_path / "workspace")
    assert not (tmp_path / "workspace").exists()
