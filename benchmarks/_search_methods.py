"""The ways of searching that `search_quality.py` compares. Each asks a `Meter` for scores until that has enough."""

from __future__ import annotations

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
import torch
from _search_cells import Cell
from sklearn.base import BaseEstimator
from sklearn.feature_selection import SequentialFeatureSelector
from sklearn.utils import Tags

from diffsift.search import SAMPLERS, SamplerSetup, SearchSpace
from diffsift.spaces import Candidate, Selection

Array = np.ndarray[Any, Any]
OURS, BARE = "sift", "sift from nothing"
_REPEATS = 50
"""Proposals in a row that were evaluated before, which costs no evaluation, until a method counts as ended."""


class SpentError(BaseException):
    """The budget of evaluations is used up. Not an `Exception`: scikit-learn goes on after one in a score."""


@dataclass
class Meter:
    """Counts evaluations: distinct candidate sets that were scored or solved on labels.

    Attributes:
        budget: evaluations until `SpentError`.
        known: scores that any method has asked for, so that none is computed twice; they cost an evaluation all the
            same.
        curve: best score after each evaluation.
        best: (evaluation, selection) of each improvement.
        probe_seconds: the processor's, of the scores computed here.
    """

    cell: Cell
    budget: int
    known: dict[Selection, float]
    curve: list[float] = field(default_factory=list)
    best: list[tuple[int, Selection]] = field(default_factory=list)
    probe_seconds: list[float] = field(default_factory=list)
    _asked: set[Selection] = field(default_factory=set)

    def score(self, selection: Selection) -> float:
        if selection not in self.known:
            started = time.process_time()
            self.known[selection] = self.cell.score(selection)
            self.probe_seconds.append(time.process_time() - started)
        value = self.known[selection]
        if selection not in self._asked:
            if len(self.curve) >= self.budget:
                raise SpentError
            self._asked.add(selection)
            if not self.curve or value > self.curve[-1]:
                self.best.append((len(self.curve), selection))
            self.curve.append(max(value, self.curve[-1]) if self.curve else value)
        return value

    def look(self, times: int = 1) -> None:
        """Labels were looked at without a selection to show for it: a step of a gradient."""
        for _ in range(times):
            if len(self.curve) >= self.budget:
                raise SpentError
            self.curve.append(self.curve[-1] if self.curve else -np.inf)

    def best_at(self, evaluations: int) -> Selection | None:
        """The best selection after so many evaluations."""
        return next((selection for count, selection in reversed(self.best) if count < evaluations), None)


def by_sampler(kind: str, *, start: bool = True) -> Callable[[Cell, Meter, int], None]:
    """Optuna's study in memory with a sampler of `diffsift.search`, as a search makes it.

    Without a `start`, ours begins with neither backward elimination nor what people do without a search.
    """

    def run(cell: Cell, meter: Meter, seed: int) -> None:
        space = SearchSpace(cell.pool, cell.channels, cell.limits).encoded(SAMPLERS[kind].encoding)
        warm_starts = list(cell.rules) if start else []
        if kind == OURS and start:
            left, solves = cell.eliminate()
            meter.look(solves)
            warm_starts = [*([left] if left else []), *warm_starts]
        setup = SamplerSetup(space, seed=seed, similarity=cell.similarity, warm_starts=warm_starts)
        sampler = SAMPLERS[kind].make(setup)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        repeated = 0
        while repeated < _REPEATS:
            trial = study.ask()
            before = len(meter.curve)
            study.tell(trial, meter.score(space.suggest(trial)))
            repeated = 0 if len(meter.curve) > before else repeated + 1

    return run


def greedy(cell: Cell, meter: Meter, seed: int) -> None:
    """Forward selection over the whole pool, then the first swap that improves, until none does."""
    order = _shuffled(cell, seed)
    chosen: list[Candidate] = []
    best = -np.inf
    while len(chosen) < cell.limits.activations:
        scores = [(meter.score(Selection.of([*chosen, entry])), entry) for entry in order if entry not in chosen]
        top, entry = max(scores, key=lambda pair: pair[0])
        if top <= best:
            break
        best, chosen = top, [*chosen, entry]
    improved = True
    while improved:
        improved = False
        for place in range(len(chosen)):
            for entry in order:
                swapped = [*chosen[:place], entry, *chosen[place + 1 :]]
                if entry not in chosen and (value := meter.score(Selection.of(swapped))) > best:
                    best, chosen, improved = value, swapped, True


def sequential(cell: Cell, meter: Meter, seed: int) -> None:
    """scikit-learn's `SequentialFeatureSelector` on the same probe; a feature is a candidate."""

    order = _shuffled(cell, seed)

    class Probe(BaseEstimator):
        def __sklearn_tags__(self) -> Tags:
            tags = super().__sklearn_tags__()
            tags.target_tags.required = False
            return tags

        def fit(self, X: Array, y: Any = None) -> Probe:  # noqa: N803
            return self

        def score(self, X: Array, y: Any = None) -> float:  # noqa: N803
            return meter.score(Selection.of([order[int(column)] for column in X[0]]))

    columns = np.tile(np.arange(len(cell.pool), dtype=float), (2, 1))
    rows = np.arange(2)
    chosen = min(cell.limits.activations, len(cell.pool) - 1)
    SequentialFeatureSelector(Probe(), n_features_to_select=chosen, cv=[(rows, rows)]).fit(columns)


def random_subsets(cell: Cell, meter: Meter, seed: int) -> None:
    """Subsets of the largest size that the limits allow, at equal weights: what Optuna's slots rarely propose."""
    rng = np.random.default_rng(seed)
    repeated = 0
    while repeated < _REPEATS:
        before = len(meter.curve)
        drawn = rng.choice(len(cell.pool), cell.limits.activations, replace=False)
        meter.score(Selection.of([cell.pool[int(position)] for position in drawn]))
        repeated = 0 if len(meter.curve) > before else repeated + 1


def top_singles(cell: Cell, meter: Meter, seed: int) -> None:
    """Single candidates in random order as far as the budget goes, then the best of them together."""
    most = cell.limits.activations
    tried = _shuffled(cell, seed)[: max(1, meter.budget - most + 1)]
    ranked = sorted(tried, key=lambda entry: -meter.score(Selection.of([entry])))
    for count in range(2, most + 1):
        meter.score(Selection.of(ranked[:count]))


def fixed(choose: Callable[[Cell], Sequence[Selection]]) -> Callable[[Cell, Meter, int], None]:
    """The best of a few selections that need no search."""

    def run(cell: Cell, meter: Meter, seed: int) -> None:
        for selection in choose(cell):
            meter.score(selection)

    return run


def mixing(cell: Cell, meter: Meter, seed: int) -> None:
    """One softmax weight per candidate, learned by gradient with a linear head (as Diffusion Hyperfeatures does).

    Adam on 512 places a step; every step looks at labels and counts as an evaluation. The selection is the candidates
    of largest weight, once with these weights and once with equal ones. It is read out where the budget ends: training
    is as long as the budget allows.
    """
    if cell.learn is None:
        raise SpentError
    features, offsets, labels = cell.learn()
    generator = torch.Generator().manual_seed(seed)
    x = torch.from_numpy(features)
    x = x - x.mean(0)
    wide = torch.from_numpy(np.repeat(np.arange(len(cell.pool)), np.diff(offsets)))
    values = labels.dtype.kind == "f"
    outputs = 1 if values else int(labels.max()) + 1
    spread = float(np.nanstd(labels)) if values else 1.0
    truth = torch.from_numpy((labels - np.nanmean(labels)) / spread).float() if values else torch.from_numpy(labels)
    logits = torch.zeros(len(cell.pool), requires_grad=True)
    head = (0.01 * torch.randn(x.shape[1], outputs, generator=generator)).requires_grad_()
    bias = torch.zeros(outputs, requires_grad=True)
    optimiser = torch.optim.Adam([{"params": [logits], "lr": 0.05}, {"params": [head, bias], "lr": 0.01}])
    last = 2 if cell.limits.activations > 1 else 1
    for _ in range(meter.budget - last):
        meter.look()
        rows = torch.randint(len(x), (512,), generator=generator)
        shares = torch.softmax(logits, 0) * len(cell.pool) ** 0.5
        found = (x[rows] * shares[wide]) @ head + bias
        if values:
            loss = torch.nn.functional.mse_loss(found[:, 0], truth[rows])
        else:
            loss = torch.nn.functional.cross_entropy(found, truth[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    weights = torch.softmax(logits, 0).detach().numpy()
    top = np.argsort(-weights)[: cell.limits.activations]
    meter.score(Selection.of({cell.pool[int(i)]: float(weights[i]) for i in top}))
    meter.score(Selection.of([cell.pool[int(i)] for i in top]))


@dataclass(frozen=True)
class Method:
    """A way of searching.

    Attributes:
        run: until the meter has enough, or nothing is left to try.
        anytime: whether the same run answers for smaller budgets.
        limited: whether it keeps to the limits of a selection.
        rival: whether it counts when ours is to be first.
    """

    run: Callable[[Cell, Meter, int], None]
    anytime: bool = True
    limited: bool = True
    rival: bool = True


METHODS: dict[str, Method] = {
    OURS: Method(by_sampler(OURS)),
    BARE: Method(by_sampler(OURS, start=False), rival=False),
    "greedy": Method(greedy),
    "sequential (scikit-learn)": Method(sequential),
    "tpe": Method(by_sampler("tpe")),
    "nsga2": Method(by_sampler("nsga2")),
    "cmaes": Method(by_sampler("cmaes")),
    "random": Method(by_sampler("random")),
    "random subsets": Method(random_subsets),
    "best singles": Method(top_singles, anytime=False),
    "softmax mixing": Method(mixing, anytime=False),
    "paper's and older rules": Method(fixed(lambda cell: cell.rules)),
    "all of one timestep": Method(fixed(lambda cell: cell.by_timestep), limited=False),
}
OPTUNA = ("tpe", "nsga2", "cmaes")
RANDOM = ("random", "random subsets")


def run_method(name: str, cell: Cell, budget: int, seed: int, known: dict[Selection, float]) -> tuple[Meter, float]:
    """Run a method to its end; returns the meter and the processor's seconds that it took beside the probe.

    One thread on an idle core takes as long by the clock; on a busy one the clock would measure the others.
    """
    meter = Meter(cell, budget, known)
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        with contextlib.suppress(SpentError):
            METHODS[name].run(cell, meter, seed)
    return meter, time.process_time() - started - sum(meter.probe_seconds)


def _shuffled(cell: Cell, seed: int) -> list[Candidate]:
    order: Iterable[int] = np.random.default_rng(seed).permutation(len(cell.pool))
    return [cell.pool[int(position)] for position in order]
