"""Several objectives and the Pareto front: what Optuna is told, and what no other selection beats."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import StudyDirection
from support import planted
from support.planted import SyntheticProbe

from diffsift.errors import SpecificationError, StudyError
from diffsift.search import StudySpecification, front_costs, pareto_front
from diffsift.spaces import Candidate, Cost, Selection
from diffsift.specification import Specification
from diffsift.tracking import TrialRecord

OBJECTIVES = ("score", "channels", "passes", "operations")


def record(number: int, score: float, channels: int, passes: int = 1, operations: float | None = 0.5) -> TrialRecord:
    selection = Selection.of([Candidate("main", f"a{number}", timestep) for timestep in range(passes)])
    return TrialRecord(str(number), number, selection, score, (score,), channels, 0.0, "test", operations)


@given(
    st.lists(
        st.tuples(st.sampled_from([0.1, 0.2, 0.3]), st.integers(1, 5), st.integers(1, 3), st.sampled_from([0.2, 0.8])),
        max_size=30,
    ),
    st.sampled_from([("channels",), ("passes", "operations"), ("channels", "passes", "operations")]),
)
def test_the_front_is_what_no_other_beats(rows: list[tuple[float, int, int, float]], costs: tuple[Cost, ...]) -> None:
    records = [record(number, *row) for number, row in enumerate(rows)]

    def at_least(one: TrialRecord, other: TrialRecord) -> bool:
        return one.score >= other.score and all(one.cost(name) <= other.cost(name) for name in costs)

    front = pareto_front(records, costs)
    for entry in records:
        assert any(at_least(kept, entry) for kept in front)
    for kept in front:
        better = [entry for entry in records if entry is not kept and at_least(entry, kept)]
        assert all(at_least(kept, entry) and entry.number > kept.number for entry in better)
    values = [[entry.cost(name) for name in costs] for entry in front]
    assert values == sorted(values)


def test_costs_that_are_not_known_are_refused() -> None:
    with pytest.raises(StudyError, match="operations of a0@0 must be known"):
        pareto_front([record(0, 0.1, 8, operations=None)], ["operations"])


def test_score_stands_against_channels_where_it_is_the_only_objective() -> None:
    assert front_costs(StudySpecification(name="s")) == ("channels",)
    assert front_costs(StudySpecification(name="s", objectives=("score", "operations"))) == ("operations",)


@pytest.mark.parametrize("sampler", ["sift", "tpe", "nsga2", "random"])
def test_optuna_knows_all_objectives(tmp_path: Path, sampler: str) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = planted.store(url, sampler=sampler, objectives=OBJECTIVES)
    planted.search(study, SyntheticProbe(), 70)
    stored = optuna.load_study(study_name=planted.STUDY, storage=url)
    assert stored.directions == [StudyDirection.MAXIMIZE, *[StudyDirection.MINIMIZE] * 3]
    records = study.records()
    for trial, entry in zip(stored.trials, records, strict=True):
        expected = [entry.score, entry.channels, entry.passes, study.space.operations(entry.selection)]
        assert trial.values == pytest.approx(expected)
    best = max(records, key=lambda entry: entry.score)
    assert study.best().selection == best.selection
    ours = {tuple(entry.cost(name) for name in OBJECTIVES[1:]) for entry in pareto_front(records, OBJECTIVES[1:])}  # type: ignore[arg-type]
    optunas = {tuple(trial.values[1:]) for trial in stored.best_trials}
    assert {tuple(round(value, 9) for value in costs) for costs in ours} == {
        tuple(round(value, 9) for value in costs) for costs in optunas
    }


def test_a_multi_objective_search_resumes(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    for trials in (10, 20):
        study = planted.store(url, sampler="nsga2", objectives=("score", "passes"))
        planted.search(study, SyntheticProbe(), trials)
    assert len({entry.selection for entry in study.records()}) == 20


@pytest.mark.parametrize("objectives", [["channels"], ["score", "score"], [], ["score", "speed"]])
def test_objectives_that_make_no_sense_are_refused(objectives: list[str]) -> None:
    values = {"model": {"id": "m"}, "data": {"kind": "rendered-scenes"}}
    with pytest.raises(SpecificationError, match=r"study\.objectives"):
        Specification.parse({**values, "study": {"name": "s", "objectives": objectives}})
