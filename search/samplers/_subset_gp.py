"""Our sampler: a model of the score over selections, asked about what is one move away from the best ones."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
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
from ._history import FinishedSelections, Rows, Scores, SubsetGPOptions
from ._moves import Family, Moves, rated
from ._surrogate import PlacedSelections, Settings, Similarities, Surrogate

_DEFAULTS = SubsetGPOptions()


class SubsetGPSampler(BaseSampler):
    """Proposes selections from the study's own history, so that resuming needs no other state.

    1. *warm starts*: selections that are known to be good without a search;
    2. *spread*: single candidates that differ from one another as much as the pool allows, then a few full selections
       *drawn* at random;
    3. moves from the best selections so far: *add* a candidate, *swap* or *drop* one, *retime* one or all (to another
       timestep, or another variant of the model), *reweight* one, or another *single*. Of all moves the one with the
       highest expected improvement is proposed. A Gaussian process over selections predicts their scores; its kernel
       is the similarity of their features, for which no labels are needed.

    A selection that was tried is not proposed again while another can be found. Proposal n depends on the seed and the
    n finished trials alone, so a search that was killed goes on as if it had not been.

    Works in any Optuna study that maximises and whose trials are read with `SearchSpace.suggest`.

    Args:
        space: the study's search space.
        seed: of the search.
        warm_starts: selections to try first, where the limits allow them.
        costs: any of "channels", "passes" and "operations", which are to be small too: every second move is the best
            within what a finished trial costs, drawn anew each time.
        similarity: of every two candidates of the pool, 1 on the diagonal, positive semi-definite, as
            `diffsift.objectives.similarity` measures it on a bank; default: by their names and timesteps.
        options: constants of the search, and stages to leave out: those above in italics, *restart* among them. Where
            nothing is left, selections are drawn.

    Attributes:
        stage_of: the stage that proposed each trial of this process, by trial number.
    """

    def __init__(
        self,
        space: SearchSpace,
        *,
        seed: int,
        warm_starts: Sequence[Selection] = (),
        costs: Sequence[str] = (),
        similarity: Float[np.ndarray, "pool pool"] | None = None,
        options: SubsetGPOptions = _DEFAULTS,
    ) -> None:
        self._space, self._seed, self._costs, self._options = space, seed, tuple(costs), options
        skip, most = options.skip, space.limits.activations
        allowed = [entry for entry in warm_starts if space.allows(dict(entry.members))]
        self._warm_starts = [] if "warm start" in skip else allowed
        similarity = declared_similarity(space.pool) if similarity is None else similarity
        self._similarities = Similarities(similarity)
        self._singles = np.array([i for i, entry in enumerate(space.pool) if space.allows({entry: 1.0})])
        self._spread = [] if "spread" in skip else _far_apart(similarity, self._singles, options.spread)
        self._drawn = 0 if "drawn" in skip else options.drawn
        self._moves = Moves(space.pool, most, space.variants)
        self._independent = RandomSampler(seed=seed)
        self._finished: Scores = {}
        self._read: set[int] = set()  # numbers of finished trials, which do not change
        self._ended = 0  # trials from the first on that have all ended
        self._known = FinishedSelections(space.pool, most, options)
        self._pools = ThreadpoolController()  # made once: to look for thread pools takes milliseconds
        self.stage_of: dict[int, str] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space.distributions

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        pending = set()
        trials = study.get_trials(deepcopy=False)
        for entry in trials[self._ended :]:
            if entry.state == TrialState.COMPLETE and entry.number not in self._read:
                self._read.add(entry.number)
                if not self._space.is_complete(entry.params):
                    continue  # of another search space
                self._finished.setdefault(self._space.read(entry), float(entry.values[0]))
            elif (
                entry.state == TrialState.RUNNING
                and entry.number != trial.number
                and self._space.is_complete(entry.params)
            ):
                pending.add(self._space.read(entry))
        while self._ended < len(trials) and trials[self._ended].state.is_finished():
            self._ended += 1
        selection, self.stage_of[trial.number] = self.propose(self._finished, frozenset(pending))
        return self._space.parameters(selection)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._independent.sample_independent(study, trial, param_name, param_distribution)

    def propose(self, history: Scores, pending: frozenset[Selection] = frozenset()) -> tuple[Selection, str]:
        """Propose a selection.

        Args:
            history: scores of finished trials in their order; it may only grow from call to call.
            pending: what other processes evaluate; taken to score as the model expects.

        Returns:
            The selection, and the stage that it comes from.
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
        window, rest = divmod(self._known.count, self._options.window)
        if rest == 0 and self._known.starts_afresh(window):
            return self._anything(history, pending, rng), "restart"
        with self._pools.limit(limits=1):  # more threads make products this small slower
            found = self._expected_best(history, pending, rng)
        return found or (self._anything(history, pending, rng), "drawn")

    def _expected_best(
        self, history: Scores, pending: frozenset[Selection], rng: np.random.Generator
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
        for index in np.argsort(-gain, kind="stable"):
            which = int(np.searchsorted(starts, index, side="right")) - 1
            members = families[which].members(int(index - starts[which]))
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
        rows = known.informative(known.count, self._options.model_rows, rng)
        observed, scores = (
            PlacedSelections.at(known.positions[rows], known.squares[rows], similarity),
            known.scores[rows],
        )
        model = Surrogate(observed, scores, settings)
        if pending:
            others = PlacedSelections.at(
                *known.arrays(sorted(pending, key=lambda selection: selection.key)), similarity
            )
            expected, _ = model.predict(others.products(observed), others.norm, others.size)
            observed = observed.joined(others)
            model = Surrogate(observed, np.concatenate([scores, expected]), settings)
        return model, np.ascontiguousarray(observed.inner.T)

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
        window, since = divmod(count, self._options.window)
        fresh = since > 0 and self._known.starts_afresh(window)
        return _Task(np.arange(count - since if fresh else 0, count))

    def _families(self, rows: Rows, rng: np.random.Generator) -> list[Family]:
        """Moves from the best of some trials and from a few other good ones, and single candidates."""
        order = self._known.order if len(rows) == self._known.count else self._known.ordered(rows)
        best, drawn = self._options.best_parents, self._options.drawn_parents
        parents = order[:best].tolist()
        later = order[best:20]
        parents += rng.choice(later, min(drawn, len(later)), replace=False).tolist()
        moves_each = self._space.limits.activations + 1
        count = max(8, self._options.rated // (len(parents) * moves_each))
        trials = self._known.count
        weights = trials >= self._options.reweight_from and trials % self._options.reweight_every == 0
        found = [Family({}, _some(self._singles, self._options.rated // 5, rng), "single")]
        for parent in parents:
            offered = _some(self._singles, count, rng)
            found += self._moves.around(self._known.members(parent), offered, weights=rng if weights else None)
        return [family for family in found if len(family) and family.stage not in self._options.skip]

    def _anything(self, history: Scores, pending: frozenset[Selection], rng: np.random.Generator) -> Selection:
        """A random selection, new if one is met within some tries."""
        pool, tries, attempt = self._space.pool, self._options.tries, 0
        most = min(self._space.limits.activations, len(pool))
        while True:
            count = most if attempt < tries // 4 else int(rng.integers(1, most + 1))
            drawn = rng.choice(len(pool), size=count, replace=False)
            # In a small pool all at equal weights may have been tried.
            weights = np.ones(count) if attempt < tries // 2 else rng.uniform(WEIGHT_STEP, 1.0, size=count)
            members = {pool[int(i)]: float(weight) for i, weight in zip(drawn, weights, strict=True)}
            selection = self._space.repaired(members)
            attempt += 1
            if (selection not in history and selection not in pending) or attempt >= tries:
                return selection


@dataclass(frozen=True)
class _Task:
    """Trials whose best is to be improved on, and what a selection may cost for that."""

    rows: Int[np.ndarray, "trials"]
    cost: str = ""
    bound: float = 0.0

    def admits(self, space: SearchSpace, members: Iterable[Candidate]) -> bool:
        return not self.cost or space.cost(self.cost, members) <= self.bound


def _far_apart(
    similarity: Float[np.ndarray, "pool pool"], allowed: Int[np.ndarray, "allowed"], count: int
) -> list[int]:
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


def _some(positions: Int[np.ndarray, "all"], count: int, rng: np.random.Generator) -> Int[np.ndarray, "some"]:
    return positions if len(positions) <= count else np.sort(rng.choice(positions, count, replace=False))


def _log_expected_improvement(
    mean: Float[np.ndarray, "moves"], deviation: Float[np.ndarray, "moves"], best: float
) -> Float[np.ndarray, "moves"]:
    """Log E[max(score - best, 0)] of normal scores, stable far below the best (Ament et al., NeurIPS 2023)."""
    u = (mean - best) / deviation
    density = np.exp(-0.5 * u**2) / np.sqrt(2 * np.pi)
    with np.errstate(divide="ignore", invalid="ignore"):
        near = np.log(np.maximum(density + u * ndtr(u), 1e-300))
        # For u << 0: phi(u) + u Phi(u) = phi(u) (1 + u Phi(u) / phi(u)), and that is about phi(u) / u^2.
        far = -0.5 * u**2 - 0.5 * np.log(2 * np.pi) - 2 * np.log(np.maximum(-u, 1e-9))
    return np.asarray(np.where(u > -6, near, far) + np.log(deviation))
