"""Warm starts from earlier studies: their best selections, translated into the candidates of this one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from diffsift.spaces import Candidate, Selection
from diffsift.tracking import ActivationDecision, Ledger

from .space import SearchSpace

ActivationId = tuple[str, str]
"""A backbone and one of its activations."""

MOST = 5
"""Selections taken from a study."""


@dataclass(frozen=True)
class Role:
    """What an activation is in its network: its kind, and its depth as a share of the network's deepest."""

    kind: str
    depth: float


def roles(decisions: Iterable[ActivationDecision]) -> dict[ActivationId, Role]:
    """The role of every activation of a study's models."""
    entries = list(decisions)
    deepest: dict[str, int] = {}
    for entry in entries:
        deepest[entry.backbone] = max(entry.depth, deepest.get(entry.backbone, 1))
    return {(e.backbone, e.name): Role(e.kind, e.depth / deepest[e.backbone]) for e in entries}


def translated(
    selection: Selection,
    there: Mapping[ActivationId, Role],
    pool: Sequence[Candidate],
    here: Mapping[ActivationId, Role],
) -> tuple[dict[Candidate, float], list[Candidate]]:
    """An earlier study's selection in the candidates of this pool.

    A member keeps its name where the pool has it; else the activation of the same kind at the closest relative depth
    stands for it. Of several timesteps the closest is taken; of members that meet in one candidate, the heaviest.

    Args:
        selection: of the earlier study.
        there: roles of its activations.
        pool: candidates of this study.
        here: roles of theirs.

    Returns:
        The members, and those of `selection` that nothing stands for.
    """
    members: dict[Candidate, float] = {}
    left_out = []
    for candidate, weight in selection.members:
        spot = (candidate.backbone, candidate.activation)
        namesakes = [entry for entry in pool if (entry.backbone, entry.activation) == spot]
        role = there.get(spot)
        alike = namesakes or [
            entry for entry in pool if role is not None and here[entry.backbone, entry.activation].kind == role.kind
        ]
        if not alike:
            left_out.append(candidate)
            continue

        def distance(entry: Candidate, old: Candidate = candidate, role: Role | None = role) -> tuple[float, int]:
            away = 0.0 if role is None else abs(here[entry.backbone, entry.activation].depth - role.depth)
            return away, abs(entry.timestep - old.timestep)

        found = min(sorted(alike), key=distance)
        members[found] = max(weight, members.get(found, 0.0))
    return members, left_out


def require_warm_starts(ledger: Ledger, studies: Iterable[str]) -> None:
    """Check, before anything is done, that the studies of warm starts exist.

    Args:
        ledger: of the database that holds them.
        studies: names.

    Raises:
        StudyError: there is no study of a name in the database.
    """
    for name in studies:
        ledger.evaluated(name)


def earlier_bests(
    ledger: Ledger, studies: Sequence[str], space: SearchSpace, decisions: Iterable[ActivationDecision]
) -> tuple[list[Selection], list[str]]:
    """The best selections of earlier studies, as this study can try them.

    Args:
        ledger: of the database that holds all of them.
        studies: names, in the order in which their selections are tried.
        space: pool and limits of this study.
        decisions: about the activations of this study's models.

    Returns:
        At most `MOST` selections of each study, and notes on what could not be taken over.

    Raises:
        StudyError: there is no such study.
    """
    here = roles(decisions)
    found: list[Selection] = []
    notes = []
    for name in studies:
        there = roles(ledger.decisions(name))
        ranked = sorted(ledger.evaluations(name), key=lambda entry: -entry.score)
        if not ranked:
            notes.append(f"study {name} has no finished selection to start from")
        left_out: dict[Candidate, None] = {}
        taken: list[Selection] = []
        for entry in ranked:
            if len(taken) == MOST:
                break
            members, lost = translated(entry.selection, there, space.pool, here)
            if not members:
                left_out.update(dict.fromkeys(lost))
                continue
            selection = space.repaired(members)
            if selection not in taken:
                taken.append(selection)
                left_out.update(dict.fromkeys(lost))
        if left_out:
            notes.append(
                f"left out, because this pool has no replacement: {', '.join(map(str, left_out))} of study {name}"
            )
        found += [selection for selection in taken if selection not in found]
    return found, notes
