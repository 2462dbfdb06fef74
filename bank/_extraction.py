"""Extraction: images run through a backbone in batches, and the features that entries lack are written as they come."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
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
from diffsift.datasets import Sample, pixel_tensors, prompts_of
from diffsift.extraction import Standardiser, pool, sample_map
from diffsift.spaces import Candidate

from ._entry import new_description
from ._images import ImageSet
from ._pending_entries import PendingEntry
from ._raw import RawFeatures
from ._records import Records
from ._statistics import decoded, encoded, fitted

_FIT_MEMORY = 500_000_000
"""Bytes of features in float32 that a fit holds at once."""

_WRITE_MEMORY = 64_000_000
"""Bytes of them that are turned into records at once."""

_PROJECTION_MEMORY = 500_000_000
"""Bytes of projections that are on the device at once, where one timestep has fewer."""

_PASS_MEMORY = 256_000_000
"""Bytes of sampled features that one pass leaves, on the device and on the CPU, where a single image leaves less."""


@dataclass(frozen=True)
class _Sink:
    """Where the sampled features of some images go.

    Attributes:
        entry: the entry that lacks them.
        images: positions of the images.
        write: called with positions of images and what there is to store of them (images, points, channels).
        standardiser: applied on the device before that; None where raw features are stored.
    """

    entry: PendingEntry
    images: Sequence[int]
    write: Callable[[list[int], Tensor], None]
    standardiser: Standardiser | None = None

    @property
    def image_bytes(self) -> int:
        """Bytes that a pass leaves of an image."""
        raw = self.entry.activation.channels
        return 4 * self.entry.points * (raw if self.standardiser is None else self.standardiser.channels)


class Extraction:
    """Fills entries of one set of images.

    Args:
        images: of the development set.
        context: noise seed, batch size and reporter are used.
        study: name that is written to the entries that are made; None: none.
    """

    def __init__(self, images: ImageSet, context: RunContext, study: str | None) -> None:
        self._images, self._context, self._study = images, context, study

    def run(self, backbone: Backbone, entries: Sequence[PendingEntry], about: str, room: int) -> None:
        """Extract what entries lack: first the images that statistics are fit on, then the others.

        Args:
            backbone: the backbone whose features the entries hold.
            entries: their locks are held, and they were inspected since these were taken.
            about: the model in words, stored in new entries.
            room: bytes on disk that raw features may take; those of one timestep are always kept together.
        """
        for entry in entries:
            if entry.description is None:
                entry.description = new_description(entry.key, self._images.fresh_fit, about)
                entry.folder.create(entry.description)
            if self._study is not None:  # now, so that an entry which is never finished has an owner too
                entry.folder.note_study(self._study)
        reporter = self._context.reporter
        with reporter.progress(self.passes(entries), f"bank: {backbone.name}", "pass") as progress:
            frozen = [entry for entry in entries if entry.frozen]
            for group in fit_groups(entries, room):
                raws = [entry.raw() for entry in group]
                sinks = [
                    _Sink(entry, entry.unfit, partial(self._write_raw, raw))
                    for entry, raw in zip(group, raws, strict=True)
                ]
                runs = _runs(sinks)
                self._run_batches(backbone, [*sinks, *self._sinks(frozen, backbone.device, runs)], progress)
                for entry in frozen:
                    entry.missing = [image for image in entry.missing if (image, entry.candidate.timestep) not in runs]
                for entry, raw in zip(group, raws, strict=True):
                    self._fit(entry, raw)
            for group in record_groups(entries, self._images.specification.max_channels):
                self._run_batches(backbone, self._sinks(group, backbone.device), progress)

    def passes(self, entries: Sequence[PendingEntry]) -> int:
        """How often the backbone runs on an image to extract what these entries lack; they must have been inspected.

        Once for each image and timestep. More only where an interrupted fill has left entries whose statistics are to
        be fit on other images than those of a new entry: records wait for the statistics of their entry.
        """
        fits = {(image, entry.candidate.timestep) for entry in entries for image in entry.unfit}
        records = [(image, entry) for entry in entries for image in entry.missing]
        later = {(image, entry.candidate.timestep) for image, entry in records}
        waiting = {(image, entry.candidate.timestep) for image, entry in records if not entry.frozen}
        return len(fits) + len(later - fits | waiting)

    def _sinks(
        self, entries: Sequence[PendingEntry], device: torch.device, among: Collection[tuple[int, int]] | None = None
    ) -> list[_Sink]:
        """The records that entries with statistics lack; `among`: only those of some (image, timestep)."""
        sinks = []
        for entry in entries:
            if entry.description is not None and entry.description.statistics is not None:
                entry.raw().delete()  # where a process was killed before it did
                standardiser = decoded(entry.folder.statistics(entry.description))
                write = partial(self._write, entry, entry.records(standardiser))
                timestep = entry.candidate.timestep
                images = [image for image in entry.missing if among is None or (image, timestep) in among]
                sinks.append(_Sink(entry, images, write, standardiser.to(device)))
        return sinks

    def _run_batches(self, backbone: Backbone, sinks: Sequence[_Sink], progress: tqdm[Any]) -> None:
        """Run the images that sinks lack; the next are read, and the last features written, while the backbone runs."""
        batches = list(self._batches(sinks))
        with ThreadPoolExecutor(1) as reading, ThreadPoolExecutor(1) as writing:
            loading, written = [reading.submit(self._loaded, images) for images, _ in batches[:1]], _done()
            for number, (images, columns) in enumerate(batches):
                samples, tensors = loading.pop().result()
                loading = [reading.submit(self._loaded, following) for following, _ in batches[number + 1 : number + 2]]
                of = {sinks[column].entry.candidate: sinks[column] for column in columns}
                for timestep, found in self._passes(backbone, of, images, samples, tensors):
                    written.result()  # no pass before the last one is lost where the process is killed
                    written = writing.submit(_written, of, backbone.name, timestep, images, found)
                    progress.update(len(images))
            written.result()

    def _batches(self, sinks: Sequence[_Sink]) -> Iterator[tuple[list[int], list[int]]]:
        """Batches of images that the same sinks lack, with the positions of these sinks."""
        lacking: Bool[np.ndarray, "images sinks"] = np.zeros((len(self._images), len(sinks)), dtype=bool)
        for column, sink in enumerate(sinks):
            lacking[list(sink.images), column] = True
        groups: dict[bytes, list[int]] = {}
        for image in np.flatnonzero(lacking.any(1)):
            groups.setdefault(lacking[image].tobytes(), []).append(int(image))
        for images in groups.values():
            columns = np.flatnonzero(lacking[images[0]]).tolist()
            left: dict[int, int] = {}
            for sink in (sinks[column] for column in columns):
                left[sink.entry.candidate.timestep] = left.get(sink.entry.candidate.timestep, 0) + sink.image_bytes
            together = min(self._context.batch_size, max(1, _PASS_MEMORY // max(left.values())))
            for start in range(0, len(images), together):
                yield images[start : start + together], columns

    def _loaded(self, images: Sequence[int]) -> tuple[list[Sample], list[Tensor]]:
        samples = [self._images.development.samples[image] for image in images]
        return samples, pixel_tensors([sample.image for sample in samples])

    def _passes(
        self,
        backbone: Backbone,
        sinks: Mapping[Candidate, _Sink],
        images: Sequence[int],
        samples: Sequence[Sample],
        tensors: Sequence[Tensor],
    ) -> Iterator[tuple[int, dict[str, Tensor]]]:
        """Yield what sinks store of some images, timestep by timestep, by the name of the activation."""
        points = torch.from_numpy(self._images.development.points[list(images)]).to(backbone.device)
        wanted: dict[int, list[Activation]] = {}
        for candidate, sink in sinks.items():
            wanted.setdefault(candidate.timestep, []).append(sink.entry.activation)

        def read(feature_map: FeatureMap) -> Tensor:
            sampled = sample_map(feature_map.values, points[feature_map.images])
            candidate = Candidate(backbone.name, feature_map.activation.name, feature_map.timestep)
            standardiser = sinks[candidate].standardiser
            return sampled if standardiser is None else standardiser.apply(sampled)

        for timestep, found in backbone.capture(
            list(tensors), wanted, seed=self._context.noise_seed, prompts=prompts_of(samples), read=read
        ):
            yield timestep, on_cpu(found)

    def _fit(self, entry: PendingEntry, raw: RawFeatures) -> None:
        """Fit an entry's statistics on the raw features it holds, and turn these into its first records."""
        assert entry.description is not None
        images, channels = self._images.positions(entry.description.fit), entry.activation.channels
        digests = self._images.of(images)
        chosen = _fit_points(len(images), entry.points, channels)
        values = torch.empty(len(images), len(chosen), channels)
        for number, digest in enumerate(digests):
            values[number] = raw.read([digest])[0, chosen]
        found = fitted(values, self._images.specification.max_channels)
        del values
        if isinstance(found, Standardiser):
            records = entry.records(found)
            together = max(1, _WRITE_MEMORY // (4 * entry.points * channels))
            for start in range(0, len(images), together):
                part = slice(start, start + together)
                self._write(entry, records, images[part], found.apply(raw.read(digests[part])))
        # From here on the entry has statistics, and others read its records.
        stored = found if isinstance(found, str) else encoded(found)
        entry.description = entry.folder.freeze(entry.description, stored)
        raw.delete()

    def _write_raw(self, raw: RawFeatures, images: list[int], sampled: Tensor) -> None:
        raw.write(self._images.of(images), images, sampled)

    def _write(self, entry: PendingEntry, records: Records, images: list[int], features: Tensor) -> None:
        if self._images.development.pooled:
            features = pool(features, entry.activation.name)[:, None]
        records.write(self._images.of(images), images, features.to(torch.float16).numpy())


def _done() -> Future[None]:
    future: Future[None] = Future()
    future.set_result(None)
    return future


def _written(
    sinks: Mapping[Candidate, _Sink], backbone: str, timestep: int, images: list[int], found: Mapping[str, Tensor]
) -> None:
    for name, features in found.items():
        sinks[Candidate(backbone, name, timestep)].write(images, features)


def fit_memory(images: int, points: int, channels: int, max_channels: int) -> int:
    """Bytes that it takes to fit a candidate: features in float32, and what the fit takes beside them."""
    samples = images * len(_fit_points(images, points, channels))
    return 4 * samples * channels + Standardiser.fit_memory(samples, channels, max_channels)


def _fit_points(images: int, points: int, channels: int) -> Int[np.ndarray, "chosen"]:
    """The points of each image that statistics are fit on: all, or as many as memory holds, evenly spaced."""
    most = max(1, _FIT_MEMORY // (4 * images * channels))
    return np.arange(points) if points <= most else np.arange(most) * points // most


def raw_by_timestep(entries: Sequence[PendingEntry]) -> dict[int, int]:
    """Bytes of raw features of the entries without statistics, by timestep."""
    found: dict[int, int] = {}
    for entry in entries:
        if not entry.frozen:
            found[entry.candidate.timestep] = found.get(entry.candidate.timestep, 0) + entry.raw_bytes
    return found


def fit_groups(entries: Sequence[PendingEntry], room: int) -> list[list[PendingEntry]]:
    """Entries without statistics by timestep; several timesteps together where raw features fit into `room`.

    A timestep is a pass of its own, so groups of timesteps cost no pass; but images are read once for each group.
    """
    waiting = [entry for entry in entries if not entry.frozen]
    return _timesteps_within(waiting, raw_by_timestep(waiting), room)


def record_groups(entries: Sequence[PendingEntry], max_channels: int) -> list[list[PendingEntry]]:
    """Entries by timestep; several timesteps together where memory holds the projections of all of them."""
    sizes: dict[int, int] = {}
    for entry in entries:
        channels, timestep = entry.activation.channels, entry.candidate.timestep
        projection = 4 * channels * max_channels if channels > max_channels else 0
        sizes[timestep] = sizes.get(timestep, 0) + projection
    return _timesteps_within(entries, sizes, _PROJECTION_MEMORY)


def _timesteps_within(entries: Sequence[PendingEntry], sizes: Mapping[int, int], room: int) -> list[list[PendingEntry]]:
    """Entries of the same timesteps together; of several where their sizes add up to no more than `room`."""
    timesteps: list[list[int]] = []
    used = 0
    for timestep, size in sizes.items():
        if not timesteps or used + size > room:
            timesteps.append([])
            used = 0
        timesteps[-1].append(timestep)
        used += size
    return [[entry for entry in entries if entry.candidate.timestep in together] for together in timesteps]


def _runs(sinks: Sequence[_Sink]) -> set[tuple[int, int]]:
    """(image, timestep) of the passes that sinks need."""
    return {(image, sink.entry.candidate.timestep) for sink in sinks for image in sink.images}
