"""Our sampler: a planted answer is found, limits hold, nothing is tried twice, and history and seed decide alone."""

from __future__ import annotations

import planted
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diffsift.search import SearchSpace, SiftSampler
from diffsift.spaces import Candidate, LimitsSpecification, Selection

History = dict[Selection, float]


def search(sampler: SiftSampler, proposals: int, history: History | None = None) -> History:
    history = {} if history is None else history
    for _ in range(proposals):
        selection, _ = sampler.propose(history)
        history[selection] = planted.value(selection)
    return history


@pytest.mark.parametrize("seed", range(10))
def test_the_planted_selection_is_found(seed: int) -> None:
    history = search(SiftSampler(planted.space(), seed=seed), 400)
    assert set(max(history, key=history.__getitem__).candidates) == set(planted.PLANTED)


def test_nothing_is_proposed_twice_while_there_is_something_else() -> None:
    assert len(search(SiftSampler(planted.space(6, activations=3), seed=0), 150)) == 150
    assert len(search(SiftSampler(planted.space(5, activations=1), seed=0), 5)) == 5


def test_every_activation_is_tried_alone_first_and_at_its_middle_timestep() -> None:
    pool = sorted(Candidate("main", f"a{i}", t) for i in range(8) for t in (10, 20, 30))
    space = SearchSpace(pool, dict.fromkeys(pool, 1), LimitsSpecification(activations=2))
    first = list(search(SiftSampler(space, seed=0), 8))
    assert {selection.candidates[0].activation for selection in first} == {f"a{i}" for i in range(8)}
    assert {selection.candidates[0].timestep for selection in first} == {20}


def test_warm_starts_come_first_where_the_limits_allow_them() -> None:
    pool = planted.pool()
    allowed, too_many = Selection.of(pool[:2]), Selection.of(pool[:4])
    sampler = SiftSampler(planted.space(), seed=0, warm_starts=[too_many, allowed])
    assert sampler.propose({}) == (allowed, "warm start")
    assert sampler.propose({allowed: 0.1})[1] == "single"


@given(
    widths=st.lists(st.integers(1, 40), min_size=4, max_size=12),
    activations=st.integers(1, 4),
    room=st.integers(0, 60),
    passes=st.none() | st.integers(1, 3),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=25, deadline=None)
def test_limits_hold(widths: list[int], activations: int, room: int, passes: int | None, seed: int) -> None:
    pool = planted.pool(len(widths))
    channels = dict(zip(pool, widths, strict=True))
    most = min(widths) + room
    space = SearchSpace(pool, channels, LimitsSpecification(activations=activations, channels=most, passes=passes))
    for selection in search(SiftSampler(space, seed=seed), 40):
        assert len(selection.members) <= activations
        assert space.channels(selection) <= most
        assert passes is None or selection.passes <= passes
        assert set(selection.candidates) <= set(pool)


def test_proposals_depend_on_history_and_seed_alone() -> None:
    sampler = SiftSampler(planted.space(), seed=3)
    history = search(sampler, 80)
    fresh = SiftSampler(planted.space(), seed=3)
    assert fresh.propose(history) == sampler.propose(history)
    assert list(search(fresh, 40, dict(list(history.items())[:40]))) == list(history)
    assert list(search(SiftSampler(planted.space(), seed=4), 80)) != list(history)
