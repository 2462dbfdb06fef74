"""What a search will cost, estimated before it starts."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from diffsift.common.data_summary import DataSummary
from diffsift.common.reporting import LoggingReporter, Reporter
from diffsift.search.warm_start import require_warm_starts
from diffsift.spaces import Decision
from diffsift.specification import Specification
from diffsift.study_store import StudyStore
from diffsift.tracking import require_loggers, require_stores

from .cost import Price, duration, joint_words, price_lines, prices
from .dtypes import with_stored_dtypes
from .expected_cost import Part, expected_parts, pass_cost
from .prepare import prepare


@dataclass(frozen=True)
class Plan:
    """What a search will cost, known before it starts.

    Attributes:
        models: price of each model, in the order of the study.
        decisions: what the filters decided, one per activation.
        candidates: size of the pool.
        images: development images, each run once per timestep.
        passes: passes of the denoiser that the bank still needs, one per image, timestep and noise draw.
        seconds: time for the whole search, the sum of its parts.
        bytes: size of the bank on disk, including entries that exist already.
        free: free bytes on the disk.
        memory: bytes beyond the model, those of the part that needs most.
        parts: what each part of the search costs, in the order in which they run.
        not_counted: what the parts leave out, in words.
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
    parts: tuple[Part, ...] = ()
    not_counted: str = ""
    data: tuple[DataSummary, ...] = ()
    warnings: tuple[str, ...] = ()

    def describe(self) -> str:
        """In words: a line for the whole, one for each part, and with variants of the model one for each of them.

        Returns:
            Text with candidates, passes, seconds or hours, and sizes in MB and GB.
        """
        whole = (
            f"{self.candidates} candidates; {self.passes} passes ({self.images} images) for the bank; about "
            f"{duration(self.seconds)} in all; bank at most {self.bytes / 1e6:.0f} MB of {self.free / 1e9:.0f} GB "
            f"free; memory at most {self.memory / 1e9:.2f} GB beyond the model"
        )
        width = max((len(part.name) for part in self.parts), default=0)
        lines = [
            f"{part.name:{width}}  {'< 1 s' if part.seconds < 1 else duration(part.seconds):>6}  "
            f"{f'{part.memory / 1e6:.0f} MB' if part.memory < 1e9 else f'{part.memory / 1e9:.1f} GB':>7}  "
            f"depends on {part.fields}"
            for part in self.parts
        ]
        lines += [self.not_counted] if self.not_counted else []
        if any(price.about for price in self.models):
            lines += [*price_lines(self.models), joint_words(self.models)]
        return "\n            ".join([whole, *lines])


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
        study = specification.study
        if store.storage is not None or store.workspace.has_database:
            specification = with_stored_dtypes(specification, store)
            store.refuse_other_identity(specification)
        prepared = prepare(specification, store, context)
    bank = prepared.bank
    passes = {name: pass_cost(prepared, model) for name, model in prepared.models.items()}
    found = [
        replace(price, seconds=price.passes * passes[price.name].run / specification.models[price.name].noise_seeds)
        for price in prices(prepared)
    ]
    parts = expected_parts(prepared, passes)
    most = sum(price.bytes for price in found)
    return Plan(
        models=tuple(found),
        decisions=tuple(decision for model in prepared.models.values() for decision in model.decisions),
        candidates=sum(len(model.kept) for model in prepared.models.values()) * len(specification.timesteps),
        images=len(bank.development.samples),
        passes=sum(price.passes for price in found),
        seconds=sum(part.seconds for part in parts),
        bytes=most,
        free=shutil.disk_usage(store.workspace.folder).free,
        memory=max(part.memory for part in parts),
        parts=parts,
        not_counted="" if study.rerank == 1 else f"not counted: reranking {study.rerank} selections by a slow probe",
        data=bank.development.summaries,
        warnings=tuple(prepared.warnings),
    )
