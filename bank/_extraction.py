"""Extraction: images stream through a backbone, and what entries lack of them is written image by image."""

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

from diffsift.backbones import Activation, Backbone
from diffsift.common.context import RunContext
from diffsift.datasets import image_tensors, prompts_of
from diffsift.extraction import Standardiser, pool, sample_map
from diffsift.spaces import Candidate

from ._entry import new_description
from ._images import ImageSet
from ._pending import Place
from ._records import Records
from ._statistics import decoded, encoded, fitted

_FIT_DISK = 1_000_000_000
"""Bytes of raw features that lie on disk at once while statistics and projections are fit."""


_FIT_MEMORY = 500_000_000
"""Bytes of features in float32 that a fit holds at once; it takes five times as much while it computes."""


@dataclass(frozen=True)
class _Sink:
    """Where the sampled features of some images go."""

    place: Place
    images: Sequence[int]
    write: Callable[[list[int], Tensor], None]


class Extraction:
    """Fills entries of one set of images.

    Args:
        images: of the development set.
        context: noise seed, batch size and reporter are used.
        study: noted in the entries that are made.
    """

    def __init__(self, images: ImageSet, context: RunContext, study: str | None) -> None:
        self._images, self._context, self._study = images, context, study

    def run(self, backbone: Backbone, places: Sequence[Place], about: str) -> None:
        """Extract what entries lack: first the images statistics are fit on, then the others.

        Args:
            backbone: that they are entries of.
            places: their locks are held, and they were looked at since.
            about: the model in words, kept in new entries.
        """
        for place in places:
            if place.description is None:
                place.description = new_description(place.key, self._images.fresh_fit, about)
                place.folder.create(place.description)
            if self._study is not None:  # now, so that an entry which is never finished has an owner too
                place.folder.note_study(self._study)
        reporter = self._context.reporter
        with reporter.progress(self.passes(places), f"bank: {backbone.name}", "pass") as progress:
            for group in fit_groups(places):
                raws = [place.raw() for place in group]
                sinks = [
                    _Sink(place, place.unfit, partial(self._keep_raw, raw))
                    for place, raw in zip(group, raws, strict=True)
                ]
                self._stream(backbone, sinks, progress)
                for place, raw in zip(group, raws, strict=True):
                    self._fit(place, raw)
            sinks = []
            for place in places:
                if place.description is not None and place.description.statistics is not None:
                    place.raw().delete()  # where a process was killed before it did
                    standardiser = decoded(place.folder.statistics(place.description))
                    write = partial(self._keep, place, place.records(standardiser), standardiser)
                    sinks.append(_Sink(place, place.missing, write))
            self._stream(backbone, sinks, progress)

    def passes(self, places: Sequence[Place]) -> int:
        """How often the backbone runs on an image to extract what these entries lack."""
        fits = sum(self._count([(place, place.unfit) for place in group]) for group in fit_groups(places))
        return fits + self._count([(place, place.missing) for place in places])

    def _count(self, needs: Sequence[tuple[Place, Sequence[int]]]) -> int:
        return sum(
            len(images) * len({needs[column][0].candidate.timestep for column in columns})
            for images, columns in self._batches([images for _, images in needs])
        )

    def _stream(self, backbone: Backbone, sinks: Sequence[_Sink], progress: tqdm[Any]) -> None:
        for images, columns in self._batches([sink.images for sink in sinks]):
            wanted: dict[int, list[Activation]] = {}
            for column in columns:
                place = sinks[column].place
                wanted.setdefault(place.candidate.timestep, []).append(place.activation)
            writers = {sinks[column].place.candidate: sinks[column].write for column in columns}
            for candidate, sampled in self._sampled(backbone, wanted, images, progress):
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
        self, backbone: Backbone, wanted: dict[int, list[Activation]], images: list[int], progress: tqdm[Any]
    ) -> Iterator[tuple[Candidate, Tensor]]:
        """Yield raw features at the locations of some images, candidate by candidate."""
        development = self._images.development
        samples = [development.samples[image] for image in images]
        points = torch.from_numpy(development.points[images])
        batch = image_tensors([sample.image for sample in samples])
        for timestep, maps in backbone.capture(
            batch, wanted, seed=self._context.noise_seed, prompts=prompts_of(samples)
        ):
            for name, feature_map in maps.items():
                sampled = sample_map(feature_map, points.to(feature_map.device)).cpu()
                yield Candidate(backbone.name, name, timestep), sampled
            progress.update(len(images))

    def _fit(self, place: Place, raw: Records) -> None:
        """Fit an entry's statistics on the raw features it holds, and turn these into its first records."""
        assert place.description is not None
        images = self._images.positions(place.description.fit)
        features = raw.features(self._images.of(images))
        chosen = _fit_points(*features.shape)
        values = np.stack([features[image][chosen] for image in range(len(images))])
        found = fitted(torch.from_numpy(values), self._images.specification.max_channels)
        if isinstance(found, Standardiser):
            records = place.records(found)
            together = max(1, _FIT_MEMORY // (features.nbytes // len(images)))
            for start in range(0, len(images), together):
                part = slice(start, start + together)
                self._keep(place, records, found, images[part], torch.from_numpy(np.array(features[part])))
        # From here on the entry has statistics, and others read its records.
        stored = found if isinstance(found, str) else encoded(found)
        place.description = place.folder.settle(place.description, stored)
        del features
        raw.delete()

    def _keep_raw(self, records: Records, images: list[int], sampled: Tensor) -> None:
        # Values that are not finite are for the fit to find.
        records.write(self._images.of(images), images, sampled.numpy(), only_finite=False)

    def _keep(
        self, place: Place, records: Records, standardiser: Standardiser, images: list[int], sampled: Tensor
    ) -> None:
        features = standardiser.apply(sampled)
        if self._images.development.pooled:
            features = pool(features, place.activation.name)[:, None]
        records.write(self._images.of(images), images, features.to(torch.float16).numpy())


def fit_memory(images: int, points: int, channels: int, max_channels: int) -> int:
    """Bytes that it takes to fit a candidate: features in float32, twice in float64, and matrices for a projection."""
    features = images * len(_fit_points(images, points, channels)) * channels
    return features * (4 + 2 * 8) + (3 * 8 * channels**2 if channels > max_channels else 0)


def _fit_points(images: int, points: int, channels: int) -> Int[np.ndarray, "chosen"]:
    """The points of each image that statistics are fit on: all, or as many as memory holds, evenly spaced."""
    most = max(1, _FIT_MEMORY // (4 * images * channels))
    return np.arange(points) if points <= most else np.arange(most) * points // most


def fit_groups(places: Sequence[Place]) -> list[list[Place]]:
    """Entries without statistics whose raw features fit on disk together; each group is a pass more."""
    by_timestep: dict[int, list[Place]] = {}
    for place in places:
        if not place.settled:
            by_timestep.setdefault(place.candidate.timestep, []).append(place)
    groups: list[list[Place]] = [[]]
    used = 0
    for together in by_timestep.values():
        # A timestep is a pass of its own: it is split only where it alone is too large.
        if used and used + sum(place.raw_bytes for place in together) > _FIT_DISK:
            groups.append([])
            used = 0
        for place in together:
            if used and used + place.raw_bytes > _FIT_DISK:
                groups.append([])
                used = 0
            groups[-1].append(place)
            used += place.raw_bytes
    return groups
