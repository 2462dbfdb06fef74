"""Nearest neighbours among exemplars, by Euclidean distance of fused features.

Notation: exemplars r, drawn from the rows that are fit on, with fused features R_r = [s_1 R_1r, ..., s_m R_mr]. Of a
row with fused feature q, the nearest exemplars are those with the highest

    q . R_r - |R_r|^2 / 2 = sum_a q_a . (s_a^2 R_ar) - |R_r|^2 / 2

as |q|^2 is the same for all of them. That is linear in the features, so full-resolution maps need no features at every
pixel: the sums are formed on each activation's own grid and enlarged, and only then are the highest taken.

The outputs are the mean of the targets of the `neighbours` nearest exemplars, each weighing as its row does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int

from diffsift.bank import Entry
from diffsift.extraction import block_scale
from diffsift.spaces import Candidate, Selection

from ._base import Head
from ._folds import FoldProbe

_SUMS = 4_000_000
"""Sums in memory at once."""


@dataclass(frozen=True)
class NeighbourHead(Head):
    """The mean target of the nearest exemplars; one sum for each exemplar.

    Attributes:
        targets: targets of the exemplars.
        emphasis: weights of the exemplars.
        neighbours: number of nearest exemplars whose targets are averaged.
    """

    targets: Float32[np.ndarray, "sums outputs"]
    emphasis: Float32[np.ndarray, "sums"]
    neighbours: int

    def outputs(self, sums: Float32[np.ndarray, "rows sums"]) -> Float32[np.ndarray, "rows outputs"]:
        count = min(self.neighbours, sums.shape[1])
        nearest = torch.from_numpy(sums).topk(count, dim=1, sorted=False).indices.numpy()
        emphasis = self.emphasis[nearest]
        emphasis = emphasis / emphasis.sum(1, keepdims=True)
        return np.asarray(np.einsum("rk,rko->ro", emphasis, self.targets[nearest]))


class NeighbourProbe(FoldProbe):
    """Scores selections by nearest neighbours among exemplars; see `FoldProbe` for the arguments."""

    def fit(self, selection: Selection) -> NeighbourHead:
        """Take exemplars from all development images, for the test split.

        Args:
            selection: candidates of the bank with their weights.

        Returns:
            The exemplars with their targets.
        """
        return self._head(selection, list(self._images))

    def fold_outputs(self, selection: Selection) -> Iterator[Float32[np.ndarray, "rows outputs"]]:
        for fold in self._bank.development.folds:
            head = self._head(selection, [part for part in self._images if part != fold])
            features = {candidate: self._features(self._bank[candidate], fold) for candidate in head.weights}
            rows, at_once = len(self._targets(fold)), max(1, _SUMS // len(head.intercept))
            outputs = []
            for start in range(0, rows, at_once):
                sums = head.intercept + sum(
                    features[candidate][start : start + at_once] @ weights
                    for candidate, weights in head.weights.items()
                )
                outputs.append(head.outputs(np.asarray(sums)))
            yield np.concatenate(outputs)

    def _head(self, selection: Selection, parts: Sequence[int]) -> NeighbourHead:
        drawn = self._drawn(parts)
        weights: dict[Candidate, Float32[np.ndarray, "channels sums"]] = {}
        norms = np.zeros(sum(map(len, drawn.values())), np.float32)
        for candidate, weight in selection.members:
            entry = self._bank[candidate]
            factor = np.float32(block_scale(weight, entry.standardiser.raw_channels) ** 2)
            exemplars = self._exemplars(entry, drawn)
            norms += factor * (exemplars**2).sum(1)
            weights[candidate] = factor * exemplars.T
        targets = np.concatenate([self._targets(part)[rows] for part, rows in drawn.items()])
        emphasis = np.concatenate([self._rows(part)[rows, 0] for part, rows in drawn.items()])
        return NeighbourHead(weights, -norms / 2, targets, emphasis, self._specification.neighbours)

    def _exemplars(
        self, entry: Entry, drawn: dict[int, Int[np.ndarray, "rows"]]
    ) -> Float32[np.ndarray, "exemplars channels"]:
        return np.concatenate([self._features(entry, part)[rows] for part, rows in drawn.items()])

    def _drawn(self, parts: Sequence[int]) -> dict[int, Int[np.ndarray, "rows"]]:
        """Rows by part: the same ones for every selection."""
        sizes = [len(self._targets(part)) for part in parts]
        total, wanted = sum(sizes), self._specification.exemplars
        chosen = np.arange(total)
        if total > wanted:
            chosen = np.sort(np.random.default_rng(0).choice(total, wanted, replace=False))
        starts = np.cumsum([0, *sizes])
        return {
            part: chosen[(chosen >= start) & (chosen < start + size)] - start
            for part, start, size in zip(parts, starts, sizes, strict=False)
        }
