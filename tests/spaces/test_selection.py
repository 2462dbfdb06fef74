"""Selections: one canonical form, whatever they were made from."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffsift.errors import SelectionError
from diffsift.spaces import WEIGHT_STEP, Candidate, Selection

A, B, C = (Candidate("main", name, 50) for name in "abc")

candidates = st.builds(
    Candidate, st.sampled_from(["main", "random"]), st.text("abc-", min_size=1, max_size=4), st.integers(0, 999)
)
members = st.dictionaries(candidates, st.floats(1e-3, 1e3), min_size=1, max_size=6)


@given(members, st.randoms(use_true_random=False))
def test_order_does_not_matter(weights: dict[Candidate, float], rng: random.Random) -> None:
    shuffled = list(weights.items())
    rng.shuffle(shuffled)
    assert Selection.of(dict(shuffled)) == Selection.of(weights)
    assert Selection.of(dict(shuffled)).key == Selection.of(weights).key


@given(members, st.sampled_from([0.25, 0.5, 2.0, 1024.0]))
def test_a_global_factor_does_not_matter(weights: dict[Candidate, float], factor: float) -> None:
    assert Selection.of({key: weight * factor for key, weight in weights.items()}) == Selection.of(weights)


@given(members)
def test_the_form_is_canonical(weights: dict[Candidate, float]) -> None:
    found = Selection.of(weights)
    assert set(found.candidates) == set(weights)
    assert list(found.candidates) == sorted(found.candidates)
    assert max(weight for _, weight in found.members) == 1.0
    for _, weight in found.members:
        assert WEIGHT_STEP <= weight <= 1.0
        assert round(weight / WEIGHT_STEP) * WEIGHT_STEP == pytest.approx(weight)
    assert Selection.of(dict(found.members)) == found


@given(members)
def test_json_round_trip(weights: dict[Candidate, float]) -> None:
    found = Selection.of(weights)
    assert Selection.from_json(json.loads(json.dumps(found.to_json()))) == found


def test_keys_tell_selections_apart() -> None:
    made = [Selection.of([A]), Selection.of([B]), Selection.of([A, B]), Selection.of({A: 1.0, B: 0.5})]
    assert len({selection.key for selection in made}) == len(made)


def test_text_leaves_out_what_is_usual() -> None:
    assert str(Selection.of({A: 1.0, Candidate("random", "b", 7): 0.5})) == "a@50 + 0.5 random:b@7"


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, "at least one candidate"),
        ({A: 0.0}, "must be positive and finite"),
        ({A: -1.0, B: 1.0}, "must be positive and finite"),
        ({A: float("nan")}, "must be positive and finite"),
        ({A: float("inf")}, "must be positive and finite"),
    ],
)
def test_weights_are_checked(weights: dict[Candidate, float], message: str) -> None:
    with pytest.raises(SelectionError, match=message):
        Selection.of(weights)


def test_a_candidate_twice_is_refused() -> None:
    with pytest.raises(SelectionError, match="each candidate once, but got a@50 twice"):
        Selection.of([A, C, A])


@pytest.mark.unchecked
@pytest.mark.parametrize(
    "broken", [[{}], [{"backbone": "main"}], ["a"], [{**Selection.of([A]).to_json()[0], "weight": "x"}]]
)
def test_json_that_is_no_selection_is_refused(broken: list[dict[str, object]]) -> None:
    with pytest.raises(SelectionError, match="must have backbone, activation, timestep and weight"):
        Selection.from_json(broken)
