"""What probes share that are fit on some images of a bank and scored on others."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property

import numpy as np
from cachetools import LRUCache
from jaxtyping import Float32, Int
from numpy.typing import NDArray
from threadpoolctl import ThreadpoolController

from diffsift.bank import ALWAYS_FIT, BankView, DevelopmentSet, Entry, folds_by_group
from diffsift.spaces import Selection

from .._caching import cached
from ..specification import ProbeSpecification
from ._base import FoldedProbe
from ._readout import ClassReadout, Readout

INNER = 3
"""Most parts that the images to fit on are divided into where something is chosen within them."""

SMALL = 1024
"""Most channels of a selection whose products are cached pair by pair: what a search tries has no more."""


def parts_of(development: DevelopmentSet) -> dict[int, Int[np.ndarray, "images"]]:
    """Divide the images of a development set.

    Args:
        development: images with their folds.

    Returns:
        Positions of images by part: a fold is one part; images that are always fit on are divided into `INNER` parts,
        numbered below zero, by group.
    """
    part = np.array(development.fold)
    always = np.flatnonzero(part == ALWAYS_FIT)
    groups = [development.groups[int(image)] for image in always]
    part[always] = -1 - folds_by_group(groups, INNER, seed=0)
    return {int(number): np.flatnonzero(part == number) for number in np.unique(part)}


def dealt(parts: Sequence[int]) -> list[list[int]]:
    """Deal parts into at most `INNER` sets."""
    return [list(parts[start::INNER]) for start in range(min(INNER, len(parts)))]


class FoldProbe(FoldedProbe):
    """A probe that is fitted on all parts but a fold, and scored on that fold. A subclass gives `fold_outputs`.

    Args:
        bank: holds every candidate that selections will be made of.
        specification: the probe's part of the specification.
        readout: targets and metric; default: the classes of points, by mean IoU.
        memory: bytes to cache features in, and what is computed from them.
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
        self._cache: LRUCache[Hashable, NDArray[np.generic]] = LRUCache(memory, getsizeof=lambda array: array.nbytes)

    @abstractmethod
    def fold_outputs(self, selection: Selection) -> Iterator[Float32[np.ndarray, "rows outputs"]]:
        """Fit a head for each fold on all other parts.

        Args:
            selection: candidates of the bank with their weights.

        Yields:
            The head's outputs at the rows of a fold, fold after fold.
        """

    def sampling_error(self, selection: Selection, *, resamples: int = 100, seed: int = 0) -> float | None:
        """Standard error of the score as an estimate of that of the same heads at all pixels of the same images.

        A bootstrap over the locations of each image, which were drawn independently.

        Args:
            selection: candidates of the bank with their weights.
            resamples: how many, at least 2.
            seed: seed of the resampling, 0 or above.

        Returns:
            The error in the unit of the score; None for pooled features.
        """
        development = self._bank.development
        if development.pooled:
            return None
        with self._threads(selection):
            folds = list(self.fold_outputs(selection))
        rng, count, values = np.random.default_rng(seed), int(development.weights.shape[1]), []
        for _ in range(resamples):
            how_often = rng.multinomial(count, np.full(count, 1 / count), size=len(development.weights))
            resampled = replace(development, weights=development.weights * how_often.astype(np.float32))
            values.append(self.metric.value(np.concatenate(self._results(resampled, folds))))
        return float(np.std(values, ddof=1))

    def results_by_fold(self, selection: Selection) -> list[NDArray[np.float64]]:
        with self._threads(selection):
            return self._results(self._bank.development, self.fold_outputs(selection))

    def _results(
        self, development: DevelopmentSet, outputs: Iterable[Float32[np.ndarray, "_ outputs"]]
    ) -> list[NDArray[np.float64]]:
        """The results of each fold's images."""
        return [
            self._readout.results(development, self._images[fold], entry)
            for fold, entry in zip(development.folds, outputs, strict=True)
        ]

    def _threads(self, selection: Selection) -> AbstractContextManager[object]:
        """One thread for the small products of a trial, which more would slow down; no limit for wide selections."""
        channels = sum(self._bank[candidate].features.shape[-1] for candidate in selection.candidates)
        limited: AbstractContextManager[object] = self._pools.limit(limits=1 if channels <= SMALL else None)
        return limited

    @cached_property
    def _pools(self) -> ThreadpoolController:
        """Made once: to look for thread pools takes milliseconds. By now the libraries that have any are loaded."""
        return ThreadpoolController()

    def _rows(self, part: int) -> Float32[np.ndarray, "rows 1"]:
        """The weight of each row."""
        return np.asarray(self._emphasis[self._images[part]].reshape(-1, 1))

    def _features(self, entry: Entry, part: int) -> Float32[np.ndarray, "rows channels"]:
        return cached(self._cache, ("features", entry.candidate, part), lambda: self._read(entry, part))

    def _read(self, entry: Entry, part: int) -> Float32[np.ndarray, "rows channels"]:
        """Features that are not cached: those of a selection too wide push all others out of memory."""
        features = np.asarray(entry.features[self._images[part]].astype(np.float32))
        return features.reshape(-1, features.shape[-1])

    def _targets(self, part: int) -> Float32[np.ndarray, "rows outputs"]:
        return cached(
            self._cache, ("targets", part), lambda: self._readout.targets(self._bank.development, self._images[part])
        )
