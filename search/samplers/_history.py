"""The finished selections of a search as arrays, and what the Gaussian process is told of them.

Notation: a selection has at most m members, at positions of the pool and with weights w; the arrays hold w^2.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from jaxtyping import Float, Int

from diffsift.spaces import Candidate, Selection

from ._surrogate import Settings, Similarities, most_likely

Scores = dict[Selection, float]
"""Scores of the finished selections, in their order."""

Rows = Int[np.ndarray, "rows"]
"""Positions of finished selections in the history."""


@dataclass(frozen=True)
class SubsetGPOptions:
    """Constants of `SubsetGPSampler`, tuned on ``benchmarks/search_quality.py``.

    Attributes:
        spread: single candidates, unlike one another, that are scored before there is a model.
        drawn: full selections drawn at random after them, which show how much further members are worth.
        refit_every: finished trials after which the model's settings are chosen anew.
        fit_rows: most selections that settings are chosen on.
        model_rows: most selections that the model is given.
        best_parents: best selections that moves start from.
        drawn_parents: further ones, drawn among the best twenty.
        rated: about how many moves the model rates for one proposal.
        reweight_from: trials before weights are varied: they matter little in a ridge probe, so they come late.
        reweight_every: one trial in so many varies weights.
        window: trials after which the search starts afresh elsewhere, if they brought nothing better.
        tries: random selections drawn in search of a new one.
        skip: stages that are left out.
    """

    spread: int = 7
    drawn: int = 3
    refit_every: int = 20
    fit_rows: int = 120
    model_rows: int = 150
    best_parents: int = 2
    drawn_parents: int = 2
    rated: int = 1200
    reweight_from: int = 60
    reweight_every: int = 4
    window: int = 40
    tries: int = 100
    skip: tuple[str, ...] = ()


class FinishedSelections:
    """Finished selections as arrays that grow, in the order of the history.

    Args:
        pool: candidates by position.
        most: members of a selection at most.
        options: constants of the sampler.

    Attributes:
        count: finished selections that were learnt.
    """

    def __init__(self, pool: Sequence[Candidate], most: int, options: SubsetGPOptions) -> None:
        self._most, self._at = most, {candidate: position for position, candidate in enumerate(pool)}
        self._options = options
        self._source: Scores = {}
        self._forget()

    def _forget(self) -> None:
        self.count = 0
        self._positions, self._squares = self.arrays([])
        self._scores = np.empty(0)
        self._settings: tuple[int, Settings] | None = None
        self._order: tuple[int, Rows] | None = None
        self._fresh_starts: dict[int, bool] = {}
        self._equal: set[frozenset[int]] = set()

    @property
    def positions(self) -> Int[np.ndarray, "rows members"]:
        """Of the members in the pool, and 0 where there are fewer."""
        return self._positions[: self.count]

    @property
    def squares(self) -> Float[np.ndarray, "rows members"]:
        """Of their weights, and 0 where there are fewer."""
        return self._squares[: self.count]

    @property
    def scores(self) -> Float[np.ndarray, "rows"]:
        """Of the selections."""
        return self._scores[: self.count]

    def learn(self, history: Scores) -> None:
        """Take up what was added to a history, or another history as a whole."""
        if history is not self._source or len(history) < self.count:
            self._source = history
            self._forget()
        new = list(islice(reversed(history.items()), len(history) - self.count))[::-1]
        positions, squares = self.arrays([selection for selection, _ in new])
        self._positions = _grown(self._positions, self.count, positions)
        self._squares = _grown(self._squares, self.count, squares)
        self._scores = _grown(self._scores, self.count, np.array([score for _, score in new]))
        self.count += len(new)
        self._equal.update(
            frozenset(self._at[candidate] for candidate in selection.candidates)
            for selection, _ in new
            if all(weight == 1.0 for _, weight in selection.members)
        )

    def holds_equal(self, members: Mapping[int, float]) -> bool:
        """Whether these are at equal weights and finished: a quick answer for most of what was tried."""
        return len(set(members.values())) == 1 and frozenset(members) in self._equal

    def ordered(self, rows: Rows) -> Rows:
        """Some rows, the best first, of equals the earlier."""
        return np.asarray(rows[np.argsort(-self.scores[rows], kind="stable")])

    @property
    def order(self) -> Rows:
        """All rows, the best first."""
        if self._order is None or self._order[0] != self.count:
            self._order = (self.count, self.ordered(np.arange(self.count)))
        return self._order[1]

    def arrays(
        self, selections: Sequence[Selection]
    ) -> tuple[Int[np.ndarray, "selections members"], Float[np.ndarray, "selections members"]]:
        """Positions and squared weights of the members of selections."""
        positions = np.zeros((len(selections), self._most), dtype=np.int64)
        squares = np.zeros((len(selections), self._most))
        for row, selection in enumerate(selections):
            for column, (candidate, weight) in enumerate(selection.members):
                positions[row, column], squares[row, column] = self._at[candidate], weight**2
        return positions, squares

    def members(self, row: int) -> dict[int, float]:
        """Positions and weights of the members of a finished selection."""
        pairs = zip(self.positions[row].tolist(), self.squares[row].tolist(), strict=True)
        return {position: square**0.5 for position, square in pairs if square > 0}

    def all_members(self) -> Iterable[list[int]]:
        """Positions of the members of each finished selection."""
        for positions, squares in zip(self.positions.tolist(), self.squares.tolist(), strict=True):
            yield [position for position, square in zip(positions, squares, strict=True) if square > 0]

    def starts_afresh(self, window: int) -> bool:
        """Whether a window of trials is a fresh start; two in a row are not."""
        length = self._options.window
        start = window * length
        if "restart" in self._options.skip or window < 2:
            return False
        if window not in self._fresh_starts:  # what a window is does not change
            improved = self.scores[start - length : start].max() > self.scores[: start - length].max()
            self._fresh_starts[window] = not (improved or self.starts_afresh(window - 1))
        return self._fresh_starts[window]

    def settings(self, seed: int, similarities: Similarities) -> Settings:
        """Of the kernel, chosen anew every `refit_every` trials from those finished until then."""
        every = self._options.refit_every
        until = self.count if self.count < every else self.count // every * every
        if self._settings is None or self._settings[0] != until:
            rows = self.informative(until, self._options.fit_rows, np.random.default_rng([seed, until, 0xF17]))
            settings = most_likely(self.positions[rows], self.squares[rows], self.scores[rows], similarities)
            self._settings = (until, settings)
        return self._settings[1]

    def informative(self, until: int, most: int, rng: np.random.Generator) -> Rows:
        """Rows of the first trials: three in five the best, one in five the last, the rest drawn."""
        if until <= most:
            return np.arange(until)
        order = self.order if until == self.count else self.ordered(np.arange(until))
        chosen = np.zeros(until, dtype=bool)
        chosen[order[: most * 3 // 5]] = chosen[until - most // 5 :] = True
        rest = np.flatnonzero(~chosen)
        chosen[rng.choice(rest, most - (until - len(rest)), replace=False)] = True
        return np.flatnonzero(chosen)


Number = TypeVar("Number", bound=np.generic)


def _grown(array: npt.NDArray[Number], count: int, added: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """An array with `added` behind its first `count` rows; twice as much room, so that growing costs little a trial."""
    end = count + len(added)
    if end > len(array):
        room = np.zeros((2 * end - count, *array.shape[1:]), array.dtype)
        array = np.concatenate([array[:count], room])
    array[count:end] = added
    return array
