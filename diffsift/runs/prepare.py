"""What a search is prepared from, checked in full before anything long is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor

from diffsift.backbones import (
    Activation,
    BackboneCache,
    LatentControl,
    PipelineBackbone,
    PixelControl,
    catalogue,
    differences,
    in_passes_of,
)
from diffsift.bank import Bank, DevelopmentSet
from diffsift.datasets import image_tensors, prompts_of
from diffsift.errors import SpecificationError
from diffsift.extraction import save_selection
from diffsift.objectives import Objective, Probe, make_objective
from diffsift.objectives.reference import reference_kinds
from diffsift.protocols import departures
from diffsift.search import ENCODINGS, SearchSpace
from diffsift.search.space import require_operations
from diffsift.spaces import (
    Candidate,
    Decision,
    MeasuredFilter,
    Selection,
    apply_filters,
    older_practice,
    paper_choice,
    rules_for,
)
from diffsift.specification import MAIN, Specification
from diffsift.workspace import Workspace

from .properties import MEASURED_IMAGES, SEEDS, measured_once

Say = Callable[[str], None]

OLDER = "older practice"
PAPER = "paper's rule-based choice"


@dataclass(frozen=True)
class Source:
    """One model of a study: what it offers, what was decided about that, and what it is.

    Attributes:
        name: of its backbone.
        activations: by name.
        decisions: of the filters, one per activation.
        rules: activations of the rule-based choices.
        identity: of the backbone, as JSON.
    """

    name: str
    activations: dict[str, Activation]
    decisions: tuple[Decision, ...]
    rules: dict[str, tuple[str, ...]]
    identity: dict[str, Any]

    @property
    def kept(self) -> list[str]:
        return [decision.activation.name for decision in self.decisions if decision.kept]


@dataclass
class Prepared:
    """The models of a study with their pool and data, before anything long was done."""

    specification: Specification
    objective: Objective
    shelf: BackboneCache
    sources: dict[str, Source]
    bank: Bank
    timesteps: tuple[int, ...]
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def probe(self) -> Probe:
        """One probe for search and confirmation, so that what it computed once is kept."""
        return self.objective.probe(self.bank)

    def backbone(self, name: str) -> PipelineBackbone:
        """A model of the study, loaded if it is not in memory."""
        return cast("PipelineBackbone", self.shelf[name])

    def wanted(self, source: Source) -> dict[int, list[Activation]]:
        """What the bank must hold of a model: the kept activations and those of the rule-based baselines."""
        names = set(source.kept).union(*source.rules.values())
        chosen = [activation for name, activation in source.activations.items() if name in names]
        return dict.fromkeys(self.timesteps, chosen)

    def pool(self) -> list[Candidate]:
        """Kept candidates whose features are all finite, in a fixed order."""
        named = [
            Candidate(source.name, name, timestep)
            for source in self.sources.values()
            for name in source.kept
            for timestep in self.timesteps
        ]
        return sorted(candidate for candidate in named if candidate in self.bank)

    def operations(self) -> dict[Candidate, float]:
        """The share of a whole pass that each candidate of the pool needs, where it is counted."""
        known = {
            candidate: self.sources[candidate.backbone].activations[candidate.activation].operations
            for candidate in self.pool()
        }
        return {candidate: share for candidate, share in known.items() if share is not None}

    def save_selection(self, file: Path, selection: Selection, about: Mapping[str, Any]) -> None:
        """Write a selection with the statistics that the bank holds; `about` is stored as it is."""
        save_selection(
            file,
            selection,
            self.specification.models,
            {candidate: self.bank[candidate].standardiser for candidate in selection.candidates},
            identities={source.name: source.identity for source in self.sources.values()},
            own_prompts=prompts_of([self.bank.development.samples[0]]) is not None,
            about=about,
        )

    def by_rule(self, rule: str, sources: Iterable[Source]) -> list[Selection]:
        """What a rule chooses, for each of some models and each timestep where all of it is in the bank."""
        found = []
        for source in sources:
            for timestep in self.timesteps:
                members = [Candidate(source.name, name, timestep) for name in source.rules[rule]]
                if members and all(candidate in self.bank for candidate in members):
                    found.append(Selection.of(members))
        return found


def prepare(specification: Specification, place: Workspace, progress: bool, say: Say) -> Prepared:
    """Load models and data; everything that can be refused is refused here, before long work."""
    objective = make_objective(specification.data_sets, specification.task, specification.bank, specification.probe)
    if specification.protocol is not None:
        differing = departures(specification.protocol, specification.model_dump(mode="json"))
        say(f"protocol    {specification.protocol}{', but ' if differing else ''}{'; '.join(differing)}")
    development = objective.load()
    for note in development.notes:
        say(f"data        {note}")
    shelf = BackboneCache()
    shelf.add_models(specification.models)
    timesteps = tuple(shelf[MAIN].timestep_of(level) for level in specification.timesteps)
    if len(set(timesteps)) < len(timesteps):
        raise SpecificationError(f"timesteps must differ, but {list(specification.timesteps)} are {list(timesteps)}.")
    _check_joint(specification, shelf, development, say)
    sources = {
        name: _source(name, specification, timesteps, shelf, development, place, progress, say)
        for name in specification.models
    }
    kept = sum(len(source.kept) for source in sources.values())
    most = kept * len(specification.timesteps)
    if specification.limits.activations > most:
        raise SpecificationError(
            f"limits.activations must be at most the number of candidates ({kept} activations x "
            f"{len(specification.timesteps)} timesteps = {most}), but got {specification.limits.activations}."
        )
    _check_operations(specification, sources)
    _check_limits(specification, sources, timesteps)
    _check_confirmation(specification)
    bank = Bank(
        place.bank,
        development,
        specification.bank,
        noise_seed=specification.model.noise_seed,
        batch_size=specification.model.batch_size,
        progress=progress,
        study=specification.study.name,
    )
    prepared = Prepared(
        specification=specification,
        objective=objective,
        shelf=shelf,
        sources=sources,
        bank=bank,
        timesteps=timesteps,
        warnings=list(development.notes),
    )
    _check_budget(prepared)
    return prepared


def search_space(
    specification: Specification, bank: Bank, pool: Sequence[Candidate], operations: Mapping[Candidate, float]
) -> SearchSpace:
    """The space of a study, the same in each of its processes.

    Args:
        specification: of the study.
        bank: that holds the pool.
        pool: candidates in their frozen order.
        operations: that each needs, where they are known.
    """
    return SearchSpace(
        pool,
        {candidate: bank[candidate].standardiser.channels for candidate in pool},
        specification.limits,
        operations,
        draws=specification.noise_draws,
        variants=specification.variant_of,
        encoding=ENCODINGS[specification.study.sampler],
    )


def _check_joint(specification: Specification, shelf: BackboneCache, development: DevelopmentSet, say: Say) -> None:
    """Make the variants of the model, and refuse those that are none or that it cannot be run as.

    Raises:
        SpecificationError: a value changes nothing.
        ModelError: an image size is none of the model's.
    """
    joint, main = specification.joint, cast("PipelineBackbone", shelf[MAIN])
    if joint.prompts and not main.takes_text:
        raise SpecificationError(f"joint.prompts must be left out for {main.source}, because it takes no text.")
    if joint.prompts and prompts_of([development.samples[0]]) is not None:
        raise SpecificationError("joint.prompts must be left out, because the data has a prompt for each image.")
    for size in joint.image_sizes:
        main.check_image_size(size, "joint.image_sizes")
        if size == main.image_size:
            raise SpecificationError(
                f"joint.image_sizes must not hold the model's own size, which is tried anyway, but has {list(size)}."
            )
    for name in specification.variants:
        _ = shelf[name]
    if specification.variants and rules_for(catalogue(main), specification.filters) == "measured":
        images = min(MEASURED_IMAGES, int(development.training.sum()))
        draws = sum(model.noise_seeds for model in specification.variants.values())
        passes = images * len(specification.timesteps) * len(SEEDS) * draws
        say(f"joint       properties of variants of the model are measured first: {passes} passes at most")


def _check_operations(specification: Specification, sources: Mapping[str, Source]) -> None:
    """Refuse what needs a count of operations for models that have none."""
    shares = {
        f"{name} of {source.name}": source.activations[name].operations
        for source in sources.values()
        for name in source.kept
    }
    if specification.limits.operations is not None:
        require_operations("limits.operations", shares)
    if "operations" in specification.study.objectives:
        require_operations("operations in study.objectives", shares)


def _check_limits(specification: Specification, sources: Mapping[str, Source], timesteps: Sequence[int]) -> None:
    """Refuse limits that leave no room for any candidate; how wide an attention map is, only its bank knows."""
    kept = {
        Candidate(source.name, name, timestep): source.activations[name]
        for source in sources.values()
        for name in source.kept
        for timestep in timesteps
    }
    SearchSpace(
        sorted(kept),
        {candidate: min(entry.channels, specification.bank.max_channels) for candidate, entry in kept.items()},
        specification.limits,
        {candidate: entry.operations for candidate, entry in kept.items() if entry.operations is not None},
        draws=specification.noise_draws,
    )


def _check_confirmation(specification: Specification) -> None:
    """Refuse a slow probe that the task does not have, where one is asked for."""
    if specification.study.confirm > 1:
        kinds = reference_kinds(specification.task.kind)
        if specification.study.confirm_probe not in ("reference", *kinds):
            raise SpecificationError(
                f"study.confirm_probe of {specification.task.kind} must be one of {', '.join(('reference', *kinds))}, "
                f"but got {specification.study.confirm_probe!r}."
            )


def _check_budget(prepared: Prepared) -> None:
    """Refuse a bank beyond its budget: the pool, and the baselines that are extracted whatever is kept."""
    if prepared.specification.bank.budget_gb is None:
        return
    pool, baselines = [], []
    for source in prepared.sources.values():
        for activations in prepared.wanted(source).values():
            pool += [entry for entry in activations if entry.name in source.kept]
            baselines += [entry for entry in activations if entry.name not in source.kept]
    main = prepared.backbone(MAIN)
    baselines += [*PixelControl(main).declared, *LatentControl(main).declared]
    # The selection found on a network with random weights: at most its widest.
    widest = sorted(pool, key=lambda entry: entry.channels)[-prepared.specification.limits.activations :]
    prepared.bank.check_budget(pool, [*baselines, *widest])


def _source(
    name: str,
    specification: Specification,
    timesteps: tuple[int, ...],
    shelf: BackboneCache,
    development: DevelopmentSet,
    place: Workspace,
    progress: bool,
    say: Say,
) -> Source:
    """Load a model, list its activations and decide which of them are worth their place in the bank."""
    backbone = cast("PipelineBackbone", shelf[name])
    backbone.check_timesteps(timesteps)
    known = catalogue(backbone)
    measured = None
    if rules_for(known, specification.filters) == "measured":
        images = _unlabelled(development)
        measured = MeasuredFilter(
            measured_once(place.folder / "properties", backbone, known, timesteps, images, progress)
        )
    decisions = apply_filters(known, specification.filters, measured)
    height, width = backbone.image_size
    called = "" if name == MAIN else f"{name}: "
    if name in specification.variants:
        say(f"backbone    {called}the same with {differences(specification.models[name], specification.model)}")
    else:
        say(
            f"backbone    {called}{specification.models[name].id}: {type(backbone.denoiser).__name__}, {height} x "
            f"{width} px, {sum(p.numel() for p in backbone.denoiser.parameters()) / 1e6:.1f} M parameters, on "
            f"{backbone.device}"
        )
    say(f"activations {len(known)} found, {sum(decision.kept for decision in decisions)} kept")
    for reason, count in counted(decision.reason for decision in decisions if not decision.kept):
        say(f"            {count:4d} dropped: {reason}")
    return Source(
        name=name,
        activations={activation.name: activation for activation in _priced(name, known, specification, shelf)},
        decisions=decisions,
        rules={OLDER: older_practice(known), PAPER: paper_choice(known)},
        identity=backbone.identity(),
    )


def _priced(
    name: str, known: Sequence[Activation], specification: Specification, shelf: BackboneCache
) -> Sequence[Activation]:
    """With operations in whole passes of a model as it is given, also for its variants: a larger image costs more."""
    owner = specification.variant_of.get(name)
    return known if owner is None else in_passes_of(known, shelf[name], shelf[owner])


def _unlabelled(development: DevelopmentSet) -> list[Tensor]:
    """The first training images, of each data set alike, as many as measuring needs."""
    training = development.in_turn(np.flatnonzero(development.training))[:MEASURED_IMAGES]
    return image_tensors([development.samples[int(index)].image for index in training])


def counted(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """How often each reason was given, the most frequent first."""
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])
