"""Warm starts: an earlier study's best, by the same names, else by kind and relative depth, else left out aloud."""

from __future__ import annotations

from pathlib import Path

import pytest
from support import planted

from diffsift.errors import SpecificationError, StudyError
from diffsift.search import SearchSpace
from diffsift.search.warm_start import MOST, Role, earlier_bests, roles, translated
from diffsift.spaces import Candidate, LimitsSpecification, Selection
from diffsift.specification import Specification
from diffsift.tracking import ActivationDecision, Evaluation, Ledger, open_database

POOL = [Candidate("main", name, timestep) for name in ("early-q", "late-q", "late-out") for timestep in (50, 300)]
HERE = {
    ("main", "early-q"): Role("cross-q", 0.2),
    ("main", "late-q"): Role("cross-q", 0.9),
    ("main", "late-out"): Role("res-out", 1.0),
}
THERE = {
    ("main", "late-q"): Role("cross-q", 0.7),
    ("main", "block3-q"): Role("cross-q", 0.35),
    ("main", "block9-q"): Role("cross-q", 0.95),
    ("main", "block9-v"): Role("self-v", 0.95),
}


def decision(name: str, kind: str, depth: int, backbone: str = "main") -> ActivationDecision:
    return ActivationDecision(name, kind, "up", None, depth, 8, 1, True, "", backbone)


def test_a_name_that_the_pool_has_is_kept_at_the_closest_timestep() -> None:
    old = Selection.of({Candidate("main", "late-q", 280): 1.0, Candidate("main", "early-q", 50): 0.5})
    members, left_out = translated(old, THERE, POOL, HERE)
    assert members == {Candidate("main", "late-q", 300): 1.0, Candidate("main", "early-q", 50): 0.5}
    assert left_out == []


def test_else_the_same_kind_at_the_closest_relative_depth() -> None:
    old = Selection.of([Candidate("main", "block3-q", 60), Candidate("main", "block9-q", 60)])
    members, left_out = translated(old, THERE, POOL, HERE)
    assert list(members) == [Candidate("main", "early-q", 50), Candidate("main", "late-q", 50)]
    assert left_out == []


def test_what_nothing_stands_for_is_left_out_and_what_meets_keeps_the_larger_weight() -> None:
    old = Selection.of(
        {
            Candidate("main", "block9-q", 50): 0.4,
            Candidate("main", "late-q", 50): 1.0,
            Candidate("main", "block9-v", 50): 0.7,
            Candidate("main", "unknown", 50): 0.7,
        }
    )
    members, left_out = translated(old, THERE, POOL, HERE)
    assert members == {Candidate("main", "late-q", 50): 1.0}
    assert {candidate.activation for candidate in left_out} == {"block9-v", "unknown"}


def test_relative_depth_is_counted_within_each_backbone() -> None:
    found = roles([decision("a", "res-out", 5), decision("b", "res-out", 10), decision("c", "res-out", 40, "dit")])
    assert (found["main", "a"].depth, found["main", "b"].depth, found["dit", "c"].depth) == (0.5, 1.0, 1.0)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    found = Ledger(open_database(f"sqlite:///{tmp_path / 'studies.db'}"))
    found.create_study("old", {}, {}, [])
    found.record_decisions("old", [decision("late-q", "cross-q", 9), decision("block9-v", "self-v", 10)])
    return found


def here() -> list[ActivationDecision]:
    return [
        decision("early-q", "cross-q", 2),
        decision("late-q", "cross-q", 9),
        decision("late-out", "res-out", 10),
    ]


def space(activations: int = 2) -> SearchSpace:
    return SearchSpace(POOL, dict.fromkeys(POOL, 8), LimitsSpecification(activations=activations))


def test_the_best_of_earlier_studies_come_in_order_distinct_and_within_the_limits(ledger: Ledger) -> None:
    values = Candidate("main", "block9-v", 50)
    tried = [Candidate("main", name, timestep) for name in ("late-q", "early-q", "late-out") for timestep in (50, 300)]
    for number, candidate in enumerate(tried):
        ledger.record_evaluation("old", Evaluation(Selection.of([candidate, values]), 0.1 * number, (), 8, 0.0))
    ledger.record_evaluation("old", Evaluation(Selection.of(tried[:3]), 0.9, (), 8, 0.0))
    ledger.record_evaluation("old", Evaluation(Selection.of([values]), 0.95, (), 8, 0.0))
    found, notes = earlier_bests(ledger, ["old"], space(), here())
    assert len(found) == MOST
    assert len(found[0].members) == 2
    assert found[1:] == [Selection.of([candidate]) for candidate in tried[:1:-1]]
    assert notes == ["left out, because this pool has no replacement: block9-v@50 of study old"]


def test_a_study_without_selections_is_said_and_one_that_does_not_exist_refused(ledger: Ledger) -> None:
    assert earlier_bests(ledger, ["old"], space(), here()) == (
        [],
        ["study old has no finished selection to start from"],
    )
    assert earlier_bests(ledger, [], space(), here()) == ([], [])
    with pytest.raises(StudyError, match=r"there is no study 'odl'.*did you mean 'old'"):
        earlier_bests(ledger, ["odl"], space(), here())


def test_warm_starts_are_proposed_first(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    study = planted.store(url)
    planted.search(study, planted.SyntheticProbe(), 60)
    ledger = Ledger(open_database(url))
    found, _ = earlier_bests(ledger, [planted.STUDY], study.space, [])
    best = sorted(ledger.evaluations(planted.STUDY), key=lambda entry: -entry.score)[:MOST]
    assert found == [entry.selection for entry in best]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"warm_start": ["old"], "sampler": "tpe"}, "warm_start needs the sampler sift, but it is tpe"),
        (
            {"objectives": ["score", "passes"], "sampler": "cmaes"},
            r"objectives must be \[score\] with the sampler cmaes",
        ),
        ({"warm_start": ["s"]}, "warm_start must name other studies than this one"),
    ],
)
def test_a_warm_start_that_cannot_be_is_refused(fields: dict[str, object], message: str) -> None:
    values = {"model": {"id": "m"}, "data": {"kind": "rendered-scenes"}, "study": {"name": "s", **fields}}
    with pytest.raises(SpecificationError, match=message):
        Specification.parse(values)
