"""The pools, banks and probes that `search_quality.py` searches on: all in memory, divided anew for each seed."""

from __future__ import annotations

import csv
import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import torch

from diffsift.backbones import ModelSpecification, load
from diffsift.bank import Bank, BankSpecification, DevelopmentSet
from diffsift.bank.development import ALWAYS_FIT
from diffsift.common.context import RunContext
from diffsift.datasets import RenderedScenesSpecification
from diffsift.demo import PIPELINES
from diffsift.extraction import Standardiser
from diffsift.objectives import (
    OBJECTIVES,
    DepthSpecification,
    ProbeSpecification,
    RidgeProbe,
    TaskSpecification,
)
from diffsift.objectives.probes import DepthReadout
from diffsift.spaces import (
    Candidate,
    LimitsSpecification,
    Selection,
    declared_similarity,
    older_practice,
    paper_choice,
)

ROOT = Path(__file__).resolve().parent.parent
SCENES_SEED, SCENES = 53, 600
TIMESTEPS = (50, 150, 300)
LEFT_OUT = ("unet-*", "*-self-out", "*-cross-out", "*-attn-out")  # as in the demo
CHANNELS, PLACES = 32, 32
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Cell:
    """Something to search on, for one seed.

    Attributes:
        pool: candidates.
        channels: of each.
        limits: of a selection.
        score: on validation data, higher is better; an evaluation.
        test: on test data, with the probe fit on training and validation data.
        similarity: of candidates, without labels.
        eliminate: backward elimination, as a search begins with; returns what is left and how many sets were solved.
        rules: selections that people make without a search.
        by_timestep: all candidates of each timestep, beyond the limits.
        planted: the selection that the data were made from, if they were.
        learn: features and targets of the training data, for methods that learn by gradient; None for an oracle.
    """

    pool: tuple[Candidate, ...]
    channels: Mapping[Candidate, int]
    limits: LimitsSpecification
    score: Callable[[Selection], float]
    test: Callable[[Selection], float]
    similarity: Array
    eliminate: Callable[[], tuple[Selection | None, int]] = lambda: (None, 0)
    rules: tuple[Selection, ...] = ()
    by_timestep: tuple[Selection, ...] = ()
    planted: Selection | None = None
    learn: Callable[[], tuple[Array, list[int], Array]] | None = None


@dataclass(frozen=True)
class _Stored:
    """All images with their features: what is divided into training, validation and test images for each seed."""

    development: DevelopmentSet
    features: Mapping[Candidate, Array]
    raw_channels: Mapping[Candidate, int]
    values: bool
    rules: tuple[Selection, ...] = ()
    planted: Selection | None = None


def open_cell(name: str, seed: int, workspace: Path, published: Path | None) -> Cell:
    """A cell by its name, one of `CELLS`, divided by a seed; `published` is the CSV of the paper's tables."""
    if name.startswith("published"):
        if published is None:
            raise SystemExit(f"{name} needs the paper's tables as CSV, but --published names none.")
        return _published(name.split()[1].replace("-", ""), published)
    if name.startswith("planted"):
        return _divided(_planted(int(name.split()[1]), seed), seed)
    return _divided(_network(name, workspace), seed)


CELLS = (
    "unet segmentation",
    "unet depth",
    "transformer segmentation",
    "planted 60",
    "planted 300",
    "planted 3000",
    "published horse-21",
    "published bedroom-28",
)


@cache
def _network(name: str, workspace: Path) -> _Stored:
    """Every activation of a small network at three timesteps, on rendered scenes of a seed used nowhere else."""
    network, task = name.split()
    sizes = BankSpecification(max_channels=CHANNELS, pixels_per_image=PLACES)
    data = RenderedScenesSpecification(train=SCENES // 2, validation=SCENES // 2, test=1, seed=SCENES_SEED)
    kind = TaskSpecification() if task == "segmentation" else DepthSpecification(kind="depth")
    development = OBJECTIVES[task](data, kind, sizes, ProbeSpecification()).load()
    backbone = load(ModelSpecification(id=str(PIPELINES[network]), device="cpu", batch_size=32))
    known = backbone.activations()
    chosen = [
        entry
        for entry in known
        if not (entry.unreadable or entry.kind.endswith("-map"))
        and not any(fnmatch.fnmatch(entry.name, pattern) for pattern in LEFT_OUT)
    ]
    bank = Bank(workspace / name.replace(" ", "-"), development, sizes, RunContext(batch_size=32))
    bank.fill(backbone, dict.fromkeys(TIMESTEPS, chosen))
    candidates = [Candidate("main", entry.name, timestep) for entry in chosen for timestep in TIMESTEPS]
    features = {entry: np.asarray(bank[entry].features[:]) for entry in candidates if entry in bank}
    rules = []
    for names in (paper_choice(known), older_practice(known)):
        for timestep in TIMESTEPS:
            members = [Candidate("main", entry, timestep) for entry in names]
            if members and set(members) <= features.keys():
                rules.append(Selection.of(members))
    raw = {entry: bank[entry].standardiser.raw_channels for entry in features}
    return _Stored(development, features, raw, task == "depth", tuple(rules))


def _divided(stored: _Stored, seed: int) -> Cell:
    """A third of the images each to fit on, to search on and to test on, drawn by the seed."""
    images = len(stored.development.fold)
    order = np.random.default_rng([seed, 99]).permutation(images)
    train, validation, test = np.array_split(order, 3)
    searched = _part(stored, np.concatenate([train, validation]), len(train))
    tested = _part(stored, order, images - len(test))
    pool = tuple(sorted(stored.features))
    timesteps = sorted({candidate.timestep for candidate in pool})
    seen = _in_memory(stored, searched)

    def learn() -> tuple[Array, list[int], Array]:
        blocks = [
            stored.features[entry][train].reshape(-1, stored.features[entry].shape[-1])
            / np.float32(stored.raw_channels[entry] ** 0.5)
            for entry in pool
        ]
        offsets = np.cumsum([0, *(block.shape[1] for block in blocks)]).tolist()
        labels = stored.development.labels[train].ravel()
        return np.concatenate(blocks, axis=1).astype(np.float32), offsets, labels

    limits = LimitsSpecification(activations=4)

    def eliminated() -> tuple[Selection, int]:
        found = _probe(stored, seen).eliminate(pool, limits.activations)
        return Selection.of(found.survivors[: limits.activations]), found.solves

    return Cell(
        pool=pool,
        channels={entry: found.shape[-1] for entry, found in stored.features.items()},
        limits=limits,
        score=lambda selection: _probe(stored, seen).score(selection).value,
        test=lambda selection: _probe(stored, _in_memory(stored, tested)).score(selection).value,
        similarity=similarity(cast("Bank", seen), pool),
        eliminate=eliminated,
        rules=stored.rules,
        by_timestep=tuple(Selection.of([entry for entry in pool if entry.timestep == t]) for t in timesteps),
        planted=stored.planted,
        learn=learn,
    )


def _part(stored: _Stored, images: Array, fit: int) -> DevelopmentSet:
    """Some of the images; the first of them are always fit on, the others held out."""
    whole = stored.development
    return replace(
        whole,
        samples=cast("Any", images.tolist()),
        points=whole.points[images],
        labels=whole.labels[images],
        weights=whole.weights[images],
        fold=np.where(np.arange(len(images)) < fit, ALWAYS_FIT, 0),
        training=np.arange(len(images)) < fit,
        groups=tuple(whole.groups[image] for image in images),
        identity={"images": images.tolist()},
    )


class _MemoryBank:
    """What a probe needs of a bank, over some of the images."""

    def __init__(self, stored: _Stored, development: DevelopmentSet) -> None:
        self.development, self._stored = development, stored
        self._images = np.array(development.identity["images"])
        self._made: dict[Candidate, Any] = {}

    def __getitem__(self, candidate: Candidate) -> Any:
        if candidate not in self._made:
            raw = self._stored.raw_channels[candidate]
            features = self._stored.features[candidate][self._images]
            statistics = Standardiser(torch.zeros(raw), torch.ones(raw), None)
            self._made[candidate] = SimpleNamespace(candidate=candidate, features=features, standardiser=statistics)
        return self._made[candidate]


def _in_memory(stored: _Stored, development: DevelopmentSet) -> _MemoryBank:
    return _MemoryBank(stored, development)


_PROBES: dict[int, tuple[Any, RidgeProbe]] = {}


def _probe(stored: _Stored, bank: _MemoryBank) -> RidgeProbe:
    """The search's own probe; the last few are kept, with the moments that they know."""
    key = hash((id(stored), tuple(bank.development.identity["images"]), len(bank.development.fold)))
    if key not in _PROBES:
        while len(_PROBES) > 1:
            _PROBES.pop(next(iter(_PROBES)))
        readout = DepthReadout("rmse", aligned=False) if stored.values else None
        probe = RidgeProbe(cast("Bank", bank), ProbeSpecification(), readout, memory=3_000_000_000)
        _PROBES[key] = (stored, probe)
    return _PROBES[key][1]


@cache
def _planted(size: int, seed: int) -> _Stored:
    """A bank with a best selection of four: two halves of what decides the class, and a third with its antidote.

    Three groups of latents decide the class. Two planted candidates hold a group each. The third holds its group under
    a nuisance as strong, and the fourth holds that nuisance alone (a suppressor: useless alone, and beside any but the
    third). Neighbours of the planted ones in depth hold the same with more noise (redundant blocks); all others hold a
    weak mixture of the groups and what their neighbours hold. An activation has a best timestep, and gets noisier away
    from it.
    """
    rng = np.random.default_rng([seed, size, 7])
    timesteps = {60: (50, 150, 300), 300: (25, 50, 150, 300, 500), 3000: tuple(range(25, 1000, 100))}[size]
    activations = size // len(timesteps)
    images, rows, classes, width = 300, 16, 6, 8
    count = images * rows
    groups = [rng.standard_normal((count, 4)) for _ in range(3)]
    nuisance = rng.standard_normal((count, 4))
    chances = sum(group @ rng.standard_normal((4, classes)) for group in groups) * 0.7
    labels = (chances + 0.3 * rng.gumbel(size=(count, classes))).argmax(1).reshape(images, rows)
    held = [groups[0], groups[1], groups[2] + 1.5 * nuisance, nuisance]
    at = rng.choice(np.arange(1, activations - 1), 4, replace=False)
    chain = rng.standard_normal((count, 4))
    features: dict[Candidate, Array] = {}
    planted = []
    for number in range(activations):
        chain = 0.8 * chain + 0.6 * rng.standard_normal((count, 4))
        distance, which = min((abs(number - place), order) for order, place in enumerate(at))
        if distance == 0:
            base, noise = held[which], 0.25
        elif distance == 1:
            base, noise = held[which] + 0.7 * chain, 0.6
        else:
            shares = rng.dirichlet([0.6] * 3)
            turned = [group @ np.linalg.qr(rng.standard_normal((4, 4)))[0] for group in groups]
            base = 0.8 * sum(share * group for share, group in zip(shares, turned, strict=True)) + 0.6 * chain
            noise = 0.5
        mixing, own = rng.standard_normal((4, width)) / 2, rng.standard_normal((count, width))
        best = int(rng.integers(len(timesteps)))
        for order, timestep in enumerate(timesteps):
            far = abs(order - best) / len(timesteps)
            fresh = own + rng.standard_normal((count, width))
            values = base @ mixing * (1 - 0.6 * far) + 0.7 * (noise + 1.2 * far) * fresh
            values = (values - values.mean(0)) / values.std(0)
            candidate = Candidate("main", f"block{number}-out", timestep)
            features[candidate] = values.reshape(images, rows, width).astype(np.float16)
            if distance == 0 and order == best:
                planted.append(candidate)
    development = DevelopmentSet(
        samples=cast("Any", list(range(images))),
        points=np.zeros((images, rows, 2), np.float32),
        labels=labels,
        weights=np.ones((images, rows), np.float32),
        fold=np.zeros(images, dtype=np.int64),
        training=np.ones(images, dtype=bool),
        class_names=tuple(map(str, range(classes))),
        groups=tuple(map(str, range(images))),
        identity={},
    )
    return _Stored(development, features, dict.fromkeys(features, width), False, planted=Selection.of(planted))


def _published(scene: str, file: Path) -> Cell:
    """Scores of one activation alone, as Meng et al. publish them: 159 of three models, at one timestep."""
    with file.open(encoding="utf-8", newline="") as lines:
        rows = list(csv.DictReader(lines))
    scores = {Candidate(row["backbone"], row["activation"], 50): float(row[f"{scene}_miou"]) for row in rows}
    pool = tuple(sorted(scores))

    def score(selection: Selection) -> float:
        return scores[selection.candidates[0]]

    limits = LimitsSpecification(activations=1)
    return Cell(pool, dict.fromkeys(pool, 1), limits, score, score, declared_similarity(pool))
