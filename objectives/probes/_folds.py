"""What probes share that are fit on some images of a bank and scored on others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Int
from threadpoolctl import ThreadpoolController

from diffsift.bank import BankView, DevelopmentSet, Entry
from diffsift.bank.development import ALWAYS_FIT, folds_by_group
from diffsift.spaces import Selection

from ..specification import ProbeSpecification
from ._base import FoldedProbe
from ._kept import Kept
from ._readout import ClassReadout, Readout

Array = np.ndarray[Any, Any]

INNER = 3
"""Parts, at most, that what a probe is fit on is divided into where something is chosen within it."""

SMALL = 1024
"""Channels, at most, of what a search tries: small products, that are kept."""


def parts_of(development: DevelopmentSet) -> dict[int, Int[np.ndarray, "images"]]:
    """Images by part: those of a fold together; those that are always fit on in `INNER` parts, numbered below zero."""
    part = np.array(development.fold)
    always = np.flatnonzero(part == ALWAYS_FIT)
    groups = [development.groups[int(image)] for image in always]
    part[always] = -1 - folds_by_group(groups, INNER, seed=0)
    return {int(number): np.flatnonzero(part == number) for number in np.unique(part)}


def dealt(parts: Sequence[int]) -> list[list[int]]:
    """Parts dealt into at most `INNER` sets."""
    return [list(parts[start::INNER]) for start in range(min(INNER, len(parts)))]


class FoldProbe(FoldedProbe):
    """Is fit on all parts but a fold, and scored on that fold.

    Args:
        bank: holds every candidate that will be asked for.
        specification: of the probe.
        readout: targets and metric; default: the classes of points, by mean IoU.
        memory: bytes to keep features and what is computed from them in.
    """

    def __init__(
        self,
        bank: BankView,
        specification: ProbeSpecification,
        readout: Readout | None = None,
        *,
        memory: int = 1_000_000_000,
    ) -> None:
        development = bank.development
        self._bank, self._specification = bank, specification
        self._readout = readout or ClassReadout()
        self.metric = self._readout.metric
        self.groups = development.held_out_groups
        self._images = parts_of(development)
        emphasis = development.weights.astype(np.float64) ** (1.0 - specification.balance)
        self._emphasis = (emphasis / emphasis.mean()).astype(np.float32)
        self._even = bool((self._emphasis == 1).all())
        self._kept = Kept(memory)

    @abstractmethod
    def _outputs(self, selection: Selection) -> Iterator[Float32[np.ndarray, "rows outputs"]]:
        """Outputs at the rows of each fold, fold after fold, of what is fit on all other parts."""

    def sampling_error(self, selection: Selection, *, draws: int = 100, seed: int = 0) -> float | None:
        """Standard error of the score as an estimate of that of the same heads at all pixels of the same images.

        A bootstrap over the locations of each image, which were drawn independently. None for pooled features.
        """
        development = self._bank.development
        if development.pooled:
            return None
        with self._threads(selection):
            folds = list(self._outputs(selection))
        rng, count, values = np.random.default_rng(seed), int(development.weights.shape[1]), []
        for _ in range(draws):
            how_often = rng.multinomial(count, np.full(count, 1 / count), size=len(development.weights))
            resampled = replace(development, weights=development.weights * how_often.astype(np.float32))
            values.append(self.metric.value(np.concatenate(self._results(resampled, folds))))
        return float(np.std(values, ddof=1))

    def _by_fold(self, selection: Selection) -> list[Array]:
        with self._threads(selection):
            return self._results(self._bank.development, self._outputs(selection))

    def _results(self, development: DevelopmentSet, outputs: Iterable[Array]) -> list[Array]:
        """Per fold, the results of its images."""
        return [
            self._readout.results(development, self._images[fold], found)
            for fold, found in zip(development.folds, outputs, strict=True)
        ]

    def _threads(self, selection: Selection) -> AbstractContextManager[Any]:
        """One thread for the small products of a trial, which more would slow down; no limit for wide selections."""
        channels = sum(self._bank[candidate].features.shape[-1] for candidate in selection.candidates)
        limited: AbstractContextManager[Any] = self._pools.limit(limits=1 if channels <= SMALL else None)
        return limited

    @cached_property
    def _pools(self) -> ThreadpoolController:
        """Made once: to look for thread pools takes milliseconds. By now the libraries that have any are loaded."""
        return ThreadpoolController()

    def _rows(self, part: int) -> Float32[np.ndarray, "rows 1"]:
        """The weight of each row."""
        return np.asarray(self._emphasis[self._images[part]].reshape(-1, 1))

    def _features(self, entry: Entry, part: int) -> Float32[np.ndarray, "rows channels"]:
        def compute() -> Array:
            features: Array = entry.features[self._images[part]].astype(np.float32)
            return features.reshape(-1, features.shape[-1])

        return self._kept.get(("features", entry.candidate, part), compute)

    def _targets(self, part: int) -> Float32[np.ndarray, "rows outputs"]:
        return self._kept.get(
            ("targets", part), lambda: self._readout.targets(self._bank.development, self._images[part])
        )
