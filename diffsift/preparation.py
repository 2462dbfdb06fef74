"""What a search is prepared from, checked in full before anything long is done."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from torch import Tensor

from diffsift.backbones import Activation, PipelineBackbone, load
from diffsift.errors import SpecificationError
from diffsift.measuring import MEASURED_IMAGES, measured_once
from diffsift.objectives import Bank, Objective, RidgeProbe, SegmentationObjective
from diffsift.objectives.bank import image_batch
from diffsift.objectives.development import DevelopmentSet
from diffsift.spaces import (
    Candidate,
    Decision,
    MeasuredFilter,
    Selection,
    apply_filters,
    catalogue,
    older_practice,
    paper_choice,
    rules_for,
)
from diffsift.specification import Specification
from diffsift.workspace import Workspace

Say = Callable[[str], None]

OLDER = "older practice"
PAPER = "paper's rule-based choice"


@dataclass
class Prepared:
    """A backbone with its pool and data, before anything long was done."""

    specification: Specification
    objective: Objective
    backbone: PipelineBackbone
    activations: dict[str, Activation]
    decisions: tuple[Decision, ...]
    bank: Bank
    rules: dict[str, tuple[str, ...]]
    warnings: list[str] = field(default_factory=list)

    @cached_property
    def probe(self) -> RidgeProbe:
        """One probe for search and confirmation, so that what it computed once is kept."""
        return self.objective.probe(self.bank)

    @property
    def wanted(self) -> dict[int, list[Activation]]:
        """What the bank must hold of the backbone: the kept activations and those of the rule-based baselines."""
        names = {d.activation.name for d in self.decisions if d.kept}.union(*self.rules.values())
        chosen = [activation for name, activation in self.activations.items() if name in names]
        return dict.fromkeys(self.specification.timesteps, chosen)

    def pool(self) -> list[Candidate]:
        """Kept candidates whose features are all finite, in a fixed order."""
        kept = [d.activation.name for d in self.decisions if d.kept]
        named = [Candidate("main", name, t) for name in kept for t in self.specification.timesteps]
        return sorted(candidate for candidate in named if candidate in self.bank)

    def at_each_timestep(self, names: tuple[str, ...]) -> list[Selection]:
        """These activations together, at each timestep where all of them are in the bank."""
        found = []
        for timestep in self.specification.timesteps:
            members = [Candidate("main", name, timestep) for name in names]
            if members and all(candidate in self.bank for candidate in members):
                found.append(Selection.of(members))
        return found


def prepare(specification: Specification, place: Workspace, progress: bool, say: Say) -> Prepared:
    """Load model and data; everything that can be refused is refused here, before long work."""
    objective = SegmentationObjective(specification.data, specification.task, specification.bank, specification.probe)
    development = objective.load()
    backbone = load(specification.model)
    backbone.check_timesteps(specification.timesteps)
    known = catalogue(backbone)
    measured = None
    if rules_for(known, specification.filters) == "measured":
        images = _unlabelled(development, backbone)
        measured = MeasuredFilter(
            measured_once(place.folder / "properties", backbone, known, specification.timesteps, images, progress)
        )
    decisions = apply_filters(known, specification.filters, measured)
    kept = [decision for decision in decisions if decision.kept]
    most = len(kept) * len(specification.timesteps)
    if specification.limits.activations > most:
        raise SpecificationError(
            f"limits.activations must be at most the number of candidates ({len(kept)} activations x "
            f"{len(specification.timesteps)} timesteps = {most}), but got {specification.limits.activations}."
        )
    bank = Bank(
        place.bank,
        development,
        specification.bank,
        noise_seed=specification.model.noise_seed,
        batch_size=specification.model.batch_size,
        progress=progress,
    )
    height, width = backbone.image_size
    say(
        f"backbone    {specification.model.id}: {type(backbone.denoiser).__name__}, {height} x {width} px, "
        f"{sum(p.numel() for p in backbone.denoiser.parameters()) / 1e6:.1f} M parameters, on {backbone.device}"
    )
    say(f"activations {len(known)} found, {len(kept)} kept")
    for reason, count in counted(decision.reason for decision in decisions if not decision.kept):
        say(f"            {count:4d} dropped: {reason}")
    return Prepared(
        specification=specification,
        objective=objective,
        backbone=backbone,
        activations={activation.name: activation for activation in known},
        decisions=decisions,
        bank=bank,
        rules={OLDER: older_practice(known), PAPER: paper_choice(known)},
    )


def _unlabelled(development: DevelopmentSet, backbone: PipelineBackbone) -> Tensor:
    """The first training images, as many as measuring needs."""
    training = np.flatnonzero(development.training)[:MEASURED_IMAGES]
    return image_batch([development.samples[int(index)].image for index in training], backbone.image_size)


def counted(reasons: Iterable[str]) -> list[tuple[str, int]]:
    """How often each reason was given, the most frequent first."""
    counts: dict[str, int] = {}
    for reason in reasons:
        counts[reason] = counts.get(reason, 0) + 1
    return sorted(counts.items(), key=lambda item: -item[1])
