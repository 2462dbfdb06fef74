"""The bank: features of the development images at sampled locations, on disk, so that trials never run a backbone.

One entry per candidate: a folder named by the hash of everything that shaped it, with

- ``features.npy``: float16 (images, points, channels), standardised and projected as `Standardiser` does; one mean over
  an image's points where the development set says so;
- ``statistics.safetensors``: the standardiser;
- ``entry.json``: the full key, a checksum of the features, and the reason if the candidate cannot be used.

An entry is written under a temporary name and moved into place when it is whole, so a partial one is never read; one
whose size or checksum is off is rebuilt.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from jaxtyping import Float16
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from diffsift.backbones import Activation, Backbone
from diffsift.errors import BankError
from diffsift.spaces import Candidate, Standardiser, sample_map

from .datasets import Sample
from .development import DevelopmentSet
from .specification import BankSpecification

FORMAT = 1
"""Of an entry: raised whenever what is stored, or how it is computed, changes."""

_FIT_MEMORY = 1_000_000_000
"""Bytes of raw features that are held at once while statistics and projections are fit."""

Wanted = Mapping[int, Sequence[Activation]]


@dataclass(frozen=True)
class Entry:
    """Features of one candidate at the development set's locations."""

    candidate: Candidate
    features: Float16[np.ndarray, "images points channels"]
    standardiser: Standardiser
    size: int  # bytes on disk


class Bank:
    """Entries of a development set in a folder that several studies share.

    Args:
        folder: made if missing.
        development: the images and locations.
        specification: sampling and compression.
        noise_seed: seed of the noise added to images.
        batch_size: images that run through a backbone together.
        progress: show progress bars.
    """

    def __init__(
        self,
        folder: Path,
        development: DevelopmentSet,
        specification: BankSpecification,
        *,
        noise_seed: int,
        batch_size: int,
        progress: bool = True,
    ) -> None:
        self._folder, self._development, self._specification = folder, development, specification
        self._noise_seed, self._batch_size, self._progress = noise_seed, batch_size, progress
        self._entries: dict[Candidate, Entry] = {}
        self.rejected: dict[Candidate, str] = {}
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BankError(f"the bank's folder {folder} cannot be made: {error.strerror}.") from error

    @property
    def development(self) -> DevelopmentSet:
        return self._development

    @property
    def size(self) -> int:
        """Bytes of all entries in use."""
        return sum(entry.size for entry in self._entries.values())

    def __getitem__(self, candidate: Candidate) -> Entry:
        return self._entries[candidate]

    def __contains__(self, candidate: Candidate) -> bool:
        return candidate in self._entries

    def estimate(self, wanted: Wanted) -> int:
        """Bytes that entries for these activations take."""
        channels = sum(
            min(a.channels, self._specification.max_channels) for entries in wanted.values() for a in entries
        )
        return len(self._development.samples) * self._development.rows * channels * 2

    def passes(self, wanted: Wanted) -> int:
        """How often the backbone runs on an image to fill the bank with these activations."""
        first = len(self._fit_subset())
        groups = self._fit_groups(wanted, first)
        return first * sum(map(len, groups)) + (len(self._development.samples) - first) * len(wanted)

    def fill(self, backbone: Backbone, wanted: Wanted) -> int:
        """Make sure the bank holds these activations of a backbone, running it only for what is missing.

        Returns:
            How many entries had to be extracted. Candidates with a value that is not finite end up in `rejected`.

        Raises:
            BankError: the disk is full or cannot be written.
        """
        identity = backbone.identity()
        keys: dict[Candidate, dict[str, Any]] = {}
        missing: dict[int, list[Activation]] = {}
        for timestep, activations in wanted.items():
            for activation in activations:
                candidate = Candidate(backbone.name, activation.name, timestep)
                keys[candidate] = self._key(identity, activation, timestep)
                if candidate not in self._entries and not self._open(candidate, keys[candidate]):
                    missing.setdefault(timestep, []).append(activation)
        count = sum(len(activations) for activations in missing.values())
        if not count:
            return 0
        self._check_space(missing)
        self._sweep()
        try:
            with _Writers(self._folder, keys, self._specification.max_channels, self._development.pooled) as writers:
                self._stream(backbone, missing, writers)
        except OSError as error:
            raise BankError(f"the bank in {self._folder} cannot be written: {error.strerror or error}.") from error
        for candidate in writers.candidates:
            if not self._open(candidate, keys[candidate]):
                raise BankError(f"the entry of {candidate} in {self._folder} was changed while it was written.")
        return count

    def _stream(self, backbone: Backbone, wanted: Wanted, writers: _Writers) -> None:
        development = self._development
        first = self._fit_subset()
        rest = np.setdiff1d(np.arange(len(development.samples)), first)
        groups = self._fit_groups(wanted, len(first))
        progress = tqdm(
            total=self.passes(wanted),
            desc=f"bank: {backbone.name}",
            unit="pass",
            disable=not self._progress,
        )
        with progress:
            for group in groups:
                held: dict[Candidate, list[Tensor]] = {}
                for images in _batches(first, self._batch_size):
                    for candidate, sampled in self._sampled(backbone, group, images, progress):
                        held.setdefault(candidate, []).append(sampled)
                for candidate in list(held):
                    raw = torch.cat(held.pop(candidate))
                    writers.start(candidate, raw, (len(development.samples), development.rows))
                    writers.write(candidate, first, raw)
            for images in _batches(rest, self._batch_size):
                for candidate, sampled in self._sampled(backbone, wanted, images, progress):
                    writers.write(candidate, images, sampled)

    def _fit_groups(self, wanted: Wanted, images: int) -> list[dict[int, list[Activation]]]:
        """Activations whose raw features of the first images fit into memory together; each group is a pass more."""
        groups: list[dict[int, list[Activation]]] = [{}]
        used, per_channel = 0, images * self._development.points.shape[1] * 4
        for timestep, activations in wanted.items():
            # A timestep is a pass of its own: it is split only where it alone is too large.
            if used + sum(activation.channels for activation in activations) * per_channel > _FIT_MEMORY and used:
                groups.append({})
                used = 0
            for activation in activations:
                needed = activation.channels * per_channel
                if used and used + needed > _FIT_MEMORY:
                    groups.append({})
                    used = 0
                groups[-1].setdefault(timestep, []).append(activation)
                used += needed
        return groups

    def _sampled(
        self, backbone: Backbone, wanted: Wanted, images: np.ndarray, progress: tqdm[Any]
    ) -> Iterator[tuple[Candidate, Tensor]]:
        """Yield raw features at the locations of some images, candidate by candidate."""
        samples = [self._development.samples[int(index)] for index in images]
        points = torch.from_numpy(self._development.points[images])
        batch = image_tensors([sample.image for sample in samples])
        for timestep, maps in backbone.capture(batch, wanted, seed=self._noise_seed, prompts=prompts_of(samples)):
            progress.update(len(images))
            for name, feature_map in maps.items():
                sampled = sample_map(feature_map, points.to(feature_map.device)).cpu()
                yield Candidate(backbone.name, name, timestep), sampled

    def _fit_subset(self) -> np.ndarray:
        training = np.flatnonzero(self._development.training)
        order = np.random.default_rng([self._specification.seed, 1]).permutation(training)
        return np.sort(order[: self._specification.fit_images])

    def _key(self, identity: dict[str, Any], activation: Activation, timestep: int) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "backbone": identity,
            "activation": activation.name,
            "timestep": timestep,
            "noise": {"seed": self._noise_seed, "sharing": "per image, from its content"},
            "images": self._development.identity,
            "max_channels": self._specification.max_channels,
            "fit": {"images": self._specification.fit_images, "seed": self._specification.seed},
        }

    def _open(self, candidate: Candidate, key: dict[str, Any]) -> bool:
        """Take up a whole entry; delete one that is damaged."""
        folder = self._folder / _key_name(key)
        try:
            stored = json.loads((folder / "entry.json").read_text(encoding="utf-8"))
            if stored["rejected"]:
                self.rejected[candidate] = stored["rejected"]
                return True
            features = np.load(folder / "features.npy", mmap_mode="r")
            if zlib.crc32(features.data) != stored["checksum"]:
                raise ValueError("checksum")
            statistics = load_file(folder / "statistics.safetensors")
            standardiser = Standardiser(statistics["mean"], statistics["scale"], statistics.get("projection"))
        except FileNotFoundError:
            return False
        except (ValueError, KeyError, EOFError, SafetensorError, OSError):
            shutil.rmtree(folder, ignore_errors=True)
            return False
        size = sum(file.stat().st_size for file in folder.iterdir())
        self._entries[candidate] = Entry(candidate, features, standardiser, size)
        return True

    def _sweep(self) -> None:
        """Remove what processes that were killed left half-written; a living process's entries are left alone."""
        for partial in self._folder.glob("*.partial"):
            process = partial.name.split(".")[-2]
            if process.isdigit() and not psutil.pid_exists(int(process)):
                shutil.rmtree(partial, ignore_errors=True)

    def _check_space(self, wanted: Wanted) -> None:
        needed, free = self.estimate(wanted), shutil.disk_usage(self._folder).free
        if needed > free:
            raise BankError(
                f"the bank needs {needed / 1e9:.1f} GB in {self._folder}, but {free / 1e9:.1f} GB are free: "
                "lower bank.pixels_per_image, drop timesteps or filter more activations."
            )


class _Writers:
    """Entries being written, each in a temporary folder that is moved into place at the end, or removed."""

    def __init__(self, folder: Path, keys: Mapping[Candidate, dict[str, Any]], max_channels: int, pooled: bool) -> None:
        self._folder, self._keys = folder, keys
        self._max_channels, self._pooled = max_channels, pooled
        self._temporary: dict[Candidate, Path] = {}
        self._arrays: dict[Candidate, np.memmap] = {}
        self._standardisers: dict[Candidate, Standardiser] = {}
        self._rejected: dict[Candidate, str] = {}

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        return tuple(self._temporary)

    def __enter__(self) -> _Writers:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for candidate, temporary in self._temporary.items():
            if kind is None:
                self._finish(candidate, temporary)
            self._arrays.pop(candidate, None)
            shutil.rmtree(temporary, ignore_errors=True)

    def start(self, candidate: Candidate, raw: Tensor, shape: tuple[int, int]) -> None:
        """Fit the standardiser on the first images' raw features and open the file."""
        temporary = self._folder / f"{_key_name(self._keys[candidate])}.{os.getpid()}.partial"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        self._temporary[candidate] = temporary
        if not bool(torch.isfinite(raw).all()):
            self._reject(candidate, raw)
            return
        standardiser = Standardiser.fit(raw.flatten(0, 1), max_channels=self._max_channels)
        self._standardisers[candidate] = standardiser
        self._arrays[candidate] = np.lib.format.open_memmap(
            temporary / "features.npy", mode="w+", dtype=np.float16, shape=(*shape, standardiser.channels)
        )

    def write(self, candidate: Candidate, images: np.ndarray, raw: Tensor) -> None:
        if candidate in self._rejected:
            return
        standardised = self._standardisers[candidate].apply(raw)
        features = (standardised.mean(1, keepdim=True) if self._pooled else standardised).to(torch.float16)
        if bool(torch.isfinite(features).all()):
            self._arrays[candidate][images] = features.numpy()
        else:
            self._reject(candidate, features)

    def _reject(self, candidate: Candidate, values: Tensor) -> None:
        share = 1 - float(torch.isfinite(values).double().mean())
        self._rejected[candidate] = f"not finite (NaN or infinite) in {share:.2%} of its values"

    def _finish(self, candidate: Candidate, temporary: Path) -> None:
        final = self._folder / _key_name(self._keys[candidate])
        entry: dict[str, Any] = {
            "key": self._keys[candidate],
            "rejected": self._rejected.get(candidate),
            "checksum": None,
        }
        if candidate in self._rejected:
            (temporary / "features.npy").unlink(missing_ok=True)
        else:
            array = self._arrays.pop(candidate)
            array.flush()
            entry["checksum"] = zlib.crc32(array.data)
            standardiser = self._standardisers[candidate]
            statistics = {"mean": standardiser.mean, "scale": standardiser.scale}
            if standardiser.projection is not None:
                statistics["projection"] = standardiser.projection.contiguous()
            save_file(statistics, temporary / "statistics.safetensors")
        (temporary / "entry.json").write_text(json.dumps(entry, indent=1), encoding="utf-8")
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)


def _key_name(key: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]


def _batches(indices: np.ndarray, size: int) -> list[np.ndarray]:
    return [indices[start : start + size] for start in range(0, len(indices), size)]


def image_tensors(images: Sequence[np.ndarray]) -> list[Tensor]:
    """8-bit images (height, width, 3) of any sizes as tensors (3, height, width) in [0, 1]."""
    return [torch.from_numpy(image.copy()).permute(2, 0, 1).float() / 255 for image in images]


def prompts_of(samples: Sequence[Sample]) -> list[str] | None:
    """The samples' own prompts; None where they have none, and the model's prompt holds."""
    prompts = [sample.prompt for sample in samples if sample.prompt is not None]
    return prompts if len(prompts) == len(samples) else None
