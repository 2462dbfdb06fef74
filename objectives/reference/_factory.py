"""Which reference probes a task has, and how one is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from diffsift.backbones import BackboneCache
from diffsift.bank import DevelopmentSet, JoinedSamples
from diffsift.common.context import RunContext
from diffsift.errors import SpecificationError
from diffsift.extraction import Standardiser
from diffsift.spaces import Candidate

from .._base import Objective
from ..multi_dataset import MultiDatasetObjective
from ..probes import MultiDatasetProbe, Probe
from ..specification import CorrespondenceSpecification
from ._conv import ConvolutionalProbe
from ._heads import LinearHead, LogisticHead, MlpEnsembleHead, ReferenceHead
from ._maps import FeatureMaps
from ._matching import ExactMatchingProbe
from ._probe import Fold, LocationProbe

_HEADS: dict[str, type[ReferenceHead]] = {"mlp": MlpEnsembleHead, "logistic": LogisticHead, "linear": LinearHead}
CONVOLUTIONAL = "conv"
_OF_TASK = {
    "segmentation": ("mlp", "logistic", "linear", CONVOLUTIONAL),
    "depth": ("linear", CONVOLUTIONAL),
    "normals": ("linear", CONVOLUTIONAL),
    "classification": ("logistic", "linear"),
    "correspondence": ("exact",),
}
_FINEST = 64
"""Most locations per edge of a target image: 4096 in all, as in DIFT's protocol for 64 x 64 feature maps."""


def reference_kinds(task: str) -> tuple[str, ...]:
    """The reference probes of a task.

    Args:
        task: kind of the task.

    Returns:
        Names of probes; the first is what ``reference`` means.

    Raises:
        SpecificationError: the task has none.
    """
    if task not in _OF_TASK:
        raise SpecificationError(f"the task {task!r} has no reference probes: {', '.join(_OF_TASK)} have.")
    return _OF_TASK[task]


@dataclass(frozen=True)
class ReferenceProbeFactory:
    """Makes probes that score selections by full-resolution, uncompressed features.

    Attributes:
        objective: the task on its data.
        development: its development set.
        backbones: backbones by name.
        standardisers: standardiser of each candidate that selections will be made of.
        context: noise seed, batch size, seed of what a head draws, device that heads are trained on, and reporter.
    """

    objective: Objective
    development: DevelopmentSet
    backbones: BackboneCache
    standardisers: Mapping[Candidate, Standardiser]
    context: RunContext

    def make(self, kind: str = "reference", *, on_test: bool = False) -> Probe:
        """Make a probe; nothing is captured yet.

        Args:
            kind: one of `reference_kinds`, or ``reference`` for the first of them.
            on_test: fit on all development images and score the test split, instead of fold by fold.

        Returns:
            A probe with feature maps of its own.

        Raises:
            SpecificationError: the task has no such probe.
        """
        objective, development = self.objective, self.development
        if isinstance(objective, MultiDatasetObjective):
            parts = zip(objective.objectives.values(), development.members, strict=True)
            factories = [replace(self, objective=part, development=own) for part, own in parts]
            return MultiDatasetProbe([factory.make(kind, on_test=on_test) for factory in factories])
        chosen = self._chosen(kind)
        samples, groups, folds = development.samples, list(development.groups), _folds(development)
        if on_test:
            count = len(samples)
            samples = JoinedSamples(samples, objective.dataset.split("test"))
            groups += [samples[index].group for index in range(count, len(samples))]
            folds = [Fold(np.arange(count), np.arange(count, len(samples)))]
        maps = FeatureMaps(samples, self.backbones, self.standardisers, self.context)
        if isinstance(objective.task, CorrespondenceSpecification):
            pairs = _pairs(objective, development, on_test=on_test)
            edge = max(max(samples[target].image.shape[:2]) for _, target in pairs)
            return ExactMatchingProbe(maps, pairs, objective.task, resolution=min(_FINEST, edge))
        if chosen == CONVOLUTIONAL:
            return ConvolutionalProbe(maps, objective, folds, groups)
        return LocationProbe(_HEADS[chosen], maps, objective, folds, groups)

    def _chosen(self, kind: str) -> str:
        task = self.objective.task.kind
        kinds = reference_kinds(task)
        if kind not in ("reference", *kinds):
            raise SpecificationError(
                f"a reference probe of {task} must be one of {', '.join(('reference', *kinds))}, but got {kind!r}."
            )
        return kinds[0] if kind == "reference" else kind


def _folds(development: DevelopmentSet) -> list[Fold]:
    return [
        Fold(np.flatnonzero(development.fold != fold), np.flatnonzero(development.fold == fold))
        for fold in development.folds
    ]


def _pairs(objective: Objective, development: DevelopmentSet, *, on_test: bool) -> Sequence[tuple[int, int]]:
    """Pairs of the development set, or those of the test split, whose images come behind the development set's."""
    if on_test:
        offset = len(development.samples)
        return [(offset + source, offset + target) for source, target in objective.dataset.pairs("test")]
    if development.matching is None:
        raise SpecificationError("correspondence needs pairs, but the development set has none.")
    return [(int(source), int(target)) for source, target in development.matching.pairs]
