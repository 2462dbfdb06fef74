"""Scores of selections by a reference head on all places of all images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from diffsift.spaces import Selection

from .._base import Answers
from ..metrics import Metric
from ..probes import FoldedProbe, Head
from ._heads import Places, ReferenceHead
from ._maps import FeatureMaps, SelectionFeatures

Array = np.ndarray[Any, Any]

_AT_ONCE = 1_000_000_000
"""Bytes up to which the features of all places are computed once, instead of anew whenever a head asks for them."""


@dataclass(frozen=True)
class Fold:
    """Positions of the images that a head is fit on, and of those that it is scored on."""

    fit: Int[np.ndarray, "images"]
    held_out: Int[np.ndarray, "images"]


class ReferenceProbe(FoldedProbe):
    """Fits a head anew on the uncompressed features of every selection; scored on all places of the held-out images.

    Args:
        maps: feature maps of all images.
        answers: of an image by position; see `Objective.answers`.
        result: the metric's result of an image from its answers and the outputs there.
        metric: of the results.
        folds: which images are fit on and which are scored.
        groups: of all images, by position.
        classes: how many; 0 for values.
        seed: of what the head draws.
        device: that networks are trained on.
    """

    def __init__(
        self,
        maps: FeatureMaps,
        answers: Callable[[int], Answers],
        result: Callable[[Answers, Array], Array],
        metric: Metric,
        folds: Sequence[Fold],
        *,
        groups: Sequence[str],
        classes: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.metric = metric
        self._maps, self._result, self._folds = maps, result, tuple(folds)
        self._classes, self._seed, self._device = classes, seed, torch.device(device)
        self.groups = [groups[int(image)] for fold in folds for image in fold.held_out]
        used = np.unique(np.concatenate([np.concatenate([fold.fit, fold.held_out]) for fold in folds]))
        self._answers = {int(image): answers(int(image)) for image in used}

    def load(self, selections: Sequence[Selection]) -> None:
        """Run the backbones once for all of these, as far as memory goes, instead of anew for each."""
        self._maps.of(Selection.of({entry for selection in selections for entry in selection.candidates}))

    def fit(self, selection: Selection) -> Head | None:
        raise NotImplementedError(
            "a reference probe scores selections; the head of the final table is the fast probe's."
        )

    @abstractmethod
    def _fitted(self, features: SelectionFeatures, fold: Fold) -> Callable[[int], Array]:
        """A head fit on a fold: from an image's position to the outputs at all places of its answers."""

    def _by_fold(self, selection: Selection) -> list[Array]:
        features = self._maps.of(selection)
        found = []
        for fold in self._folds:
            outputs = self._fitted(features, fold)
            images = map(int, fold.held_out)
            found.append(np.stack([self._result(self._answers[image], outputs(image)) for image in images]))
        return found


class PlacesProbe(ReferenceProbe):
    """A head that sees one place at a time.

    Args:
        head: makes a new head.
        arguments: those of `ReferenceProbe`.
    """

    def __init__(self, head: Callable[[], ReferenceHead], *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._head = head

    def _fitted(self, features: SelectionFeatures, fold: Fold) -> Callable[[int], Array]:
        head = self._head()
        head.fit(self._places(features, fold))
        return lambda image: head.outputs(_features(features, image, self._answers[image]))

    def _places(self, features: SelectionFeatures, fold: Fold) -> Places:
        """All places of the images that are fit on, as one list."""
        parts = [self._answers[int(image)] for image in fold.fit]
        targets = np.concatenate([part.targets for part in parts])
        if parts[0].pooled or len(targets) * features.channels * 4 <= _AT_ONCE:
            rows = torch.cat(
                [_features(features, int(image), part) for image, part in zip(fold.fit, parts, strict=True)]
            )

            def found(chosen: Array) -> torch.Tensor:
                return rows[torch.from_numpy(chosen)]
        else:
            images = np.repeat(fold.fit, [len(part.targets) for part in parts])
            points = np.concatenate([part.points for part in parts])

            def found(chosen: Array) -> torch.Tensor:
                return features.at(images[chosen], points[chosen])

        return Places(found, targets, features.channels, self._classes, self._seed, self._device)


def _features(features: SelectionFeatures, image: int, answers: Answers) -> torch.Tensor:
    """At the places of an image's answers; pooled where one answer holds for the whole image."""
    return features.pooled(image, answers.points) if answers.pooled else features.of_image(image, answers.points)
