"""Limits of a selection: what is proposed is brought within them, and what no selection can meet is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffsift.errors import SpecificationError
from diffsift.search import SearchSpace
from diffsift.spaces import Candidate, LimitsSpecification, Selection

A, B, C = (Candidate("main", name, 50) for name in "abc")
LATER = Candidate("main", "a", 300)
ELSEWHERE = Candidate("dit", "a", 50)
SHARES = {A: 0.2, B: 0.5, C: 0.9, LATER: 0.2, ELSEWHERE: 0.5}


def space(**limits: float) -> SearchSpace:
    return SearchSpace([*SHARES], dict.fromkeys(SHARES, 8), LimitsSpecification.model_validate(limits), SHARES)


@pytest.mark.parametrize(
    ("members", "expected"),
    [((A,), 0.2), ((A, B), 0.5), ((A, LATER), 0.4), ((B, C, LATER), 1.1), ((B, ELSEWHERE), 1.0)],
)
def test_operations_are_those_of_the_deepest_of_each_pass(members: tuple[Candidate, ...], expected: float) -> None:
    assert space().operations(Selection.of(members)) == pytest.approx(expected)


def test_a_limit_on_operations_is_met() -> None:
    found = space(operations=0.5)
    assert found.allows(dict.fromkeys((A, B), 1.0))
    assert not found.allows({C: 1.0})
    assert found.repaired(dict.fromkeys((C, B, LATER, A), 1.0)) == Selection.of([A, B])
    assert found.repaired({C: 1.0}).candidates[0] in (A, B, LATER, ELSEWHERE)


def test_noise_draws_are_passes() -> None:
    draws = {"main": 4, "dit": 1}
    limits = LimitsSpecification(activations=3, passes=5, operations=3.0)
    found = SearchSpace([*SHARES], dict.fromkeys(SHARES, 8), limits, SHARES, noise_draws=draws)
    both = Selection.of([A, ELSEWHERE])
    assert found.passes(both) == found.cost("passes", both.candidates) == 5
    assert found.operations(both) == found.cost("operations", both.candidates) == pytest.approx(4 * 0.2 + 0.5)
    assert found.allows(dict(both.members))
    assert not found.allows(dict.fromkeys((A, LATER), 1.0))  # eight passes
    assert not found.allows({C: 1.0})  # 3.6 whole passes
    assert found.repaired(dict.fromkeys((A, LATER, ELSEWHERE), 1.0)) == both
    with pytest.raises(SpecificationError, match=r"limits.passes 3 \(noise draws make it at least 4\)"):
        SearchSpace([A], {A: 8}, LimitsSpecification(activations=1, passes=3), noise_draws={"main": 4})


def test_two_halves_of_a_pass_are_a_whole_one() -> None:
    assert space(operations=1.0).allows(dict.fromkeys((B, ELSEWHERE), 1.0))


candidates = st.builds(
    Candidate, st.sampled_from(["main", "dit"]), st.sampled_from([*"abcdefgh"]), st.sampled_from([50, 300])
)


@given(
    shares=st.dictionaries(candidates, st.floats(0.001, 1), min_size=4, max_size=16),
    widths=st.lists(st.integers(1, 40), min_size=16, max_size=16),
    spare=st.floats(0, 1),
    room=st.none() | st.integers(0, 60),
    passes=st.none() | st.integers(1, 3),
    proposed=st.lists(st.integers(0, 15), min_size=1, max_size=6, unique=True),
)
@settings(max_examples=200, deadline=None)
def test_no_proposal_violates_a_limit(
    shares: dict[Candidate, float],
    widths: list[int],
    spare: float,
    room: int | None,
    passes: int | None,
    proposed: list[int],
) -> None:
    pool = sorted(shares)
    channels = dict(zip(pool, widths, strict=False))
    first = min(pool, key=lambda candidate: (shares[candidate], channels[candidate]))
    limits = LimitsSpecification(
        activations=4,
        channels=None if room is None else channels[first] + room,
        passes=passes,
        operations=min(1.0, shares[first] + spare),
    )
    found = SearchSpace(pool, channels, limits, shares)
    selection = found.repaired({pool[index % len(pool)]: 1.0 for index in proposed})
    per_pass: dict[tuple[str, int], float] = {}
    for candidate in selection.candidates:
        key = (candidate.backbone, candidate.timestep)
        per_pass[key] = max(per_pass.get(key, 0), shares[candidate])
    assert limits.operations is not None
    assert sum(per_pass.values()) <= limits.operations + 1e-6
    assert limits.channels is None or sum(channels[candidate] for candidate in selection.candidates) <= limits.channels
    assert passes is None or len(per_pass) <= passes
    assert len(selection.members) <= 4


def test_limits_that_leave_nothing_are_refused() -> None:
    with pytest.raises(SpecificationError, match=r"operations 0.1 \(the first is reached after 0.200 of a pass\)"):
        space(operations=0.1)
    with pytest.raises(SpecificationError, match=r"limits.channels 4 \(the narrowest has 8 channels\)"):
        space(channels=4)


def test_a_limit_on_operations_that_are_not_known_is_refused() -> None:
    limits = LimitsSpecification(activations=1, operations=0.5)
    with pytest.raises(SpecificationError, match=r"limits.operations must be left out.* a@300 is one of 1"):
        SearchSpace([A, LATER], {A: 8, LATER: 8}, limits, {A: 0.2})
    assert SearchSpace([A], {A: 8}, LimitsSpecification(activations=1)).operations(Selection.of([A])) is None
