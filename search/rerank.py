"""Confirmation by a slow probe: of a few good and different selections the one that is best there is the one found."""

from __future__ import annotations

from collections.abc import Sequence

from diffsift.objectives import Probe
from diffsift.tracking import Confirmed, TrialRecord


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


def confirmed(records: Sequence[TrialRecord], probe: Probe) -> tuple[Confirmed, ...]:
    """The records with their score by `probe` on held-out images, in the given order; of equals the first is taken."""
    scores = [float(probe.score(record.selection).value) for record in records]
    best = scores.index(max(scores))
    return tuple(
        Confirmed(record.selection, record.number, record.score, score, position == best)
        for position, (record, score) in enumerate(zip(records, scores, strict=True))
    )


def confirmation_words(entries: Sequence[Confirmed], probe: str) -> str:
    """What the verdict adds on how the selection found was taken from the shortlist; empty where there was none."""
    if not entries:
        return ""
    ranked = sorted(entries, key=lambda entry: (-entry.score, entry.trial))
    place = next(rank for rank, entry in enumerate(ranked, start=1) if entry.taken)
    by_fast = "the best by the fast probe too" if place == 1 else f"number {place} by the fast probe"
    return f" It is the best of {len(entries)} different selections by the {probe} probe, and {by_fast}."
