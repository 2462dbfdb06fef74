"""Scores of selections by a reference head on all locations of all images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from diffsift.backbones import resolve_device
from diffsift.spaces import Selection

from .._base import ImageTargets, Objective
from ..probes import FoldedProbe, Head
from ._heads import ReferenceHead, TrainingLocations
from ._maps import FeatureMaps, SelectionFeatures

_AT_ONCE = 1_000_000_000
"""Bytes up to which the features of all locations are computed once, instead of anew whenever a head reads them."""


@dataclass(frozen=True)
class Fold:
    """One division of the images.

    Attributes:
        fit: positions of the images that a head is fitted on.
        held_out: positions of the images that it is scored on.
    """

    fit: Int[np.ndarray, "fit"]
    held_out: Int[np.ndarray, "held_out"]


class ReferenceProbe(FoldedProbe):
    """Fits a head anew on the uncompressed features of every selection; scores all locations of held-out images.

    A subclass gives `fitted_head`.

    Args:
        maps: feature maps of all images; seed and device of its context are those of the heads.
        objective: gives targets, results and the metric.
        folds: which images are fitted on and which are scored.
        groups: groups of all images, by position.
    """

    def __init__(self, maps: FeatureMaps, objective: Objective, folds: Sequence[Fold], groups: Sequence[str]) -> None:
        self.metric = objective.metric
        self._maps, self._objective, self._folds = maps, objective, tuple(folds)
        self._classes = len(objective.class_names)
        self._seed, self._device = maps.context.seed, torch.device(resolve_device(maps.context.device))
        self.groups = [groups[int(image)] for fold in folds for image in fold.held_out]
        used = np.unique(np.concatenate([np.concatenate([fold.fit, fold.held_out]) for fold in folds]))
        self._targets = {int(image): objective.targets(maps.samples[int(image)]) for image in used}

    def load(self, selections: Sequence[Selection]) -> None:
        """Run the backbones once for several selections, as far as memory goes, instead of anew for each.

        Args:
            selections: what will be scored.
        """
        self._maps.of(Selection.of({entry for selection in selections for entry in selection.candidates}))

    def fit(self, selection: Selection) -> Head | None:
        """Not available: the head of the final table is the fast probe's.

        Args:
            selection: not used.

        Returns:
            Nothing.

        Raises:
            NotImplementedError: always.
        """
        raise NotImplementedError(
            "a reference probe scores selections; the head of the final table is the fast probe's."
        )

    @abstractmethod
    def fitted_head(
        self, features: SelectionFeatures, fold: Fold
    ) -> Callable[[int], Float[np.ndarray, "targets outputs"]]:
        """Fit a head on a fold.

        Args:
            features: features of a selection.
            fold: which images to fit on.

        Returns:
            A function from an image's position to the head's outputs at all of its targets.
        """

    def results_by_fold(self, selection: Selection) -> list[NDArray[np.float64]]:
        features = self._maps.of(selection)
        results = []
        for fold in self._folds:
            outputs = self.fitted_head(features, fold)
            images = map(int, fold.held_out)
            results.append(np.stack([self._objective.result(self._targets[image], outputs(image)) for image in images]))
        return results


class LocationProbe(ReferenceProbe):
    """A reference probe whose head sees one location at a time.

    Args:
        head: makes a new head.
        maps: see `ReferenceProbe`.
        objective: see `ReferenceProbe`.
        folds: see `ReferenceProbe`.
        groups: see `ReferenceProbe`.
    """

    def __init__(
        self,
        head: Callable[[], ReferenceHead],
        maps: FeatureMaps,
        objective: Objective,
        folds: Sequence[Fold],
        groups: Sequence[str],
    ) -> None:
        super().__init__(maps, objective, folds, groups)
        self._head = head

    def fitted_head(
        self, features: SelectionFeatures, fold: Fold
    ) -> Callable[[int], Float[np.ndarray, "targets outputs"]]:
        head = self._head()
        head.fit(self._locations(features, fold))
        return lambda image: head.outputs(_features(features, image, self._targets[image]))

    def _locations(self, features: SelectionFeatures, fold: Fold) -> TrainingLocations:
        """All locations of the images that are fitted on, as one list."""
        parts = [self._targets[int(image)] for image in fold.fit]
        targets = np.concatenate([part.targets for part in parts])
        if parts[0].pooled or len(targets) * features.channels * 4 <= _AT_ONCE:
            rows = torch.cat(
                [_features(features, int(image), part) for image, part in zip(fold.fit, parts, strict=True)]
            )

            def chosen_features(chosen: Int[np.ndarray, "chosen"]) -> Float[Tensor, "chosen channels"]:
                return rows[torch.from_numpy(chosen)]
        else:
            images = np.repeat(fold.fit, [len(part.targets) for part in parts])
            points = np.concatenate([part.points for part in parts])

            def chosen_features(chosen: Int[np.ndarray, "chosen"]) -> Float[Tensor, "chosen channels"]:
                return features.at(images[chosen], points[chosen])

        return TrainingLocations(chosen_features, targets, features.channels, self._classes, self._seed, self._device)


def _features(features: SelectionFeatures, image: int, targets: ImageTargets) -> Float[Tensor, "targets channels"]:
    """Features at an image's points; pooled where one target holds for the whole image."""
    return features.pooled(image, targets.points) if targets.pooled else features.of_image(image, targets.points)
