"""What of a specification can only be refused once models and data are known, but before anything long is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

from diffsift.backbones import Backbone, BackboneCache, BackboneName, PipelineBackbone
from diffsift.bank import DevelopmentSet
from diffsift.common.context import RunContext
from diffsift.errors import ModelError, SpecificationError
from diffsift.objectives.reference import reference_kinds
from diffsift.search import SearchSpace, require_operations
from diffsift.spaces import Candidate, ModelSpace, rules_for
from diffsift.specification import Specification

from .measure import MEASURED_IMAGES, SEEDS


def check_timesteps(specification: Specification, main: Backbone, timesteps: Sequence[int]) -> None:
    """Refuse noise levels that the model was not trained with, or that are the same timestep of it.

    Args:
        specification: of the study.
        main: the main backbone.
        timesteps: what its noise levels are as timesteps of that backbone.

    Raises:
        SpecificationError: a level is beyond the model's, or two are the same.
    """
    for number, timestep in enumerate(timesteps):
        try:
            main.check_timesteps([timestep])
        except ModelError as error:
            raise SpecificationError(f"timesteps.{number} (counted from 0): {error}") from error
    if len(set(timesteps)) < len(timesteps):
        raise SpecificationError(f"timesteps must differ, but {list(specification.timesteps)} are {list(timesteps)}.")


def check_joint(
    specification: Specification, backbones: BackboneCache, development: DevelopmentSet, context: RunContext
) -> None:
    """Make the variants of the model, and refuse those that are none or that it cannot be run as.

    Args:
        specification: the study's fields.
        backbones: hold the main model; variants are loaded into it.
        development: the data without its test split.
        context: its reporter gets the number of passes, where properties are measured first.

    Raises:
        SpecificationError: a value changes nothing.
        ModelError: an image size is none of the model's.
    """
    if not specification.variants:
        return
    joint, main = specification.joint, cast("PipelineBackbone", backbones[BackboneName.MAIN])
    if joint.prompts and not main.takes_text:
        raise SpecificationError(f"joint.prompts must be left out for {main.source}, because it takes no text.")
    if joint.prompts and development.has_prompts:
        raise SpecificationError("joint.prompts must be left out, because the data has a prompt for each image.")
    for size in joint.image_sizes:
        main.check_image_size(size, "joint.image_sizes")
        if size == main.image_size:
            raise SpecificationError(
                f"joint.image_sizes must not hold the model's own size, which is tried anyway, but has {list(size)}."
            )
    for name in specification.variants:
        backbones.load(name)
    if rules_for(main.activations(), specification.filters) == "measured":
        images = min(MEASURED_IMAGES, int(development.training.sum()))
        draws = sum(model.noise_seeds for model in specification.variants.values())
        passes = images * len(specification.timesteps) * len(SEEDS) * draws
        context.reporter.info(
            "joint", f"first, properties of the model's variants are measured: at most {passes} passes"
        )


def check_limits(specification: Specification, models: Mapping[str, ModelSpace], timesteps: Sequence[int]) -> None:
    """Refuse limits that no selection meets, and operations where they are not counted.

    Args:
        specification: the study's fields.
        models: what may be chosen of each model, by name.
        timesteps: noise levels as timesteps of the main model.

    Raises:
        SpecificationError: a limit leaves no room for any candidate, or needs what is not known.
    """
    kept = sum(len(model.kept) for model in models.values())
    most = kept * len(specification.timesteps)
    if specification.limits.activations > most:
        raise SpecificationError(
            f"limits.activations must be at most the number of candidates ({kept} activations x "
            f"{len(specification.timesteps)} timesteps = {most}), but got {specification.limits.activations}."
        )
    _check_operations(specification, models)
    candidates = {
        Candidate(model.name, name, timestep): model.activations[name]
        for model in models.values()
        for name in model.kept
        for timestep in timesteps
    }
    # How wide an attention map is, only its bank knows.
    widths = {c: min(entry.channels, specification.bank.max_channels) for c, entry in candidates.items()}
    shares = {c: entry.operations for c, entry in candidates.items() if entry.operations is not None}
    SearchSpace(sorted(candidates), widths, specification.limits, shares, noise_draws=specification.noise_draws)


def check_rerank(specification: Specification) -> None:
    """Refuse a slow probe that the task does not have, where one is asked for.

    Args:
        specification: the study's fields.

    Raises:
        SpecificationError: the task has no such probe.
    """
    if specification.study.rerank > 1:
        kinds = ("reference", *reference_kinds(specification.task.kind))
        if specification.study.rerank_probe not in kinds:
            raise SpecificationError(
                f"study.rerank_probe of {specification.task.kind} must be one of {', '.join(kinds)}, but got "
                f"{specification.study.rerank_probe!r}."
            )


def _check_operations(specification: Specification, models: Mapping[str, ModelSpace]) -> None:
    shares = {
        f"{name} of {model.name}": model.activations[name].operations
        for model in models.values()
        for name in model.kept
    }
    if specification.limits.operations is not None:
        require_operations("limits.operations", shares)
    if "operations" in specification.study.objectives:
        require_operations("operations in study.objectives", shares)
