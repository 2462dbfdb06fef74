"""A selection file scored by any probe of its task, on the data of a study."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from diffsift.backbones import Activation, BackboneCache, catalogue, resolve_device
from diffsift.bank import Bank, DevelopmentSet
from diffsift.errors import SelectionError, SpecificationError
from diffsift.extraction import SelectionFile, read_selection
from diffsift.objectives import Contender, Objective, make_objective
from diffsift.objectives.metrics import Interval
from diffsift.objectives.reference import reference_kinds, reference_probe
from diffsift.specification import Specification
from diffsift.stored_study import stored_specification
from diffsift.tracking import Ledger, open_database
from diffsift.workspace import Workspace


@dataclass(frozen=True)
class SelectionScore:
    """A score with its 95 % bootstrap interval over images, or groups of them.

    Attributes:
        value: in the metric's own unit and direction.
        interval: of the value.
        metric: name.
        probe: that the score is by.
        split: that it is on.
        images: that were scored (pairs for correspondence).
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
    progress: bool = True,
    say: Callable[[str], None] = print,
) -> SelectionScore:
    """Score a selection on the data and task of a study.

    Args:
        path: of ``selection.json``.
        probe: the study's own ``probe.kind`` (the fast one: ``ridge`` or ``knn``), one of `reference_kinds`, or
            ``reference`` for the first of them.
        split: ``validation`` (the held-out images that the search is scored on, fold by fold), or ``test``: fit on all
            of the search's images, scored on the test split; the opening is recorded in the study.
        study: whose data and task are used; default: the study that the file names.
        workspace: folder that holds the study.
        storage: SQLAlchemy URL of the study database, where it is another.
        device: that the backbone and the heads run on.
        progress: show progress bars.
        say: where lines about the course of things go.

    Raises:
        SelectionError: the file cannot be used, or names no study.
        SpecificationError: the task has no such probe.
        StudyError: there is no such study.
    """
    file = read_selection(path, device=device)
    place = Workspace.at(workspace)
    name = study or file.about.get("study")
    if name is None:
        raise SelectionError(f"{path} must name the study it comes from, but does not: name one with --study.")
    specification = stored_specification(name, place, storage)
    fast = specification.probe.kind
    if probe not in (fast, "reference", *reference_kinds(specification.task.kind)):
        kinds = ", ".join((fast, "reference", *reference_kinds(specification.task.kind)))
        raise SpecificationError(f"the probe of {specification.task.kind} must be one of {kinds}, but got {probe!r}.")
    objective = make_objective(specification.data_sets, specification.task, specification.bank, specification.probe)
    development = objective.load()
    shelf = BackboneCache()
    shelf.add_models(file.models, check=file.verify)
    if split == "test":
        with Ledger(open_database(storage or specification.study.storage or place.study_url)) as ledger:
            ledger.open_test_split(name, [f"{file.path.name} by the {probe} probe"])
            say(f"test split  opened {len(ledger.openings(name))} times in study {name}; choose nothing by this score")
    if probe == fast:
        results, groups = _fast(file, objective, development, shelf, specification, place, split, progress)
    else:
        reference = reference_probe(
            probe,
            specification.task,
            objective,
            development,
            shelf,
            file.standardisers,
            on_test=split == "test",
            noise_seed=file.noise_seed,
            batch_size=specification.model.batch_size,
            seed=specification.study.seed,
            device=resolve_device(device),
            progress=progress,
        )
        results, groups = reference.held_out(file.selection), reference.groups
    metric = objective.metric
    chosen = reference_kinds(specification.task.kind)[0] if probe == "reference" else probe
    interval = metric.interval(results, groups=groups)
    return SelectionScore(metric.value(results), interval, metric.name, chosen, split, len(results))


def _fast(
    file: SelectionFile,
    objective: Objective,
    development: DevelopmentSet,
    shelf: BackboneCache,
    specification: Specification,
    place: Workspace,
    split: str,
    progress: bool,
) -> tuple[np.ndarray, Sequence[str] | None]:
    """Results by the search's own probe, with their groups: from the bank, or in full on the test split."""
    seed, batch = file.noise_seed, specification.model.batch_size
    bank = Bank(
        place.bank,
        development,
        specification.bank,
        noise_seed=seed,
        batch_size=batch,
        progress=progress,
        study=specification.study.name,
    )
    for name in file.models:
        known = {entry.name: entry for entry in catalogue(shelf[name])}
        wanted: dict[int, list[Activation]] = {}
        for candidate in file.selection.candidates:
            if candidate.backbone == name:
                wanted.setdefault(candidate.timestep, []).append(known[candidate.activation])
        bank.fill(shelf[name], wanted)
    probe = objective.probe(bank)
    if split == "validation":
        return probe.held_out(file.selection), probe.groups
    contender = Contender(
        "selection",
        file.selection,
        probe.fit(file.selection),
        {candidate: bank[candidate].standardiser for candidate in file.selection.candidates},
    )
    result = objective.test([contender], shelf, noise_seed=seed, batch_size=batch, progress=progress)
    return result.results["selection"], result.groups
