"""What a search is prepared from, checked in full before anything long is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from diffsift.backbones import (
    Activation,
    Backbone,
    BackboneCache,
    BackboneName,
    DigestCache,
    check_model,
    controls_of,
    differences,
    earlier_identity,
)
from diffsift.bank import Bank, DevelopmentSet
from diffsift.common.context import RunContext
from diffsift.common.data_summary import say_what_data_hold
from diffsift.common.files import digest
from diffsift.datasets import image_tensors
from diffsift.evaluation import Baselines, RowName
from diffsift.extraction import save_selection
from diffsift.objectives import Objective, Probe, make_objective
from diffsift.protocols import departures
from diffsift.search import SAMPLERS, SearchSpace
from diffsift.spaces import (
    Candidate,
    MeasuredFilter,
    ModelSpace,
    Selection,
    apply_filters,
    check_patterns,
    count_reasons,
    older_practice,
    paper_choice,
    rules_for,
)
from diffsift.specification import Specification
from diffsift.study_store import StudyStore
from diffsift.tracking import ActivationDecision

from .checks import check_joint, check_limits, check_rerank, check_timesteps
from .measure import MEASURED_IMAGES, cached_properties


@dataclass(frozen=True)
class Prepared:
    """The models of a study with their pool and data, before anything long was done.

    Attributes:
        specification: of the study.
        context: of the run.
        objective: the task.
        backbones: of the study, by name.
        models: what each offers, by the name of its backbone.
        bank: of the development set.
        timesteps: noise levels as timesteps of the main model.
        warnings: what the user should know; steps of the run add to it.
    """

    specification: Specification
    context: RunContext
    objective: Objective
    backbones: BackboneCache
    models: Mapping[str, ModelSpace]
    bank: Bank
    timesteps: tuple[int, ...]
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def probe(self) -> Probe:
        """One probe for search, reranking and final test, so that what it computed once is kept."""
        return self.objective.probe(self.bank)

    @cached_property
    def baselines(self) -> Baselines:
        """What makes the rows beside the selection found."""
        return Baselines(
            bank=self.bank,
            backbones=self.backbones,
            models=self.models,
            specifications=self.specification.models,
            variants=tuple(self.specification.variants),
            timesteps=self.timesteps,
            random_weights=self.specification.study.random_weights,
        )

    @property
    def content(self) -> dict[str, str]:
        """Digests of what lies behind the names in a specification: weights and images may change under a path."""
        models = {model.name: dict(model.identity) for model in self.models.values()}
        return {"model": digest(models), "data": digest(self.bank.development.identity)}

    @property
    def earlier_model(self) -> str:
        """``content["model"]`` as versions made it that knew neither tokens nor settings of a model."""
        return digest({model.name: earlier_identity(model.identity) for model in self.models.values()})

    @property
    def decisions(self) -> tuple[ActivationDecision, ...]:
        """What the filters decided, as it is recorded."""
        return tuple(
            ActivationDecision(
                name=entry.name,
                kind=entry.kind,
                stage=entry.stage,
                level=entry.level,
                depth=entry.depth,
                channels=entry.channels,
                stride=entry.stride,
                kept=decision.kept,
                reason=decision.reason,
                backbone=model.name,
            )
            for model in self.models.values()
            for decision in model.decisions
            for entry in [decision.activation]
        )

    def backbone(self, name: str) -> Backbone:
        """A model of the study, loaded if it is not in memory.

        Args:
            name: name of the model, or of a baseline's backbone.

        Returns:
            The backbone; the same object as long as it stays in memory.
        """
        return self.backbones[name]

    def wanted(self, model: ModelSpace) -> dict[int, list[Activation]]:
        """What the bank must hold of a model: the kept activations and those of the rule-based baselines.

        Args:
            model: one of `models`.

        Returns:
            Activations by timestep, the same for each.
        """
        names = set(model.kept).union(*model.published.values())
        chosen = [activation for name, activation in model.activations.items() if name in names]
        return dict.fromkeys(self.timesteps, chosen)

    def fill(self) -> int:
        """Extract what the bank lacks; returns the number of entries that were extracted."""
        return sum(self.bank.fill(self.backbone(model.name), self.wanted(model)) for model in self.models.values())

    def pool(self) -> list[Candidate]:
        """Kept candidates whose features are all finite, in a fixed order."""
        named = [
            Candidate(model.name, name, timestep)
            for model in self.models.values()
            for name in model.kept
            for timestep in self.timesteps
        ]
        return sorted(candidate for candidate in named if candidate in self.bank)

    def operations(self) -> dict[Candidate, float]:
        """The share of a whole pass that each candidate of the pool needs, where it is counted."""
        known = {
            candidate: self.models[candidate.backbone].activations[candidate.activation].operations
            for candidate in self.pool()
        }
        return {candidate: share for candidate, share in known.items() if share is not None}

    def space(self) -> SearchSpace:
        """The study's search space; the bank must be filled."""
        return search_space(self.specification, self.bank, self.pool(), self.operations())

    def save_selection(self, file: Path, selection: Selection, about: Mapping[str, Any]) -> None:
        """Write a selection with the statistics that the bank holds; `about` is stored as it is.

        Args:
            file: path of the JSON file; the statistics are written beside it.
            selection: candidates in the bank.
            about: further fields, which readers give back unchanged.
        """
        save_selection(
            file,
            selection,
            self.specification.models,
            self.bank.standardisers(selection.candidates),
            identities={name: dict(model.identity) for name, model in self.models.items()},
            own_prompts=self.bank.development.has_prompts,
            about=about,
        )


def prepare(specification: Specification, store: StudyStore, context: RunContext) -> Prepared:
    """Load models and data; everything that can be refused is refused here, before long work.

    Args:
        specification: of the study.
        store: of the study.
        context: of the run.

    Returns:
        Everything that the steps of the study start from; the bank is not filled yet.

    Raises:
        DiffsiftError: the specification, model or data is not what it must be.
    """
    objective = make_objective(specification.data_sets, specification.task, specification.bank, specification.probe)
    for note in specification.notes:
        context.reporter.info("note", note)
    if specification.protocol is not None:
        differing = departures(specification.protocol, specification.model_dump(mode="json"))
        but = f", but {'; '.join(differing)}" if differing else ""
        context.reporter.info("protocol", f"{specification.protocol}{but}")
    check_rerank(specification)
    backbones = BackboneCache(DigestCache(store.workspace.weight_digests))
    backbones.add_models(specification.models, attention_maps=specification.filters.attention_maps)
    # What costs little is looked at before all data are read; a model that must be downloaded waits until they are.
    here = [check_model(model) for model in specification.models.values()]
    if all(here):
        _timesteps(specification, backbones)
    development = objective.load(context.reporter)
    say_what_data_hold(development.summaries, context.reporter)
    for note in development.notes:
        context.reporter.warning(note)
    timesteps = _timesteps(specification, backbones)
    check_joint(specification, backbones, development, context)
    reader = _ModelReader(specification, timesteps, backbones, development, context)
    models = {name: reader.read(name) for name in specification.models}
    check_patterns([name for model in models.values() for name in model.activations], specification.filters)
    check_limits(specification, models, timesteps)
    prepared = Prepared(
        specification=specification,
        context=context,
        objective=objective,
        backbones=backbones,
        models=models,
        bank=store.bank(development, specification, context),
        timesteps=timesteps,
        warnings=list(development.notes),
    )
    _check_budget(prepared)
    return prepared


def _timesteps(specification: Specification, backbones: BackboneCache) -> tuple[int, ...]:
    """The noise levels as timesteps of the main model, which is loaded for it."""
    main = backbones[BackboneName.MAIN]
    timesteps = tuple(main.timestep_of(level) for level in specification.timesteps)
    check_timesteps(specification, main, timesteps)
    return timesteps


def search_space(
    specification: Specification, bank: Bank, pool: Sequence[Candidate], operations: Mapping[Candidate, float]
) -> SearchSpace:
    """The space of a study, the same in each of its processes.

    Args:
        specification: of the study.
        bank: that holds the pool.
        pool: candidates in their frozen order.
        operations: that each needs, where they are known.

    Returns:
        The space, in the encoding of the study's sampler.
    """
    space = SearchSpace(
        pool,
        {candidate: standardiser.channels for candidate, standardiser in bank.standardisers(pool).items()},
        specification.limits,
        operations,
        noise_draws=specification.noise_draws,
        variants=specification.variant_of,
    )
    return space.encoded(SAMPLERS[specification.study.sampler].encoding)


def _check_budget(prepared: Prepared) -> None:
    """Refuse a bank beyond its budget: the pool, and the baselines that are extracted whatever is kept."""
    if prepared.specification.bank.budget_gb is None:
        return
    pool, baselines = [], []
    for model in prepared.models.values():
        for activations in prepared.wanted(model).values():
            pool += [entry for entry in activations if entry.name in model.kept]
            baselines += [entry for entry in activations if entry.name not in model.kept]
    main = prepared.backbone(BackboneName.MAIN)
    baselines += [entry for make in controls_of(main).values() for entry in make().activations()]
    if prepared.specification.study.random_weights:  # the selection found, at most the widest
        baselines += sorted(pool, key=lambda entry: entry.channels)[-prepared.specification.limits.activations :]
    prepared.bank.check_budget(pool, baselines)


@dataclass(frozen=True)
class _ModelReader:
    """Loads models, lists their activations and decides which are worth their place in the bank."""

    specification: Specification
    timesteps: tuple[int, ...]
    backbones: BackboneCache
    development: DevelopmentSet
    context: RunContext

    def read(self, name: str) -> ModelSpace:
        backbone = self.backbones[name]
        backbone.check_timesteps(self.timesteps)
        known = backbone.activations()
        measured = None
        if rules_for(known, self.specification.filters) == "measured":
            properties = cached_properties(backbone, known, self.timesteps, self._unlabelled(), self.context)
            measured = MeasuredFilter(properties)
        decisions = apply_filters(known, self.specification.filters, measured)
        info = self.context.reporter.info
        info("backbone", self._described(name, backbone))
        info("activations", f"{len(known)} found, {sum(decision.kept for decision in decisions)} kept")
        for reason, count in count_reasons(decisions):
            info("", f"{count:4d} dropped: {reason}")
        # In whole passes of a model as it is given, also for its variants: a larger image costs more.
        owner = self.specification.variant_of.get(name)
        priced = known if owner is None else backbone.activations_in_passes_of(self.backbones[owner])
        return ModelSpace(
            name=name,
            activations={activation.name: activation for activation in priced},
            decisions=decisions,
            published={RowName.OLDER: older_practice(known), RowName.PAPER: paper_choice(known)},
            identity=backbone.identity(),
        )

    def _described(self, name: str, backbone: Backbone) -> str:
        """The model in words."""
        called = "" if name == BackboneName.MAIN else f"{name}: "
        model = self.specification.models[name]
        if name in self.specification.variants:
            return f"{called}the same with {differences(model, self.specification.model)}"
        height, width = backbone.image_size
        millions = sum(parameter.numel() for parameter in backbone.denoiser.parameters()) / 1e6
        types = {str(parameter.dtype).removeprefix("torch.") for parameter in backbone.denoiser.parameters()}
        precision = f"{' and '.join(sorted(types))}, " if types else ""
        return (
            f"{called}{model.id}: {type(backbone.denoiser).__name__}, {height} x {width} px, {millions:.1f} M "
            f"parameters, {precision}on {backbone.device}"
        )

    def _unlabelled(self) -> list[Tensor]:
        """The first training images, of each data set alike, as many as measuring needs."""
        training = self.development.in_turn(np.flatnonzero(self.development.training))[:MEASURED_IMAGES]
        return image_tensors([self.development.samples[int(index)].image for index in training])
