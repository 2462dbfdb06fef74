"""Our sampler: a model of the score over selections, asked about what is one move away from the best ones."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr
from threadpoolctl import ThreadpoolController

from diffsift.spaces import WEIGHT_STEP, Candidate, Selection, declared_similarity

from ..space import SearchSpace
from ._moves import Family, Moves, rated
from ._surrogate import Placed, Settings, Similarities, Surrogate, most_likely

Array = np.ndarray[Any, Any]
History = dict[Selection, float]

_SPREAD = 7  # single candidates, far from one another, that are scored before there is a model
_DRAWN = 3  # full selections drawn at random after them: how much further members are worth
_REFIT = 20  # finished trials after which the model's settings are chosen anew
_FIT = 120  # selections that settings are chosen on
_KNOWN = 150  # selections that the model is given
_PARENTS = (2, 2)  # the best, and some drawn among the best twenty
_OFFERED = 1200  # selections that the model is asked about
_REWEIGHT_FROM, _REWEIGHT_EVERY = 60, 4  # weights matter little in a ridge probe: they come late and seldom
_WINDOW = 40  # trials after which the search starts afresh elsewhere, if they brought nothing better
_TRIES = 100


class SubsetGPSampler(BaseSampler):
    """Proposes selections from the study's own history, so that resuming needs no other state.

    1. *warm starts*: selections people make without a search;
    2. *spread*: single candidates that are as unlike one another as the pool has them, then a few *drawn* at random;
    3. moves from the best selections so far: *add* a candidate, *swap* or *drop* one, *retime* one or all (to another
       timestep, or another variant of the model), *reweight* one, or another *single*. Of all these the one with the
       highest expected improvement is proposed, by a Gaussian process over selections that knows how alike the features
       of two selections are; labels are not looked at.

    A selection that was already tried is not proposed again while another can be found. What proposal n is depends on
    the seed and on the n finished trials alone, so a search that was killed goes on as if it had not been.

    Works in any Optuna study that maximises and whose trials are read with `SearchSpace.suggest`.

    Args:
        space: the study's search space.
        seed: of the search.
        warm_starts: selections to try first, where the limits allow them.
        costs: any of "channels", "passes" and "operations", which are to be small too: every second move is the best
            within what a finished trial costs, drawn anew each time.
        similarity: of every two candidates of the pool, 1 on the diagonal, positive semi-definite, as
            `diffsift.objectives.similarity` measures it on a bank; default: by their names and timesteps.
        skip: stages to leave out, by the names above and *restart*; where nothing is left, selections are drawn.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        warm_starts: Sequence[Selection] = (),
        costs: Sequence[str] = (),
        similarity: Float[np.ndarray, "pool pool"] | None = None,
        skip: Collection[str] = (),
    ) -> None:
        self._space, self._seed, self._costs, self._skip = space, seed, tuple(costs), frozenset(skip)
        allowed = [entry for entry in warm_starts if space.allows(dict(entry.members))]
        self._warm_starts = [] if "warm start" in skip else allowed
        similarity = declared_similarity(space.pool) if similarity is None else similarity
        self._similarities = Similarities(similarity)
        self._singles = np.array([i for i, entry in enumerate(space.pool) if space.allows({entry: 1.0})])
        self._spread = [] if "spread" in skip else _far_apart(similarity, self._singles, _SPREAD)
        self._drawn = 0 if "drawn" in skip else _DRAWN
        self._moves = Moves(space.pool, space.limits.activations, space.variants)
        self._independent = RandomSampler(seed=seed)
        self._finished: dict[Selection, float] = {}
        self._read: set[int] = set()  # numbers of finished trials, which do not change
        self._settled = 0  # trials from the first on that have all ended
        self._known = _Known(space.pool, space.limits.activations, restarts="restart" not in skip)
        self._pools = ThreadpoolController()  # made once: to look for thread pools takes milliseconds
        self.stage_of: dict[int, str] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        pending = set()
        trials = study.get_trials(deepcopy=False)
        for entry in trials[self._settled :]:
            if entry.state == TrialState.COMPLETE and entry.number not in self._read:
                self._read.add(entry.number)
                self._finished.setdefault(self._space.read(entry), float(entry.values[0]))
            elif (
                entry.state == TrialState.RUNNING
                and entry.number != trial.number
                and self._space.is_complete(entry.params)
            ):
                pending.add(self._space.read(entry))
        while self._settled < len(trials) and trials[self._settled].state.is_finished():
            self._settled += 1
        selection, self.stage_of[trial.number] = self.propose(self._finished, frozenset(pending))
        return self._space.parameters(selection)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def propose(self, history: History, pending: frozenset[Selection] = frozenset()) -> tuple[Selection, str]:
        """The next selection and the stage it comes from.

        Args:
            history: scores of finished trials in their order; it may only grow from call to call.
            pending: what other workers are scoring; taken to score as the model expects.
        """
        rng = np.random.default_rng([self._seed, len(history), len(pending)])
        for selection in self._warm_starts:
            if selection not in history and selection not in pending:
                return selection, "warm start"
        for position in self._spread:
            selection = Selection.of([self._space.pool[position]])
            if selection not in history and selection not in pending:
                return selection, "spread"
        begun = len(self._warm_starts) + len(self._spread)
        if not history or len(history) + len(pending) < begun + self._drawn:
            return self._anything(history, pending, rng), "drawn"
        self._known.learn(history)
        if self._known.count % _WINDOW == 0 and self._known.starts_afresh(self._known.count // _WINDOW):
            return self._anything(history, pending, rng), "restart"
        with self._pools.limit(limits=1):  # more threads make products this small slower
            found = self._expected_best(history, pending, rng)
        return found or (self._anything(history, pending, rng), "drawn")

    def _expected_best(
        self, history: History, pending: frozenset[Selection], rng: np.random.Generator
    ) -> tuple[Selection, str] | None:
        """The untried selection of highest expected improvement among moves from the best ones."""
        settings = self._known.settings(self._seed, self._similarities)
        similarity = self._similarities.at(settings.distinctness)
        model, inner = self._model(settings, pending, rng)
        task = self._task(rng)
        families = self._families(task.rows, rng)
        if not families:
            return None
        mean, deviation = model.predict(*rated(families, inner, similarity, self._space.limits.activations))
        gain = _log_expected_improvement(mean, deviation, float(self._known.scores[task.rows].max()))
        starts = np.cumsum([0, *map(len, families)])
        for place in np.argsort(-gain, kind="stable"):
            which = int(np.searchsorted(starts, place, side="right")) - 1
            members = families[which].members(int(place - starts[which]))
            proposed = {self._space.pool[position]: weight for position, weight in members.items()}
            if self._space.allows(proposed) and task.admits(self._space, proposed):
                if self._known.holds_equal(members):
                    continue
                selection = Selection.of(proposed)
                if selection not in history and selection not in pending:
                    return selection, families[which].stage
        return None

    def _model(
        self, settings: Settings, pending: frozenset[Selection], rng: np.random.Generator
    ) -> tuple[Surrogate, Float[np.ndarray, "pool observed"]]:
        """The surrogate of what is known, with what is pending at its expected score; and <P_a, P_S> of all that."""
        known, similarity = self._known, self._similarities.at(settings.distinctness)
        rows = known.informative(known.count, _KNOWN, rng)
        places, scores = Placed.at(known.positions[rows], known.squares[rows], similarity), known.scores[rows]
        model = Surrogate(places, scores, settings)
        if pending:
            others = Placed.at(*known.written(sorted(pending, key=lambda selection: selection.key)), similarity)
            expected, _ = model.predict(others.products(places), others.norm, others.size)
            places = places.joined(others)
            model = Surrogate(places, np.concatenate([scores, expected]), settings)
        return model, np.ascontiguousarray(places.inner.T)

    def _task(self, rng: np.random.Generator) -> _Task:
        """What is to be improved: the best of all, of the trials since a fresh start, or of those that cost little.

        A window of trials is a fresh start where the window before it brought nothing better than what was known.
        """
        count = self._known.count
        if self._costs and count % 2:
            name = self._costs[int(rng.integers(len(self._costs)))]
            costs = [self._space.cost(name, map(self._space.pool.__getitem__, m)) for m in self._known.all_members()]
            bound = costs[int(rng.integers(count))]
            return _Task(np.flatnonzero(np.array(costs) <= bound), name, bound)
        start = count // _WINDOW * _WINDOW
        fresh = self._known.starts_afresh(count // _WINDOW) and start < count
        return _Task(np.arange(start if fresh else 0, count))

    def _families(self, rows: Array, rng: np.random.Generator) -> list[Family]:
        """Moves from the best of some trials and from a few other good ones, and single candidates."""
        order = self._known.order if len(rows) == self._known.count else self._known.ordered(rows)
        best, drawn = _PARENTS
        parents = order[:best].tolist()
        later = order[best:20]
        parents += rng.choice(later, min(drawn, len(later)), replace=False).tolist()
        moves_each = self._space.limits.activations + 1
        count = max(8, _OFFERED // (len(parents) * moves_each))
        trials = self._known.count
        weights = trials >= _REWEIGHT_FROM and trials % _REWEIGHT_EVERY == 0
        found = [Family({}, _some(self._singles, _OFFERED // 5, rng), "single")]
        for parent in parents:
            offered = _some(self._singles, count, rng)
            found += self._moves.around(self._known.members(parent), offered, weights=rng if weights else None)
        return [family for family in found if len(family) and family.stage not in self._skip]

    def _anything(self, history: History, pending: frozenset[Selection], rng: np.random.Generator) -> Selection:
        """A random selection, new if one is met within some tries."""
        for attempt in range(_TRIES):
            full = attempt < _TRIES // 4
            most = min(self._space.limits.activations, len(self._space.pool))
            count = most if full else int(rng.integers(1, most + 1))
            drawn = rng.choice(len(self._space.pool), size=count, replace=False)
            # In a small pool all at equal weights may have been tried.
            weights = np.ones(count) if attempt < _TRIES // 2 else rng.uniform(WEIGHT_STEP, 1.0, size=count)
            found = self._space.repaired(
                {self._space.pool[int(i)]: float(weight) for i, weight in zip(drawn, weights, strict=True)}
            )
            if found not in history and found not in pending:
                break
        return found


@dataclass(frozen=True)
class _Task:
    """Trials whose best is to be improved on, and what a selection may cost for that."""

    rows: Int[np.ndarray, "trials"]
    cost: str = ""
    bound: float = 0.0

    def admits(self, space: SearchSpace, members: Iterable[Candidate]) -> bool:
        return not self.cost or space.cost(self.cost, members) <= self.bound


class _Known:
    """Finished selections as arrays that grow, in the order of the history.

    Attributes:
        positions: of the members in the pool, and 0 where there are fewer.
        squares: of their weights, and 0 where there are fewer.
        scores: of the selections.
    """

    def __init__(self, pool: Sequence[Candidate], most: int, *, restarts: bool) -> None:
        self._most, self._at = most, {candidate: position for position, candidate in enumerate(pool)}
        self._restarts = restarts
        self._source: History = {}
        self._forget()

    def _forget(self) -> None:
        self.count = 0
        self._positions, self._squares, self._scores = *self.written([]), np.empty(0)
        self._settings: tuple[int, Settings] | None = None
        self._order: tuple[int, Array] | None = None
        self._afresh: dict[int, bool] = {}
        self._equal: set[frozenset[int]] = set()

    positions = property(lambda self: self._positions[: self.count])
    squares = property(lambda self: self._squares[: self.count])
    scores = property(lambda self: self._scores[: self.count])

    def learn(self, history: History) -> None:
        """Take up what was added to a history, or another history as a whole."""
        if history is not self._source or len(history) < self.count:
            self._source = history
            self._forget()
        fresh = list(islice(reversed(history.items()), len(history) - self.count))[::-1]
        end = self.count + len(fresh)
        new = (*self.written([selection for selection, _ in fresh]), np.array([score for _, score in fresh]))
        for name, added in zip(("_positions", "_squares", "_scores"), new, strict=True):
            old = getattr(self, name)
            if end > len(old):  # twice as much room, so that growing costs little a trial
                old = np.concatenate([old[: self.count], np.zeros((2 * end - self.count, *old.shape[1:]), old.dtype)])
                setattr(self, name, old)
            old[self.count : end] = added
        self.count = end
        self._equal.update(
            frozenset(self._at[candidate] for candidate in selection.candidates)
            for selection, _ in fresh
            if all(weight == 1.0 for _, weight in selection.members)
        )

    def holds_equal(self, members: Mapping[int, float]) -> bool:
        """Whether these are at equal weights and known: a quick answer for most of what was tried."""
        return len(set(members.values())) == 1 and frozenset(members) in self._equal

    def ordered(self, rows: Array) -> Array:
        """Some rows, the best first, of equals the earlier."""
        return np.asarray(rows[np.argsort(-self.scores[rows], kind="stable")])

    @property
    def order(self) -> Array:
        """All rows, the best first."""
        if self._order is None or self._order[0] != self.count:
            self._order = (self.count, self.ordered(np.arange(self.count)))
        return self._order[1]

    def written(self, selections: Sequence[Selection]) -> tuple[Array, Array]:
        """Positions and squared weights of the members of selections."""
        positions = np.zeros((len(selections), self._most), dtype=np.int64)
        squares = np.zeros((len(selections), self._most))
        for row, selection in enumerate(selections):
            for column, (candidate, weight) in enumerate(selection.members):
                positions[row, column], squares[row, column] = self._at[candidate], weight**2
        return positions, squares

    def members(self, row: int) -> dict[int, float]:
        """Of a finished selection."""
        pairs = zip(self.positions[row].tolist(), self.squares[row].tolist(), strict=True)
        return {position: square**0.5 for position, square in pairs if square > 0}

    def all_members(self) -> Iterable[list[int]]:
        """Positions of the members of each finished selection."""
        for positions, squares in zip(self.positions.tolist(), self.squares.tolist(), strict=True):
            yield [position for position, square in zip(positions, squares, strict=True) if square > 0]

    def starts_afresh(self, window: int) -> bool:
        """Whether a window of trials is a fresh start; two in a row are not."""
        start = window * _WINDOW
        if not self._restarts or window < 2:
            return False
        if window not in self._afresh:  # what a window is does not change
            brought = self.scores[start - _WINDOW : start].max() > self.scores[: start - _WINDOW].max()
            self._afresh[window] = not (brought or self.starts_afresh(window - 1))
        return self._afresh[window]

    def settings(self, seed: int, similarities: Similarities) -> Settings:
        """Of the kernel, chosen anew every `_REFIT` trials from those finished until then."""
        until = self.count if self.count < _REFIT else self.count // _REFIT * _REFIT
        if self._settings is None or self._settings[0] != until:
            rows = self.informative(until, _FIT, np.random.default_rng([seed, until, 0xF17]))
            found = most_likely(self.positions[rows], self.squares[rows], self.scores[rows], similarities)
            self._settings = (until, found)
        return self._settings[1]

    def informative(self, until: int, most: int, rng: np.random.Generator) -> Array:
        """Rows of the first trials: three in five the best, one in five the last, the rest drawn."""
        if until <= most:
            return np.arange(until)
        order = self.order if until == self.count else self.ordered(np.arange(until))
        kept = np.zeros(until, dtype=bool)
        kept[order[: most * 3 // 5]] = kept[until - most // 5 :] = True
        rest = np.flatnonzero(~kept)
        kept[rng.choice(rest, most - (until - len(rest)), replace=False)] = True
        return np.flatnonzero(kept)


def _far_apart(similarity: Array, allowed: Array, count: int) -> list[int]:
    """The candidate most like all others, then each time the one least like those taken."""
    if not len(allowed):
        return []
    within = similarity[np.ix_(allowed, allowed)]
    taken = [int(within.sum(0).argmax())]
    while len(taken) < min(count, len(allowed)):
        nearest = within[:, taken].max(1)
        nearest[taken] = np.inf
        taken.append(int(nearest.argmin()))
    return [int(allowed[position]) for position in taken]


def _some(positions: Array, count: int, rng: np.random.Generator) -> Array:
    return positions if len(positions) <= count else np.sort(rng.choice(positions, count, replace=False))


def _log_expected_improvement(mean: Array, deviation: Array, best: float) -> Array:
    """Log E[max(score - best, 0)] of normal scores, stable far below the best (Ament et al., NeurIPS 2023)."""
    u = (mean - best) / deviation
    density = np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi)
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.log(np.maximum(density + u * ndtr(u), 1e-300))
        # For u << 0: phi(u) + u Phi(u) = phi(u) (1 + u Phi(u) / phi(u)), and that is about phi(u) / u^2.
        far = -0.5 * u**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(np.maximum(-u, 1e-9))
    return np.asarray(np.where(u > -6, near, far) + np.log(deviation))
