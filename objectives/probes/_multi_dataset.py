"""One probe for each of several data sets: a selection scores their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from diffsift.bank import pack_groups
from diffsift.spaces import Candidate, Selection

from ..metrics import MeanOverDataSets
from ._base import HeadPerDataSet, Probe, Score
from ._elimination import Elimination


class MultiDatasetProbe(Probe):
    """Scores selections by the mean of the scores that a probe per data set gives them.

    Every data set has its own head, so their classes need have nothing in common; the features are the same.

    Args:
        probes: one per data set.
    """

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = tuple(probes)
        self._mean = self.metric = MeanOverDataSets([probe.metric for probe in probes])
        self.groups = pack_groups([probe.groups for probe in probes])

    def score(self, selection: Selection) -> Score:
        """Score a selection on every data set.

        Args:
            selection: candidates of the bank with their weights.

        Returns:
            The mean of the data sets' scores; the folds are those of all, one data set after another.
        """
        scores = [probe.score(selection) for probe in self._probes]
        return Score(float(np.mean([score.value for score in scores])), sum((score.folds for score in scores), ()))

    def held_out(self, selection: Selection) -> NDArray[np.float64]:
        return self._mean.pack([probe.held_out(selection) for probe in self._probes])

    def eliminate(self, pool: Sequence[Candidate], most: int) -> Elimination | None:
        """Order the pool by the mean of the candidates' ranks in the data sets.

        Args:
            pool: candidates of the bank.
            most: how many are to survive.

        Returns:
            The order; None where a data set has none.
        """
        eliminations = [probe.eliminate(pool, most) for probe in self._probes]
        known = [entry for entry in eliminations if entry is not None]
        if len(known) < len(eliminations):
            return None
        ranks = [{candidate: rank for rank, candidate in enumerate(entry.survivors)} for entry in known]
        ordered = sorted(pool, key=lambda candidate: sum(rank[candidate] for rank in ranks))
        return Elimination(tuple(ordered), sum(entry.solves for entry in known))

    def sampling_error(self, selection: Selection) -> float | None:
        """Standard error of the mean: the data sets' locations are drawn independently.

        Args:
            selection: candidates of the bank with their weights.

        Returns:
            The standard error in the unit of the score; None where a data set has none.
        """
        errors = [probe.sampling_error(selection) for probe in self._probes]
        known = [error for error in errors if error is not None]
        return float(np.sqrt(np.square(known).sum()) / len(errors)) if len(known) == len(errors) else None

    def fit(self, selection: Selection) -> HeadPerDataSet:
        return HeadPerDataSet(tuple(probe.fit(selection) for probe in self._probes))
