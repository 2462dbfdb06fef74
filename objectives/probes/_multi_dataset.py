"""One probe for each of several data sets: a selection scores their mean."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from diffsift.bank import pack_groups
from diffsift.spaces import Candidate, Selection

from ..metrics import MeanOverDataSets, pack_results
from ._base import Array, HeadPerDataSet, Probe, Score
from ._elimination import Elimination


class MultiDatasetProbe(Probe):
    """Scores selections by the mean of what probes of one task give them, each on its own data set.

    Every data set has its own head, so their classes need have nothing in common; the features are the same.

    Args:
        probes: one per data set.
    """

    def __init__(self, probes: Sequence[Probe]) -> None:
        self._probes = tuple(probes)
        self.metric = MeanOverDataSets([probe.metric for probe in probes])
        self.groups = pack_groups([probe.groups for probe in probes])

    def score(self, selection: Selection) -> Score:
        """The mean of the data sets' scores; the folds are those of all, one data set after another."""
        scores = [probe.score(selection) for probe in self._probes]
        return Score(float(np.mean([score.value for score in scores])), sum((score.folds for score in scores), ()))

    def held_out(self, selection: Selection) -> Array:
        return pack_results([probe.held_out(selection) for probe in self._probes])

    def eliminate(self, pool: Sequence[Candidate], most: int) -> Elimination | None:
        """By the mean of the candidates' ranks in the data sets; None where a data set has none."""
        found = [probe.eliminate(pool, most) for probe in self._probes]
        known = [entry for entry in found if entry is not None]
        if len(known) < len(found):
            return None
        ranks = [{candidate: rank for rank, candidate in enumerate(entry.survivors)} for entry in known]
        ordered = sorted(pool, key=lambda candidate: sum(rank[candidate] for rank in ranks))
        return Elimination(tuple(ordered), sum(entry.solves for entry in known))

    def sampling_error(self, selection: Selection) -> float | None:
        """That of the mean: the data sets' locations are drawn independently."""
        errors = [probe.sampling_error(selection) for probe in self._probes]
        known = [error for error in errors if error is not None]
        return float(np.sqrt(np.square(known).sum()) / len(errors)) if len(known) == len(errors) else None

    def fit(self, selection: Selection) -> HeadPerDataSet:
        return HeadPerDataSet(tuple(probe.fit(selection) for probe in self._probes))
