"""What the parts of a search will cost, from a few of each measured: passes, fits, trials, controls and final test."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate, islice
from typing import Any

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.autograd.profiler import profile

from diffsift.backbones import Backbone, BackboneName, FeatureMap
from diffsift.bank import DevelopmentSet, Entry, Features
from diffsift.datasets import image_tensors, prompts_of
from diffsift.extraction import Standardiser, sample_map
from diffsift.objectives import Probe
from diffsift.spaces import Candidate, ModelSpace, Selection

from .prepare import Prepared

clock: Callable[[], float] = time.perf_counter
"""Seconds; a benchmark on busy cores takes the process's own."""

_TRIAL = 0.03
"""Seconds of a trial beside its score: sampler, database and log."""

_IMAGES_ON_CPU = 2
"""Images that are timed on a CPU, where a batch takes as long as its images one after another."""

_ELIMINATED = 40
"""Candidates that an elimination is timed on; its cost grows with their square."""


_INITIALISED = 10_000_000
"""Random values whose making is timed."""


@dataclass(frozen=True)
class Part:
    """One part of a search and what it costs.

    Attributes:
        name: in words.
        seconds: it will take.
        memory: bytes beyond the model while it runs; parts run one after another.
        fields: that it depends on, in words.
    """

    name: str
    seconds: float
    memory: int
    fields: str


@dataclass
class _Measured:
    """Seconds and bytes of what ran inside `_watched`."""

    seconds: float = 0.0
    memory: int = 0


@dataclass(frozen=True)
class PassCost:
    """What one image costs a model.

    Attributes:
        encode: seconds to encode it.
        run: seconds of a timestep, with all noise draws, in which all that is wanted of it is sampled.
        memory: bytes beyond the model while a batch runs.
    """

    encode: float
    run: float
    memory: int


def expected_parts(prepared: Prepared, passes: Mapping[str, PassCost]) -> tuple[Part, ...]:
    """Measure one fit of each width and a few scores, and multiply them and the passes.

    Args:
        prepared: the study; nothing is extracted.
        passes: what a pass of each model costs, from `pass_cost`.

    Returns:
        The parts in the order in which a search runs them.
    """
    control = [_control(prepared, passes)] if _has_control(prepared) else []
    return (*_bank_parts(prepared, passes), *_probe_parts(prepared), *control, _final_test(prepared, passes))


def pass_cost(prepared: Prepared, model: ModelSpace) -> PassCost:
    """Measure a batch of passes of a model, with and without encoding its images.

    Args:
        prepared: the study; nothing is extracted.
        model: of the study.

    Returns:
        What one image costs.
    """
    samples, backbone = prepared.bank.development.samples, prepared.backbone(model.name)
    size = min(prepared.specification.models[model.name].batch_size, len(samples))
    timed = min(size, _IMAGES_ON_CPU) if backbone.device.type == "cpu" else size
    batch = [samples[index] for index in range(timed)]
    points = torch.from_numpy(prepared.bank.development.points[:timed]).to(backbone.device)
    images, wanted = image_tensors([sample.image for sample in batch]), prepared.wanted(model)
    first, grid = dict(islice(wanted.items(), 1)), [1, 1]

    def read(entry: FeatureMap) -> Tensor:
        for axis in (0, 1):
            grid[axis] = max(grid[axis], int(entry.values.shape[2 + axis]) * entry.activation.stride)
        return sample_map(entry.values, points[entry.images])

    def run(images: Sequence[Tensor]) -> None:
        for _ in backbone.capture(images, first, seed=0, prompts=prompts_of(batch), read=read):
            pass

    def timed_run(images: Sequence[Tensor]) -> float:
        with _watched(backbone) as measured:
            run(images)
        return measured.seconds

    run(images)  # libraries prepare themselves for a shape when they first see it
    others = [1 - image for image in images]  # not encoded yet
    whole, again = timed_run(others), min(timed_run(others), timed_run(others))
    encoding = _allocated(backbone, lambda: run([image / 2 for image in images]))
    passing = _allocated(backbone, lambda: run(others))
    encoded = min(size, backbone.encoded_together() or size) / timed
    denoised = min(size, backbone.denoised_together(grid[0], grid[1]) or size) / timed
    return PassCost(
        encode=max(0.0, whole - again) / timed,
        run=again / timed,
        memory=round(max(passing * denoised, encoding * encoded if encoding > passing else 0)),
    )


def _bank_parts(prepared: Prepared, passes: Mapping[str, PassCost]) -> Iterator[Part]:
    bank, specification = prepared.bank, prepared.specification
    encode, run, fit, memory, fit_memory = 0.0, 0.0, 0.0, 0, 0
    images = len(bank.development.samples) + _test_images(prepared)
    for name, model in prepared.models.items():
        wanted = prepared.wanted(model)
        missing = bank.passes(name, dict(model.identity), wanted)
        encode += passes[name].encode * (images if name not in specification.variants else 0)
        run += passes[name].run * missing
        memory = max(memory, passes[name].memory)
        fit_memory = max(fit_memory, bank.fit_memory(wanted))
        widths = [entry.channels for entries in wanted.values() for entry in entries] if missing else []
        fit += sum(_fit_seconds(prepared, width) * widths.count(width) for width in set(widths))
    yield Part("encoding images", encode, memory, "model.image_size, model.vae_tiling")
    yield Part("passes for the bank", run, memory, "timesteps, data, model.image_size, model.batch_size, filters")
    yield Part("fits of projections", fit, fit_memory, "bank.max_channels, bank.fit_images, filters")


def _fit_seconds(prepared: Prepared, width: int) -> float:
    development, specification = prepared.bank.development, prepared.specification.bank
    images = min(specification.fit_images, int(development.training.sum()))
    rows = images * development.points.shape[1]
    features = torch.randn(rows, width, generator=torch.Generator().manual_seed(0))
    return _seconds(lambda: Standardiser.fit(features, max_channels=specification.max_channels, overwrite=True))


class _RandomBank:
    """A bank of random features for the candidates of a study: probes take as long on them as on real ones."""

    def __init__(self, prepared: Prepared) -> None:
        self._development, self._stored = prepared.bank.development, dict[int, Features]()
        self._limit = prepared.specification.bank.max_channels
        self._raw = {
            Candidate(model.name, entry.name, timestep): entry.channels
            for model in prepared.models.values()
            for timestep in prepared.timesteps
            for entry in model.activations.values()
            if entry.name in model.kept
        }

    @property
    def development(self) -> DevelopmentSet:
        return self._development

    @property
    def pool(self) -> list[Candidate]:
        return list(self._raw)

    def __getitem__(self, candidate: Candidate) -> Entry:
        raw = self._raw[candidate]
        width, images = min(raw, self._limit), len(self._development.samples)
        if width not in self._stored:
            shape = (images, self._development.rows, width)
            values = np.random.default_rng(0).standard_normal(shape, np.float32).astype(np.float16)
            self._stored[width] = Features(values, np.arange(images))
        standardiser = Standardiser(torch.zeros(raw), torch.ones(raw), None)
        return Entry(candidate, self._stored[width], standardiser, 0, "")


def _probe_parts(prepared: Prepared) -> Iterator[Part]:
    bank, study = _RandomBank(prepared), prepared.specification.study
    probe, rng, pool = prepared.objective.probe(bank), np.random.default_rng(0), bank.pool
    most = min(prepared.specification.limits.activations, len(pool))

    def drawn(count: int) -> Selection:
        return Selection.of([pool[int(index)] for index in rng.choice(len(pool), count, replace=False)])

    with _watched(None) as searched:
        trial = [_seconds(lambda: probe.score(drawn(most))) for _ in range(6)][3:]
        single = [_seconds(lambda: probe.score(drawn(1))) for _ in range(3)]
        some = [pool[int(index)] for index in rng.permutation(len(pool))[:_ELIMINATED]]
        eliminated = _seconds(lambda: probe.eliminate(some, most)) * (len(pool) / len(some)) ** 2
    seconds = study.trials * (float(np.mean(trial)) + _TRIAL) + len(pool) * float(np.mean(single)) + eliminated
    yield Part(f"{study.trials} trials", seconds, searched.memory, "study.trials, limits.activations")
    together = [entry for entry in pool if entry.timestep == pool[0].timestep]
    seconds, memory = _wide_score(probe, together)
    # Scored at each timestep, then fitted at the best.
    yield Part(
        "all kept activations together",
        seconds * (len(prepared.timesteps) + 1),
        memory,
        "filters, bank.max_channels, bank.pixels_per_image",
    )


def _wide_score(probe: Probe, together: Sequence[Candidate]) -> tuple[float, int]:
    """Seconds and memory of the score of many candidates, extrapolated from a quarter and an eighth of them."""
    found = []
    for count in (math.ceil(len(together) / 8), math.ceil(len(together) / 4)):
        with _watched(None) as measured:
            probe.score(Selection.of(together[:count]))
        found.append(measured)
    few, more = found
    power = min(3.0, max(1.0, math.log2(more.seconds / few.seconds))) if few.seconds else 1.0
    return more.seconds * 4**power, more.memory * 4**2


def _control(prepared: Prepared, passes: Mapping[str, PassCost]) -> Part:
    main = prepared.backbone(BackboneName.MAIN)
    own = passes[BackboneName.MAIN]
    name = "the same network with random weights"
    weights = sum(parameter.nbytes for parameter in main.denoiser.parameters())
    sample = torch.empty(_INITIALISED, dtype=next(main.denoiser.parameters()).dtype)
    build = _seconds(lambda: torch.nn.init.uniform_(sample)) / _INITIALISED
    values = sum(parameter.numel() for parameter in main.denoiser.parameters())
    images = len(prepared.bank.development.samples)
    seconds = build * values + own.run * images * _timesteps_found(prepared)
    beside = weights if prepared.backbones.holds_both(BackboneName.MAIN) else 0
    return Part(name, seconds, beside + own.memory, "study.random_weights, timesteps, data")


def _has_control(prepared: Prepared) -> bool:
    wanted = prepared.specification.study.random_weights
    return wanted and prepared.backbone(BackboneName.MAIN).can_be_untrained


def _final_test(prepared: Prepared, passes: Mapping[str, PassCost]) -> Part:
    """The trained network runs at all timesteps that a row needs, the untrained one at those that were found."""
    images, found = _test_images(prepared), _timesteps_found(prepared)
    seconds = 0.0
    for own in passes.values():
        networks = min(len(prepared.timesteps), found + 1) + found * _has_control(prepared)
        seconds += own.run * images * networks
    return Part("final test", seconds, max(own.memory for own in passes.values()), "timesteps, data")


def _test_images(prepared: Prepared) -> int:
    splits = (split for summary in prepared.bank.development.summaries for split in summary.splits)
    return sum(split.images for split in splits if split.name == "test")


def _timesteps_found(prepared: Prepared) -> float:
    """Timesteps that a selection is expected to have: those of as many candidates as it may hold, drawn at random."""
    count = len(prepared.timesteps)
    return count * (1 - (1 - 1 / count) ** prepared.specification.limits.activations)


def _seconds(run: Callable[[], object]) -> float:
    started = clock()
    run()
    return clock() - started


def _allocated(backbone: Backbone, run: Callable[[], object]) -> int:
    """The most bytes of tensors that a function has at once, on the backbone's device."""
    if backbone.device.type == "cuda":
        with _watched(backbone) as measured:
            run()
        return measured.memory
    # What the process has at its disposal grows little here, since it keeps what earlier passes have freed.
    with profile(profile_memory=True) as profiler:
        run()
    results: Any = getattr(profiler, "kineto_results", None)
    events = [] if results is None else results.events()
    changes = sorted((event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]")
    return int(max(accumulate((change for _, change in changes), initial=0)))


@contextmanager
def _watched(backbone: Backbone | None) -> Iterator[_Measured]:
    """Seconds, and the most memory beyond what there was before: of the GPU, or of this process."""
    measured, ended, process = _Measured(), threading.Event(), psutil.Process()
    device = torch.device("cpu") if backbone is None else backbone.device
    cuda = device.type == "cuda"
    before = torch.cuda.memory_allocated(device) if cuda else process.memory_info().rss
    held = [before]

    def look() -> None:
        while not ended.wait(0.01):
            held.append(process.memory_info().rss)

    watcher = threading.Thread(target=look, daemon=True)
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    else:
        watcher.start()
    started = clock()
    try:
        yield measured
    finally:
        if cuda:
            torch.cuda.synchronize(device)
        measured.seconds = clock() - started
        ended.set()
        peak = torch.cuda.max_memory_allocated(device) if cuda else max(held)
        measured.memory = peak - before
