"""A probe of one's own: a location gets the class whose mean feature is nearest.

python examples/custom_probe.py
"""

from __future__ import annotations

import numpy as np

from diffsift.bank import BankView
from diffsift.extraction import block_scale
from diffsift.objectives import ProbeSpecification, RidgeHead, register_probe
from diffsift.objectives.probes import FoldedProbe, Readout
from diffsift.spaces import Candidate, Selection


class NearestMean(FoldedProbe):
    """Fits nothing but the mean feature of each class; as a linear head: x . mean - |mean|^2 / 2."""

    def __init__(self, bank: BankView, specification: ProbeSpecification, readout: Readout) -> None:
        self.bank, self.readout, self.metric = bank, readout, readout.metric
        self.groups = bank.development.held_out_groups

    def results_by_fold(self, selection: Selection) -> list[np.ndarray]:
        development, results = self.bank.development, []
        for fold in development.folds:
            head = self.head(selection, np.flatnonzero(development.fold != fold))
            held_out = np.flatnonzero(development.fold == fold)
            sums = head.intercept + sum(self.rows(key, held_out) @ weights for key, weights in head.weights.items())
            results.append(self.readout.results(development, held_out, head.outputs(sums)))
        return results

    def fit(self, selection: Selection) -> RidgeHead:
        return self.head(selection, np.arange(len(self.bank.development.fold)))

    def head(self, selection: Selection, images: np.ndarray) -> RidgeHead:
        one_hot = self.readout.targets(self.bank.development, images)
        weights, norms = {}, np.zeros(one_hot.shape[1], np.float32)
        for candidate, weight in selection.members:
            scale = block_scale(weight, self.bank[candidate].standardiser.raw_channels) ** 2
            means = (one_hot.T @ self.rows(candidate, images)) / one_hot.sum(0).clip(1)[:, None]
            weights[candidate] = (scale * means.T).astype(np.float32)
            norms += scale * (means**2).sum(1)
        return RidgeHead(weights, -norms / 2)

    def rows(self, candidate: Candidate, images: np.ndarray) -> np.ndarray:
        features = self.bank[candidate].features[images].astype(np.float32)
        return features.reshape(-1, features.shape[-1])


# A package that is installed does this with an entry point of the group diffsift.probes instead.
register_probe("nearest-mean", NearestMean)

if __name__ == "__main__":
    import diffsift
    from diffsift.demo import PIPELINE

    values = {"model": {"id": str(PIPELINE)}, "data": {"kind": "rendered-scenes", "train": 40, "test": 20}}
    study = {"name": "nearest-mean", "trials": 20}
    result = diffsift.select({**values, "probe": {"kind": "nearest-mean"}, "study": study})
    print(result.outcome.found)
