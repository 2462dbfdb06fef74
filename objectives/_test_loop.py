"""The one loop over the test split that all tasks run: batches of images, feature maps captured once, an evaluation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from jaxtyping import Shaped
from numpy.typing import NDArray

from diffsift.backbones import BackboneCache
from diffsift.common.context import RunContext
from diffsift.datasets import Dataset, Sample
from diffsift.spaces import Candidate

from ._base import SHOWN, FittedSelection, SplitResults
from ._capturing import CapturedMaps
from .probes import Head

_SUMS_PER_LOCATION = 4096
"""Sums that a head may take over all images of a batch at each location; one image always runs."""

_SAMPLES = 250_000_000
"""Bytes of features at locations that a pass may return; one image, or one pair, always runs."""


@dataclass(frozen=True)
class Batch:
    """Test images that run through the backbones together.

    Attributes:
        samples: the images with their labels.
        pairs: for correspondence: (source, target) positions among the samples of the pairs to match; else empty.
    """

    samples: Sequence[Sample]
    pairs: Sequence[tuple[int, int]] = ()

    @property
    def groups(self) -> list[str]:
        """The group of each image, or of each pair that of its source."""
        if self.pairs:
            return [self.samples[source].group for source, _ in self.pairs]
        return [sample.group for sample in self.samples]


@dataclass(frozen=True)
class Evaluation:
    """How a fitted selection did on one test image, or one pair of images.

    Attributes:
        result: the objective's metric's result.
        further: results of other metrics, by a name of the objective's choice.
        prediction: a map like the label, for the report; None where there is none.
    """

    result: NDArray[np.float64]
    further: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)
    prediction: Shaped[np.ndarray, "height width *axes"] | None = None


Evaluate: TypeAlias = Callable[[Batch, CapturedMaps, Sequence[FittedSelection]], Mapping[str, Sequence[Evaluation]]]
Summarise: TypeAlias = Callable[[NDArray[np.float64], Mapping[str, NDArray[np.float64]]], dict[str, float]]


class _Collected:
    """Evaluations of one fitted selection, batch after batch; predictions of the first few images alone."""

    def __init__(self) -> None:
        self._results: list[NDArray[np.float64]] = []
        self._further: dict[str, list[NDArray[np.float64]]] = {}
        self.predictions: list[Shaped[np.ndarray, "_ _ ..."]] = []

    def add(self, evaluations: Sequence[Evaluation]) -> None:
        for evaluation in evaluations:
            self._results.append(evaluation.result)
            for name, result in evaluation.further.items():
                self._further.setdefault(name, []).append(result)
            if evaluation.prediction is not None and len(self.predictions) < SHOWN:
                self.predictions.append(evaluation.prediction)

    @property
    def results(self) -> NDArray[np.float64]:
        return np.stack(self._results)

    @property
    def further(self) -> dict[str, NDArray[np.float64]]:
        return {name: np.stack(results) for name, results in self._further.items()}


@dataclass(frozen=True)
class EvaluationLoop:
    """Scores fitted selections on a test split.

    Attributes:
        dataset: whose test split is opened.
        evaluate: gives an evaluation per image or pair of a batch, by the name of the fitted selection.
        summarise: turns all results of a selection, and its further results by name, into measures for the report.
        sampled: locations of each image at which `evaluate` reads features; 0: only sums are read.
    """

    dataset: Dataset
    evaluate: Evaluate
    summarise: Summarise
    sampled: int = 0

    def run(self, fitted: Sequence[FittedSelection], backbones: BackboneCache, context: RunContext) -> SplitResults:
        """Run every test image through each network once, for all selections together.

        Selections on other networks come one after another, so that no two networks need be in memory together unless
        a selection fuses them. Those on networks that are in memory come first, and together.

        Args:
            fitted: selections with their heads.
            backbones: backbones by name.
            context: gives noise seed, batch size and reporter.

        Returns:
            The results of all images, or pairs, in the order of the split.
        """
        collected = {entry.name: _Collected() for entry in fitted}
        shown: list[Sample] = []
        groups: list[str] = []
        size = self._images_together(fitted, context.batch_size)
        for number, rows in enumerate(_by_networks(fitted, backbones)):
            needed = {candidate for entry in rows for candidate in entry.standardisers}
            for batch in self._batches(size, context):
                if not number:
                    shown.extend(batch.samples[: SHOWN - len(shown)])
                    groups.extend(batch.groups)
                maps = CapturedMaps(batch.samples, needed, backbones, context.noise_seed)
                for name, evaluations in self.evaluate(batch, maps, rows).items():
                    collected[name].add(evaluations)
        return SplitResults(
            results={name: entry.results for name, entry in collected.items()},
            measures={name: self.summarise(entry.results, entry.further) for name, entry in collected.items()},
            samples=shown,
            predictions={name: entry.predictions for name, entry in collected.items() if entry.predictions},
            groups=tuple(groups),
        )

    def _images_together(self, fitted: Sequence[FittedSelection], most: int) -> int:
        """Images of a batch: fewer where a head takes very many sums, or features at locations much memory."""
        widest = max((len(entry.head.intercept) for entry in fitted if isinstance(entry.head, Head)), default=1)
        channels: Counter[tuple[str, int]] = Counter()
        for candidate, own in {pair for entry in fitted for pair in _channels(entry)}:
            channels[candidate.backbone, candidate.timestep] += own
        sampled = 4 * self.sampled * max(channels.values(), default=0)
        return max(1, min(most, _SUMS_PER_LOCATION // widest, _SAMPLES // max(1, sampled)))

    def _batches(self, size: int, context: RunContext) -> Iterator[Batch]:
        """Pairs where the data set has any, else images."""
        samples, pairs = self.dataset.split("test"), self.dataset.pairs("test")
        count, unit = (len(pairs), "pair") if pairs else (len(samples), "image")
        with context.reporter.progress(count, "test split", unit) as bar:
            if pairs:
                for chunk in pair_chunks(pairs, size):
                    indices = sorted({index for pair in chunk for index in pair})
                    local = [(indices.index(source), indices.index(target)) for source, target in chunk]
                    yield Batch([samples[index] for index in indices], local)
                    bar.update(len(chunk))
                return
            for start in range(0, count, size):
                batch = [samples[index] for index in range(start, min(start + size, count))]
                yield Batch(batch)
                bar.update(len(batch))


def _channels(fitted: FittedSelection) -> list[tuple[Candidate, int]]:
    return [(candidate, standardiser.channels) for candidate, standardiser in fitted.standardisers.items()]


def _by_networks(fitted: Sequence[FittedSelection], backbones: BackboneCache) -> list[list[FittedSelection]]:
    """Selections that share no network with others apart; first those whose networks are in memory, all together."""

    def network_of(candidate: Candidate) -> str:
        network = backbones.network_of(candidate.backbone)
        return "" if backbones.in_memory(network) else network

    parts: list[tuple[set[str], list[int]]] = []
    for number, entry in enumerate(fitted):
        networks, rows = {network_of(candidate) for candidate in entry.standardisers}, [number]
        for part in [part for part in parts if part[0] & networks]:
            parts.remove(part)
            networks, rows = networks | part[0], sorted([*part[1], *rows])
        parts.append((networks, rows))
    parts.sort(key=lambda part: ("" not in part[0], part[1]))
    return [[fitted[number] for number in rows] for _, rows in parts]


def pair_chunks(pairs: Sequence[tuple[int, int]], images: int) -> Iterator[list[tuple[int, int]]]:
    """Divide pairs, in their order, into chunks that need few images.

    Args:
        pairs: (source, target) positions.
        images: most images of a chunk; a chunk holds at least one pair.

    Yields:
        The pairs of each chunk.
    """
    chunk: list[tuple[int, int]] = []
    for pair in pairs:
        if chunk and len({index for member in (*chunk, pair) for index in member}) > max(2, images):
            yield chunk
            chunk = []
        chunk.append(pair)
    if chunk:
        yield chunk
