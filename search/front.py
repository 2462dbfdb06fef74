"""The Pareto front of a study: the trials that no other equals or beats in score and costs at once."""

from __future__ import annotations

from collections.abc import Sequence

from diffsift.spaces import Cost
from diffsift.tracking import TrialRecord

from .specification import StudySpecification


def front_costs(specification: StudySpecification) -> tuple[Cost, ...]:
    """The costs that the score is set against.

    Args:
        specification: of the study.

    Returns:
        The objective values beside the score, or channels where the score is the only one.
    """
    return tuple(cost for cost in specification.objectives if cost != "score") or ("channels",)


def pareto_front(records: Sequence[TrialRecord], costs: Sequence[Cost]) -> tuple[TrialRecord, ...]:
    """The Pareto front of finished trials.

    Args:
        records: finished trials.
        costs: each is to be small, as the score is to be large.

    Returns:
        The trials that no other equals or beats in score and in all costs, cheapest first; of equals the first trial.

    Raises:
        StudyError: a cost of a record is not known.
    """
    rows = sorted((-record.score, [record.cost(name) for name in costs], record.number, record) for record in records)
    kept: list[tuple[list[float], TrialRecord]] = []
    for _, own, _, record in rows:  # those before have no lower score
        if not any(all(other <= mine for other, mine in zip(known, own, strict=True)) for known, _ in kept):
            kept.append((own, record))
    return tuple(record for _, record in sorted(kept, key=lambda entry: (entry[0], entry[1].number)))
