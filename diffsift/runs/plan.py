"""What a search will cost, estimated from two measured passes."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path

from diffsift.common.data_summary import DataSummary
from diffsift.common.reporting import LoggingReporter, Reporter
from diffsift.datasets import image_tensors, prompts_of
from diffsift.search.warm_start import require_warm_starts
from diffsift.spaces import Decision, ModelSpace
from diffsift.specification import Specification
from diffsift.study_store import StudyStore
from diffsift.tracking import require_loggers, require_stores

from .cost import Price, duration, joint_words, price_lines, prices
from .prepare import Prepared, prepare

_PROBE_MEMORY = 1_000_000_000
"""Bytes that a probe keeps at most."""


@dataclass(frozen=True)
class Plan:
    """What a search will cost, known before it starts.

    Attributes:
        models: price of each model, in the order of the study.
        decisions: what the filters decided, one per activation.
        candidates: size of the pool.
        images: development images, each run once per timestep.
        passes: passes of the denoiser that the bank still needs, one per image, timestep and noise draw.
        seconds: time for these passes, from the faster of two measured passes of a batch; the search itself takes
            some hundredths of a second per trial.
        bytes: size of the bank on disk, including entries that exist already.
        free: free bytes on the disk.
        memory: bytes beyond the model, at most: captured activations and the fit of a projection, or the probe.
        data: what each data set holds.
        warnings: what the user should know.
    """

    models: tuple[Price, ...]
    decisions: tuple[Decision, ...]
    candidates: int
    images: int
    passes: int
    seconds: float
    bytes: int
    free: int
    memory: int
    data: tuple[DataSummary, ...] = ()
    warnings: tuple[str, ...] = ()

    def describe(self, trials: int) -> str:
        """One line in words; with variants of the model, one more line for each of them and one for their total.

        Args:
            trials: distinct selections to evaluate.

        Returns:
            Text with candidates, passes, seconds or hours, and sizes in MB and GB.
        """
        whole = (
            f"{self.candidates} candidates; {self.passes} passes ({self.images} images), about "
            f"{duration(self.seconds)}; bank at most {self.bytes / 1e6:.0f} MB of {self.free / 1e9:.0f} GB free; "
            f"memory at most {self.memory / 1e9:.2f} GB beyond the model; then {trials} trials, some hundredths of a "
            "second each"
        )
        if not any(price.about for price in self.models):
            return whole
        return "\n            ".join([whole, *price_lines(self.models), joint_words(self.models)])


def plan(
    specification: Specification, *, workspace: str | Path | None = None, reporter: Reporter | None = None
) -> Plan:
    """Check everything and estimate what the search will cost; nothing is extracted.

    Args:
        specification: the search.
        workspace: see `select`.
        reporter: see `select`.

    Returns:
        Passes, time, disk and memory.

    Raises:
        DiffsiftError: the specification, model or data is not what it must be, or the bank exceeds its budget.
    """
    with StudyStore(workspace, specification.study.storage) as store:
        require_loggers(specification.tracking, store.url, store.workspace)
        if specification.study.warm_start:
            if store.storage is None and not store.workspace.has_database:
                raise store.workspace.no_studies()
            require_warm_starts(store.ledger, specification.study.warm_start)
        name = specification.study.name
        require_stores(specification.tracking, name, store.uid(name), store.workspace)
        context = specification.context(store.workspace, reporter or LoggingReporter())
        prepared = prepare(specification, store, context)
    bank, found, captured = prepared.bank, list[Price](), 0
    for price in prices(prepared):
        model = prepared.models[price.name]
        took, held = _measured(prepared, model)
        found.append(replace(price, seconds=price.passes * took / specification.models[price.name].noise_seeds))
        captured = max(captured, held + bank.fit_memory(prepared.wanted(model)))
    most = sum(price.bytes for price in found)
    return Plan(
        models=tuple(found),
        decisions=tuple(decision for model in prepared.models.values() for decision in model.decisions),
        candidates=sum(len(model.kept) for model in prepared.models.values()) * len(specification.timesteps),
        images=len(bank.development.samples),
        passes=sum(price.passes for price in found),
        seconds=sum(price.seconds or 0.0 for price in found),
        bytes=most,
        free=shutil.disk_usage(store.workspace.folder).free,
        # Each data set's probe keeps features in float32.
        memory=max(captured, min(_PROBE_MEMORY * len(specification.data_sets), 2 * most)),
        data=bank.development.summaries,
        warnings=tuple(prepared.warnings),
    )


def _measured(prepared: Prepared, model: ModelSpace) -> tuple[float, int]:
    """Seconds per image of the faster of two passes of a batch (the first warms up), and bytes captured in one."""
    samples, backbone = prepared.bank.development.samples, prepared.backbone(model.name)
    batch = [samples[index] for index in range(min(prepared.specification.model.batch_size, len(samples)))]
    images, wanted = image_tensors([sample.image for sample in batch]), prepared.wanted(model)
    first = dict(list(wanted.items())[:1])
    seconds, held = [], 0
    for _ in range(2):
        started = time.perf_counter()
        for _, maps in backbone.capture(images, first, seed=0, prompts=prompts_of(batch)):
            # As the denoiser gave them, and in float32.
            held = 2 * sum(feature_map.numel() * 4 for feature_map in maps.values())
        seconds.append(time.perf_counter() - started)
    return min(seconds) / len(batch), held
