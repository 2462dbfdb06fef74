"""Reranking: a slow probe decides among the best few selections that differ."""

from __future__ import annotations

from collections.abc import Sequence

from diffsift.objectives import Probe
from diffsift.tracking import Reranked, TrialRecord


def shortlist(records: Sequence[TrialRecord], most: int) -> list[TrialRecord]:
    """The best by the fast probe that differ: none shares more than half of its candidates with a better one taken."""
    taken: list[TrialRecord] = []
    for record in sorted(records, key=lambda entry: (-entry.score, entry.number)):
        own = set(record.selection.candidates)
        if all(2 * len(own & set(better.selection.candidates)) <= len(own) for better in taken):
            taken.append(record)
        if len(taken) == most:
            break
    return taken


def rerank(records: Sequence[TrialRecord], probe: Probe) -> tuple[Reranked, ...]:
    """The records with their score by `probe` on held-out images, in the given order; of equals the first is taken."""
    scores = [float(probe.score(record.selection).value) for record in records]
    best = scores.index(max(scores))
    return tuple(
        Reranked(record.selection, record.number, record.score, score, position == best)
        for position, (record, score) in enumerate(zip(records, scores, strict=True))
    )
