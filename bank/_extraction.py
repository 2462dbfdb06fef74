"""Extraction: images run through a backbone in batches, and the features that entries lack are written as they come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from tqdm import tqdm

from diffsift.backbones import Activation, Backbone, FeatureMap, on_cpu
from diffsift.common.context import RunContext
from diffsift.datasets import image_tensors, prompts_of
from diffsift.extraction import Standardiser, pool, sample_map
from diffsift.spaces import Candidate

from ._entry import new_description
from ._images import ImageSet
from ._pending_entries import PendingEntry
from ._records import Records
from ._statistics import decoded, encoded, fitted

_FIT_DISK = 1_000_000_000
"""Bytes of raw features that lie on disk at once while statistics and projections are fit."""


_FIT_MEMORY = 500_000_000
"""Bytes of features in float32 that a fit holds at once; it takes five times as much while it computes."""


@dataclass(frozen=True)
class _Sink:
    """Where the sampled features of some images go.

    Attributes:
        entry: the entry that lacks them.
        images: positions of the images.
        write: called with positions of images and their raw features (images, points, channels).
    """

    entry: PendingEntry
    images: Sequence[int]
    write: Callable[[list[int], Tensor], None]


class Extraction:
    """Fills entries of one set of images.

    Args:
        images: of the development set.
        context: noise seed, batch size and reporter are used.
        study: name that is written to the entries that are made; None: none.
    """

    def __init__(self, images: ImageSet, context: RunContext, study: str | None) -> None:
        self._images, self._context, self._study = images, context, study

    def run(self, backbone: Backbone, entries: Sequence[PendingEntry], about: str) -> None:
        """Extract what entries lack: first the images that statistics are fit on, then the others.

        Args:
            backbone: the backbone whose features the entries hold.
            entries: their locks are held, and they were inspected since these were taken.
            about: the model in words, stored in new entries.
        """
        for entry in entries:
            if entry.description is None:
                entry.description = new_description(entry.key, self._images.fresh_fit, about)
                entry.folder.create(entry.description)
            if self._study is not None:  # now, so that an entry which is never finished has an owner too
                entry.folder.note_study(self._study)
        reporter = self._context.reporter
        with reporter.progress(self.passes(entries), f"bank: {backbone.name}", "pass") as progress:
            for group in fit_groups(entries):
                raws = [entry.raw() for entry in group]
                sinks = [
                    _Sink(entry, entry.unfit, partial(self._write_raw, raw))
                    for entry, raw in zip(group, raws, strict=True)
                ]
                self._run_batches(backbone, sinks, progress)
                for entry, raw in zip(group, raws, strict=True):
                    self._fit(entry, raw)
            sinks = []
            for entry in entries:
                if entry.description is not None and entry.description.statistics is not None:
                    entry.raw().delete()  # where a process was killed before it did
                    standardiser = decoded(entry.folder.statistics(entry.description))
                    write = partial(self._write, entry, entry.records(standardiser), standardiser)
                    sinks.append(_Sink(entry, entry.missing, write))
            self._run_batches(backbone, sinks, progress)

    def passes(self, entries: Sequence[PendingEntry]) -> int:
        """How often the backbone runs on an image to extract what these entries lack; they must have been inspected."""
        fits = sum(self._count([(entry, entry.unfit) for entry in group]) for group in fit_groups(entries))
        return fits + self._count([(entry, entry.missing) for entry in entries])

    def _count(self, needs: Sequence[tuple[PendingEntry, Sequence[int]]]) -> int:
        return sum(
            len(images) * len({needs[column][0].candidate.timestep for column in columns})
            for images, columns in self._batches([images for _, images in needs])
        )

    def _run_batches(self, backbone: Backbone, sinks: Sequence[_Sink], progress: tqdm[Any]) -> None:
        for images, columns in self._batches([sink.images for sink in sinks]):
            activations: dict[int, list[Activation]] = {}
            for column in columns:
                entry = sinks[column].entry
                activations.setdefault(entry.candidate.timestep, []).append(entry.activation)
            writers = {sinks[column].entry.candidate: sinks[column].write for column in columns}
            for candidate, sampled in self._sampled(backbone, activations, images, progress):
                writers[candidate](images, sampled)

    def _batches(self, needs: Sequence[Sequence[int]]) -> Iterator[tuple[list[int], list[int]]]:
        """Batches of images that the same entries lack, with the positions of these entries."""
        lacking: Bool[np.ndarray, "images entries"] = np.zeros((len(self._images), len(needs)), dtype=bool)
        for column, images in enumerate(needs):
            lacking[list(images), column] = True
        groups: dict[bytes, list[int]] = {}
        for image in np.flatnonzero(lacking.any(1)):
            groups.setdefault(lacking[image].tobytes(), []).append(int(image))
        for images in groups.values():
            columns = np.flatnonzero(lacking[images[0]]).tolist()
            for start in range(0, len(images), self._context.batch_size):
                yield images[start : start + self._context.batch_size], columns

    def _sampled(
        self, backbone: Backbone, activations: dict[int, list[Activation]], images: list[int], progress: tqdm[Any]
    ) -> Iterator[tuple[Candidate, Tensor]]:
        """Yield raw features at the locations of some images, candidate by candidate."""
        development = self._images.development
        samples = [development.samples[image] for image in images]
        points = torch.from_numpy(development.points[images])
        batch = image_tensors([sample.image for sample in samples])

        def read(feature_map: FeatureMap) -> Tensor:
            return sample_map(feature_map.values, points[feature_map.images].to(feature_map.values.device))

        for timestep, sampled in backbone.capture(
            batch, activations, seed=self._context.noise_seed, prompts=prompts_of(samples), read=read
        ):
            for name, features in on_cpu(sampled).items():
                yield Candidate(backbone.name, name, timestep), features
            progress.update(len(images))

    def _fit(self, entry: PendingEntry, raw: Records) -> None:
        """Fit an entry's statistics on the raw features it holds, and turn these into its first records."""
        assert entry.description is not None
        images = self._images.positions(entry.description.fit)
        features = raw.features(self._images.of(images))
        chosen = _fit_points(*features.shape)
        values = np.stack([features[image][chosen] for image in range(len(images))])
        found = fitted(torch.from_numpy(values), self._images.specification.max_channels)
        if isinstance(found, Standardiser):
            records = entry.records(found)
            together = max(1, _FIT_MEMORY // (features.nbytes // len(images)))
            for start in range(0, len(images), together):
                part = slice(start, start + together)
                self._write(entry, records, found, images[part], torch.from_numpy(np.array(features[part])))
        # From here on the entry has statistics, and others read its records.
        stored = found if isinstance(found, str) else encoded(found)
        entry.description = entry.folder.freeze(entry.description, stored)
        del features
        raw.delete()

    def _write_raw(self, records: Records, images: list[int], sampled: Tensor) -> None:
        # Values that are not finite are for the fit to find.
        records.write(self._images.of(images), images, sampled.numpy(), only_finite=False)

    def _write(
        self, entry: PendingEntry, records: Records, standardiser: Standardiser, images: list[int], sampled: Tensor
    ) -> None:
        features = standardiser.apply(sampled)
        if self._images.development.pooled:
            features = pool(features, entry.activation.name)[:, None]
        records.write(self._images.of(images), images, features.to(torch.float16).numpy())


def fit_memory(images: int, points: int, channels: int, max_channels: int) -> int:
    """Bytes that it takes to fit a candidate: features in float32, twice in float64, and matrices for a projection."""
    features = images * len(_fit_points(images, points, channels)) * channels
    return features * (4 + 2 * 8) + (3 * 8 * channels**2 if channels > max_channels else 0)


def _fit_points(images: int, points: int, channels: int) -> Int[np.ndarray, "chosen"]:
    """The points of each image that statistics are fit on: all, or as many as memory holds, evenly spaced."""
    most = max(1, _FIT_MEMORY // (4 * images * channels))
    return np.arange(points) if points <= most else np.arange(most) * points // most


def fit_groups(entries: Sequence[PendingEntry]) -> list[list[PendingEntry]]:
    """Entries without statistics whose raw features fit on disk together; each group is a pass more."""
    by_timestep: dict[int, list[PendingEntry]] = {}
    for entry in entries:
        if not entry.frozen:
            by_timestep.setdefault(entry.candidate.timestep, []).append(entry)
    groups: list[list[PendingEntry]] = [[]]
    used = 0
    for together in by_timestep.values():
        # A timestep is a pass of its own: it is split only where it alone is too large.
        if used and used + sum(entry.raw_bytes for entry in together) > _FIT_DISK:
            groups.append([])
            used = 0
        for entry in together:
            if used and used + entry.raw_bytes > _FIT_DISK:
                groups.append([])
                used = 0
            groups[-1].append(entry)
            used += entry.raw_bytes
    return groups
