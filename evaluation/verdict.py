"""The verdict: what the final table says, as a record with one recommendation in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from diffsift.tracking import FinalRow, Reranked, Verdict

from .rows import RowName


def verdict_on(
    table: Sequence[FinalRow],
    reranked: Sequence[Reranked] = (),
    probe: str = "",
    *,
    few_images: int = 0,
    held_out: Mapping[str, float] | None = None,
) -> Verdict:
    """What the final table says; "use another row" is a valid answer.

    Args:
        table: the rows of the final table, one of them the selection found.
        reranked: the selections that the slow probe decided among; empty where the best by the fast probe was taken.
        probe: name of the slow probe.
        few_images: how many independent test images there are, where they are too few to tell rows apart; default: they
            are enough.
        held_out: score of each row on held-out images, higher is better, which decides where test images are too few.

    Returns:
        A headline with the score, one recommendation, and the comparisons with the other rows as evidence: those that
        are better than the selection found, those it beats, and those it cannot be told from.
    """
    found = next(row for row in table if row.name == RowName.FOUND)
    others = [row for row in table if row is not found]
    ahead = [row for row in others if row.gain_high is not None and row.gain_high < 0]
    beaten = [row for row in others if row.gain_low is not None and row.gain_low > 0]
    unclear = [row for row in others if row not in ahead and row not in beaten]
    smaller = [row for row in unclear if row.channels < found.channels]
    evidence = [*_ahead(ahead, found), *_beaten(beaten), *(_unclear(row, found) for row in unclear)]
    if reranked:
        evidence.append(_reranked(reranked, probe))
    score = f"{found.score:.3f} [{found.low:.3f}, {found.high:.3f}]"
    decided = _by_held_out(table, held_out, few_images) if held_out else _recommendation(found, ahead, smaller)
    return Verdict(
        headline=f"The selection found scores {score} on the sealed test split.",
        recommendation=decided,
        evidence=tuple(evidence),
    )


def _by_held_out(table: Sequence[FinalRow], scores: Mapping[str, float], test_images: int) -> str:
    """One thing to use where the test split cannot decide: the best on held-out images, the smallest among equals."""
    best = max(table, key=lambda row: (scores[row.name], -row.channels))
    images = f"{test_images} independent test image{'s are' if test_images > 1 else ' is'}"
    named = "the selection found" if best.gain is None else best.name
    return f"Use {named}: {images} too few to tell rows apart, and it is the best on held-out images."


def _recommendation(found: FinalRow, ahead: Sequence[FinalRow], smaller: Sequence[FinalRow]) -> str:
    """One thing to use: the best row ahead, else the smallest that is not shown to be worse, else what was found."""
    if ahead:
        best = min(ahead, key=_gain)
        if best.channels <= found.channels:
            return f"Use {best.name}: it scores better with no more channels."
        return (
            f"Use {best.name}, or the selection found where its size matters: it has {found.channels} channels instead "
            f"of {best.channels}."
        )
    if smaller:
        smallest = min(smaller, key=lambda row: row.channels)
        return f"Use {smallest.name}: it is smaller and not shown to be worse."
    return "Use the selection found."


def _ahead(rows: Sequence[FinalRow], found: FinalRow) -> list[str]:
    if not rows:
        return []
    best = min(rows, key=_gain)
    measured = f"({_difference(best)}, {best.channels} channels against {found.channels})"
    if len(rows) == 1:
        return [f"It is behind {best.name} {measured}."]
    names = _listed([best.name, *(row.name for row in rows if row is not best)])
    return [f"It is behind {names}; the best of them is {best.name} {measured}."]


def _beaten(rows: Sequence[FinalRow]) -> list[str]:
    if not rows:
        return []
    closest = min(rows, key=_gain)
    if len(rows) == 1:
        return [f"It is better than {closest.name} ({_difference(closest)})."]
    names = _listed([row.name for row in rows])
    return [f"It is better than {names}; the closest of them is {closest.name} ({_difference(closest)})."]


def _unclear(row: FinalRow, found: FinalRow) -> str:
    return (
        f"It is not shown to be better than {row.name} ({_difference(row)}, {row.channels} channels against "
        f"{found.channels})."
    )


def _reranked(entries: Sequence[Reranked], probe: str) -> str:
    """How the selection found was taken from the best few."""
    ranked = sorted(entries, key=lambda entry: (-entry.fast_score, entry.trial))
    rank = next(number for number, entry in enumerate(ranked, start=1) if entry.taken)
    by_fast = "also the best by the fast probe" if rank == 1 else f"number {rank} by the fast probe"
    return f"It is the best of {len(entries)} distinct selections by the {probe} probe, and {by_fast}."


def _difference(row: FinalRow) -> str:
    return f"{row.gain:+.3f} [{row.gain_low:+.3f}, {row.gain_high:+.3f}]"


def _gain(row: FinalRow) -> float:
    return row.gain or 0.0


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
