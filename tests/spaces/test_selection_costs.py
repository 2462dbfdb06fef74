"""What a selection costs: passes by backbone, timestep and noise draw; operations by the deepest of each pass."""

from __future__ import annotations

import pytest

from diffsift.spaces import Candidate, SelectionCosts, operations_per_image, passes_per_image

A, B, LATER = Candidate("main", "a", 50), Candidate("main", "b", 50), Candidate("main", "a", 200)
OTHER = Candidate("random", "a", 50)
SHARES = {A: 0.25, B: 0.75, LATER: 0.25, OTHER: 0.25}


def test_passes_are_distinct_timesteps_of_a_backbone() -> None:
    assert passes_per_image([A, B], {}) == 1
    assert passes_per_image([A, B, LATER], {}) == 2
    assert passes_per_image([A, LATER, OTHER], {}) == 3
    assert passes_per_image([A, LATER, OTHER], {"main": 4}) == 9


def test_a_pass_costs_as_much_as_its_deepest_activation() -> None:
    assert operations_per_image([A, B], SHARES, {}) == 0.75
    assert operations_per_image([A, B, LATER], SHARES, {"main": 2}) == 2.0
    assert operations_per_image([A, OTHER], {A: 0.25}, {}) is None


def test_costs_by_name() -> None:
    costs = SelectionCosts({A: 8, B: 16}, {A: 0.25}, {"main": 3})
    assert costs.of("channels", [A, B]) == 24
    assert costs.of("passes", [A, B]) == 3
    assert costs.of("operations", [A]) == pytest.approx(0.75)
    assert costs.of("operations", [A, B]) == float("inf")
