"""Score a selection file with any probe of its task, on the data of a study."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from diffsift.backbones import BackboneCache, DigestCache
from diffsift.bank import DevelopmentSet
from diffsift.common.context import RunContext
from diffsift.common.reporting import LoggingReporter, Reporter
from diffsift.errors import SelectionError, SpecificationError, did_you_mean
from diffsift.extraction import SelectionFile, read_selection
from diffsift.objectives import FittedSelection, Objective, Probe, make_objective
from diffsift.objectives.metrics import Interval
from diffsift.objectives.reference import ReferenceProbeFactory, reference_kinds
from diffsift.spaces import activations_by_timestep
from diffsift.specification import Specification
from diffsift.study_store import StudyStore


@dataclass(frozen=True)
class SelectionScore:
    """A score with its 95 % bootstrap interval over images, or groups of them.

    Attributes:
        value: score in the metric's own unit and direction.
        interval: 95 % interval of the value.
        metric: name of the metric.
        probe: kind of the probe.
        split: ``validation`` or ``test``.
        images: number of images that were scored (pairs for correspondence).
    """

    value: float
    interval: Interval
    metric: str
    probe: str
    split: str
    images: int

    def __str__(self) -> str:
        return (
            f"{self.metric} {self.value:.4f} [{self.interval.low:.4f}, {self.interval.high:.4f}] by the {self.probe} "
            f"probe on {self.images} {'test' if self.split == 'test' else 'held-out'} images"
        )


def score_file(
    path: str | Path,
    *,
    probe: str = "reference",
    split: Literal["validation", "test"] = "validation",
    study: str | None = None,
    workspace: str | Path | None = None,
    storage: str | None = None,
    device: str = "auto",
    allow_download: bool = False,
    allow_pickle: bool = False,
    reporter: Reporter | None = None,
) -> SelectionScore:
    """Score a selection on the data and task of a study.

    Args:
        path: the selection file.
        probe: the study's own ``probe.kind`` (the fast one: ``ridge`` or ``knn``), one of `reference_kinds`, or
            ``reference`` for the first of them.
        split: ``validation`` (the held-out images that the search is scored on, fold by fold), or ``test``: fit on all
            of the search's images, scored on the test split; the opening is recorded in the study.
        study: name of the study whose data and task are used; default: the study that the file names.
        workspace: folder that holds the study.
        storage: SQLAlchemy URL of the study database, where it is not in the workspace.
        device: device to run on: ``auto``, ``cpu``, ``cuda``, ...
        allow_download: see `FeatureExtractor.from_selection`.
        allow_pickle: see `FeatureExtractor.from_selection`.
        reporter: see `select`.

    Returns:
        The score with its interval.

    Raises:
        SelectionError: the file cannot be used, or names no study.
        SpecificationError: the task has no such probe.
        StudyError: there is no such study.
    """
    file = read_selection(path, device=device)
    file = replace(file, models=file.permitted_models(allow_download=allow_download, allow_pickle=allow_pickle))
    name = study or file.about.get("study")
    if name is None:
        raise SelectionError(f"{path} must name the study it comes from, but does not: name one with --study.")
    with StudyStore.existing(workspace, storage, study=name) as store:
        scoring = _Scoring.of(file, store, store.specification(name), device, reporter or LoggingReporter())
        chosen = scoring.checked_probe(probe)
        if split == "test":
            store.ledger.open_test_split(name, [f"{file.path.name} by the {probe} probe"])
            times = len(store.ledger.openings(name))
            scoring.context.reporter.info(
                "test split", f"opened {times} times in study {name}; do not base choices on this score"
            )
        if chosen == scoring.specification.probe.kind:
            results, groups = scoring.fast(store, split)
        else:
            slow = scoring.slow(chosen, on_test=split == "test")
            results, groups = slow.held_out(file.selection), slow.groups
    metric = scoring.objective.metric
    interval = metric.interval(results, groups=groups)
    return SelectionScore(metric.value(results), interval, metric.name, chosen, split, len(results))


@dataclass(frozen=True)
class _Scoring:
    """A selection file with the data and task that it is scored on."""

    file: SelectionFile
    specification: Specification
    objective: Objective
    development: DevelopmentSet
    backbones: BackboneCache
    context: RunContext

    @classmethod
    def of(
        cls, file: SelectionFile, store: StudyStore, specification: Specification, device: str, reporter: Reporter
    ) -> _Scoring:
        objective = make_objective(specification.data_sets, specification.task, specification.bank, specification.probe)
        backbones = BackboneCache(DigestCache(store.workspace.weight_digests))
        backbones.add_models(file.models, attention_maps=file.selection.has_attention_maps, check=file.verify)
        context = replace(specification.context(store.workspace, reporter), noise_seed=file.noise_seed, device=device)
        return cls(file, specification, objective, objective.load(), backbones, context)

    def checked_probe(self, probe: str) -> str:
        """The kind of probe that a name means.

        Raises:
            SpecificationError: the task has no such probe.
        """
        task, fast = self.specification.task.kind, self.specification.probe.kind
        kinds = reference_kinds(task)
        if probe not in (fast, "reference", *kinds):
            known = ", ".join((fast, "reference", *kinds))
            raise SpecificationError(
                f"the probe of {task} must be one of {known}, but got {probe!r}{did_you_mean(probe, (fast, *kinds))}"
            )
        return kinds[0] if probe == "reference" else probe

    def slow(self, kind: str, *, on_test: bool) -> Probe:
        """A reference probe."""
        factory = ReferenceProbeFactory(
            self.objective, self.development, self.backbones, self.file.standardisers, self.context
        )
        return factory.make(kind, on_test=on_test)

    def fast(self, store: StudyStore, split: str) -> tuple[np.ndarray[Any, Any], Sequence[str] | None]:
        """Results by the search's own probe, with their groups: from the bank, or in full on the test split."""
        bank, selection = store.bank(self.development, self.specification, self.context), self.file.selection
        for name in self.file.models:
            known = {entry.name: entry for entry in self.backbones[name].activations()}
            bank.fill(self.backbones[name], activations_by_timestep(selection.candidates, name, known))
        probe = self.objective.probe(bank)
        if split == "validation":
            return probe.held_out(selection), probe.groups
        fitted = FittedSelection("selection", selection, probe.fit(selection), bank.standardisers(selection.candidates))
        found = self.objective.test([fitted], self.backbones, self.context)
        return found.results["selection"], found.groups
