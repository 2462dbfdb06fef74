"""The shortlist of selections that differ, and the slow probe that decides among them."""

from __future__ import annotations

import pytest
from support.tabled import A, B, C, D, E, Table, record

from diffsift.objectives.metrics import RatioMetric
from diffsift.search import rerank, shortlist
from diffsift.spaces import Selection
from diffsift.tracking import TrialRecord


def test_a_shortlist_has_no_copies_of_a_better_one() -> None:
    best, copy, half, other = record(3, 0.9, A, B, C), record(1, 0.8, A, B, D), record(2, 0.7, A, D), record(0, 0.6, E)
    assert shortlist([other, copy, half, best], 4) == [best, half, other]
    assert shortlist([other, copy, half, best], 2) == [best, half]
    assert shortlist([copy], 3) == [copy]


def test_the_same_candidates_at_other_weights_are_a_copy() -> None:
    weighted = TrialRecord("w", 9, Selection.of({A: 1.0, B: 0.5}), 0.5, (), 8, 0.0, "test")
    assert shortlist([record(0, 0.6, A, B), weighted], 5) == [record(0, 0.6, A, B)]


def test_the_slow_probe_decides_and_errors_are_minimised() -> None:
    first, second = record(0, -0.1, A), record(1, -0.2, B)
    probe = Table(
        {first.selection: [0.5, 0.7], second.selection: [0.2, 0.4]}, RatioMetric("error", higher_is_better=False)
    )
    found = rerank([first, second], probe)
    assert [entry.taken for entry in found] == [False, True]
    assert [entry.slow_score for entry in found] == pytest.approx([-0.6, -0.3])
