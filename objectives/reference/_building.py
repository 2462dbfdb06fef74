"""Which reference probes a task has, and how one is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from diffsift.backbones import BackboneCache, resolve_device
from diffsift.bank import DevelopmentSet
from diffsift.bank.development import JoinedSamples, LazySamples
from diffsift.common.context import RunContext
from diffsift.errors import SpecificationError
from diffsift.extraction import Standardiser
from diffsift.spaces import Candidate

from .._base import Objective
from ..multi_dataset import MultiDatasetObjective
from ..probes import MultiDatasetProbe, Probe
from ..specification import AnyTaskSpecification, CorrespondenceSpecification
from ._conv import ConvolutionalProbe
from ._heads import LinearHead, LogisticHead, MlpEnsembleHead, ReferenceHead
from ._maps import FeatureMaps
from ._matching import ExactMatchingProbe
from ._probe import Fold, PlacesProbe

_HEADS: dict[str, type[ReferenceHead]] = {"mlp": MlpEnsembleHead, "logistic": LogisticHead, "linear": LinearHead}
CONVOLUTIONAL = "conv"
_OF_TASK = {
    "segmentation": ("mlp", "logistic", "linear", CONVOLUTIONAL),
    "depth": ("linear", CONVOLUTIONAL),
    "classification": ("logistic", "linear"),
    "correspondence": ("exact",),
}
_FINEST = 64
"""Places per edge of a target image at most: 4096 of them, as in DIFT's protocol for 64 x 64 feature maps."""


def reference_kinds(task: str) -> tuple[str, ...]:
    """The reference probes of a task; the first is what ``reference`` means.

    Raises:
        SpecificationError: the task has none.
    """
    if task not in _OF_TASK:
        raise SpecificationError(f"the task {task!r} has no reference probes: {', '.join(_OF_TASK)} have.")
    return _OF_TASK[task]


def reference_probe(
    kind: str,
    task: AnyTaskSpecification,
    objective: Objective,
    development: DevelopmentSet,
    backbones: BackboneCache,
    statistics: Mapping[Candidate, Standardiser],
    context: RunContext,
    *,
    on_test: bool = False,
) -> Probe:
    """A probe that scores selections of a task by full-resolution, uncompressed features.

    Args:
        kind: one of `reference_kinds`, or ``reference`` for the first of them.
        task: part of the specification.
        objective: of that task.
        development: its development set.
        backbones: backbones by name.
        statistics: standardiser of each candidate that will be asked for.
        on_test: fit on all development images and score the test split, instead of fold by fold.
        context: noise seed, batch size, seed of what a head draws, device that heads are trained on, and reporter.

    Raises:
        SpecificationError: the task has no such probe.
    """
    if isinstance(objective, MultiDatasetObjective):
        parts = zip(objective.objectives.values(), development.members, strict=True)
        return MultiDatasetProbe(
            [
                reference_probe(kind, task, one, part, backbones, statistics, context, on_test=on_test)
                for one, part in parts
            ]
        )
    kinds = reference_kinds(task.kind)
    chosen = kinds[0] if kind == "reference" else kind
    if chosen not in kinds:
        raise SpecificationError(
            f"a reference probe of {task.kind} must be one of {', '.join(('reference', *kinds))}, but got {kind!r}."
        )
    count = len(development.samples)
    samples: LazySamples = development.samples
    groups = list(development.groups)
    if on_test:
        samples = JoinedSamples(development.samples, objective.dataset.split("test"))
        groups += [samples[index].group for index in range(count, len(samples))]
    maps = FeatureMaps(samples, backbones, statistics, context)
    if isinstance(task, CorrespondenceSpecification):
        pairs = _pairs(objective, development, count if on_test else None)
        edge = max(max(samples[target].image.shape[:2]) for _, target in pairs)
        return ExactMatchingProbe(maps, samples, pairs, task, resolution=min(_FINEST, edge))
    shared: tuple[Any, ...] = (
        maps,
        lambda image: objective.answers(samples[image]),
        objective.result,
        objective.metric,
        [Fold(np.arange(count), np.arange(count, len(samples)))] if on_test else _folds(development),
    )
    drawn: dict[str, Any] = {
        "groups": groups,
        "classes": len(objective.class_names),
        "seed": context.seed,
        "device": resolve_device(context.device),
    }
    if chosen == CONVOLUTIONAL:
        return ConvolutionalProbe(*shared, **drawn)
    return PlacesProbe(_HEADS[chosen], *shared, **drawn)


def _folds(development: DevelopmentSet) -> Sequence[Fold]:
    return [
        Fold(np.flatnonzero(development.fold != fold), np.flatnonzero(development.fold == fold))
        for fold in development.folds
    ]


def _pairs(objective: Objective, development: DevelopmentSet, offset: int | None) -> list[tuple[int, int]]:
    """Of the development set, or those of the test split behind the `offset` images of the development set."""
    if offset is not None:
        return [(offset + source, offset + target) for source, target in objective.dataset.pairs("test")]
    if development.matching is None:
        raise SpecificationError("correspondence needs pairs, but the development set has none.")
    return [(int(source), int(target)) for source, target in development.matching.pairs]
