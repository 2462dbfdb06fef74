"""Reranking: a slow probe decides among the best few selections that differ."""

from __future__ import annotations

from collections.abc import Sequence

from diffsift.tracking import Reranked, TrialRecord

from .loop import SelectionScorer


def shortlist(records: Sequence[TrialRecord], most: int) -> list[TrialRecord]:
    """The best selections by the fast probe that differ from one another.

    Args:
        records: finished trials.
        most: how many to choose, 1 or more.

    Returns:
        The best first. None shares more than half of its candidates with a better one of the list.
    """
    taken: list[TrialRecord] = []
    for record in sorted(records, key=lambda entry: (-entry.score, entry.number)):
        own = set(record.selection.candidates)
        if all(2 * len(own & set(better.selection.candidates)) <= len(own) for better in taken):
            taken.append(record)
        if len(taken) == most:
            break
    return taken


def rerank(records: Sequence[TrialRecord], probe: SelectionScorer) -> tuple[Reranked, ...]:
    """Score a shortlist by a slow probe on the held-out images.

    Args:
        records: the shortlist, not empty.
        probe: decides; higher scores are better.

    Returns:
        The records in the given order with their scores; the best one is marked as taken, of equals the first.
    """
    scores = [float(probe.score(record.selection).value) for record in records]
    best = scores.index(max(scores))
    return tuple(
        Reranked(record.selection, record.number, record.score, score, position == best)
        for position, (record, score) in enumerate(zip(records, scores, strict=True))
    )
