"""Our sampler: single candidates first, then greedy growth and local moves around the best selections found."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from diffsift.spaces import WEIGHT_STEP, Candidate, Selection

from ..space import SearchSpace

History = Mapping[Selection, float]
Members = dict[Candidate, float]

_SINGLES_FIRST = 48  # single candidates tried before the first move; further ones come one proposal in three
_ELITE = (0.6, 0.25, 0.15)  # chances of the best selections to be a move's starting point
_MOVES = {"add": 0.35, "swap": 0.3, "retime": 0.15, "reweight": 0.15, "drop": 0.05}
_TRIES = 100


class SiftSampler(BaseSampler):
    """Proposes selections from the study's own history, so that resuming needs no other state.

    1. *warm starts*: selections people make without a search;
    2. *singles*: each activation alone, at its middle timestep first, in a seeded order;
    3. *moves* from one of the best selections so far: add a candidate, swap one, take one at another timestep, change
       a weight, drop one. Which candidate comes in is drawn by the rank of its score alone.

    A selection that was already tried is not proposed again while another can be found. What proposal n is depends on
    the seed and on the n finished trials alone, so a search that was killed goes on as if it had not been.

    Args:
        space: the study's search space.
        seed: of the search.
        warm_starts: selections to try first, where the limits allow them.
    """

    def __init__(self, space: SearchSpace, *, seed: int, warm_starts: Sequence[Selection] = ()) -> None:
        self._space, self._seed = space, seed
        self._warm_starts = [entry for entry in warm_starts if space.allows(dict(entry.members))]
        self._singles = [entry for entry in _stratified(space.pool, seed) if space.allows({entry: 1.0})]
        self._independent = RandomSampler(seed=seed)
        self._read: dict[int, Selection] = {}  # by trial number: finished trials do not change
        self.stage_of: dict[int, str] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        for entry in finished:
            if entry.number not in self._read:
                self._read[entry.number] = self._space.read(entry)
        history = {self._read[entry.number]: float(entry.values[0]) for entry in finished}
        selection, self.stage_of[trial.number] = self.propose(history)
        return self._space.parameters(selection)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def propose(self, history: History) -> tuple[Selection, str]:
        """The next selection and the stage it comes from."""
        rng = np.random.default_rng([self._seed, len(history)])
        for selection in self._warm_starts:
            if selection not in history:
                return selection, "warm start"
        untried = [candidate for candidate in self._singles if Selection.of([candidate]) not in history]
        tried = len(self._singles) - len(untried)
        if untried and (tried < _SINGLES_FIRST or len(history) % 3 == 0):
            return Selection.of(untried[:1]), "single"
        ranked = self._by_single_score(history)
        parents = sorted(history, key=history.__getitem__, reverse=True)[: len(_ELITE)]
        chances = np.array(_ELITE[: len(parents)])
        for _ in range(_TRIES):
            parent = parents[int(rng.choice(len(parents), p=chances / chances.sum()))]
            move = str(rng.choice(list(_MOVES), p=list(_MOVES.values())))
            members = _MOVE_OF[move](dict(parent.members), ranked, rng)
            if members is not None and self._space.allows(members) and (found := Selection.of(members)) not in history:
                return found, move
        return self._anything(history, rng), "random"

    def _by_single_score(self, history: History) -> list[Candidate]:
        """The pool, best alone first; what was not tried alone ranks in the middle."""
        alone = {entry.candidates[0]: score for entry, score in history.items() if len(entry.members) == 1}
        middle = float(np.median(list(alone.values()))) if alone else 0.0
        return sorted(self._space.pool, key=lambda candidate: -alone.get(candidate, middle))

    def _anything(self, history: History, rng: np.random.Generator) -> Selection:
        """A random selection, new if one is met within some tries."""
        for attempt in range(_TRIES):
            count = int(rng.integers(1, self._space.limits.activations + 1))
            drawn = rng.choice(len(self._space.pool), size=count, replace=False)
            # In a small pool all at equal weights may have been tried.
            weights = np.ones(count) if attempt < _TRIES // 2 else rng.uniform(WEIGHT_STEP, 1.0, size=count)
            found = self._space.repaired(
                {self._space.pool[int(i)]: float(weight) for i, weight in zip(drawn, weights, strict=True)}
            )
            if found not in history:
                break
        return found


def _stratified(pool: Sequence[Candidate], seed: int) -> list[Candidate]:
    """Every activation once at its middle timestep, in random order, then every one at another timestep, and so on."""
    rng = np.random.default_rng([seed, 0x51F7])
    by_activation: dict[tuple[str, str], list[Candidate]] = {}
    for candidate in sorted(pool):
        by_activation.setdefault((candidate.backbone, candidate.activation), []).append(candidate)
    rounds: dict[int, list[Candidate]] = {}
    for members in by_activation.values():
        middle = len(members) // 2
        for order, candidate in enumerate(sorted(members, key=lambda c: abs(members.index(c) - middle))):
            rounds.setdefault(order, []).append(candidate)
    return [entry[int(i)] for _, entry in sorted(rounds.items()) for i in rng.permutation(len(entry))]


def _draw(ranked: Sequence[Candidate], members: Members, rng: np.random.Generator) -> Candidate | None:
    """A candidate outside `members`, the better alone the likelier."""
    outside = [candidate for candidate in ranked if candidate not in members]
    if not outside:
        return None
    chances = np.exp(-np.arange(len(outside)) / max(1.0, len(outside) / 5))
    return outside[int(rng.choice(len(outside), p=chances / chances.sum()))]


def _one_of(members: Members, rng: np.random.Generator) -> Candidate:
    return list(members)[int(rng.integers(len(members)))]


def _add(members: Members, ranked: Sequence[Candidate], rng: np.random.Generator) -> Members | None:
    new = _draw(ranked, members, rng)
    return None if new is None else {**members, new: 1.0}


def _swap(members: Members, ranked: Sequence[Candidate], rng: np.random.Generator) -> Members | None:
    new = _draw(ranked, members, rng)
    if new is None:
        return None
    old = _one_of(members, rng)
    return {(new if candidate == old else candidate): weight for candidate, weight in members.items()}


def _retime(members: Members, ranked: Sequence[Candidate], rng: np.random.Generator) -> Members | None:
    old = _one_of(members, rng)
    others = [
        candidate
        for candidate in ranked
        if (candidate.backbone, candidate.activation) == (old.backbone, old.activation) and candidate not in members
    ]
    if not others:
        return None
    new = others[int(rng.integers(len(others)))]
    return {(new if candidate == old else candidate): weight for candidate, weight in members.items()}


def _reweight(members: Members, ranked: Sequence[Candidate], rng: np.random.Generator) -> Members | None:
    if len(members) == 1:
        return None
    changed = _one_of(members, rng)
    return {**members, changed: members[changed] * float(rng.choice([0.35, 0.6, 1.6, 2.8]))}


def _drop(members: Members, ranked: Sequence[Candidate], rng: np.random.Generator) -> Members | None:
    gone = _one_of(members, rng)
    return {candidate: weight for candidate, weight in members.items() if candidate != gone} or None


_Move = Callable[[Members, Sequence[Candidate], np.random.Generator], Members | None]
_MOVE_OF: dict[str, _Move] = {"add": _add, "swap": _swap, "retime": _retime, "reweight": _reweight, "drop": _drop}
