"""Scores of selections by a reference head on all places of all images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Int

from diffsift.spaces import Selection

from .._base import Answers
from ..metrics import Metric
from ..probes import Probe, RidgeHead, Score
from ._heads import Places, ReferenceHead
from ._maps import FeatureMaps, SelectionFeatures

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Fold:
    """Positions of the images that a head is fit on, and of those that it is scored on."""

    fit: Int[np.ndarray, "images"]
    held_out: Int[np.ndarray, "images"]


class ReferenceProbe(Probe):
    """Fits a head anew on the uncompressed features of every selection; scored on all places of the held-out images.

    Args:
        maps: feature maps of all images.
        answers: of an image by position; see `Objective.answers`.
        result: the metric's result of an image from its answers and the outputs there.
        metric: of the results.
        folds: which images are fit on and which are scored.
        head: makes a new head.
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
        head: Callable[[], ReferenceHead],
        *,
        groups: Sequence[str],
        classes: int,
        seed: int = 0,
        device: str | torch.device = "cpu",
    ) -> None:
        self.metric = metric
        self._maps, self._result, self._folds, self._head = maps, result, tuple(folds), head
        self._classes, self._seed, self._device = classes, seed, torch.device(device)
        self.groups = [groups[int(image)] for fold in folds for image in fold.held_out]
        used = np.unique(np.concatenate([np.concatenate([fold.fit, fold.held_out]) for fold in folds]))
        self._answers = {int(image): answers(int(image)) for image in used}

    def score(self, selection: Selection) -> Score:
        results = self._by_fold(selection)
        sign = self.metric.sign
        value = sign * self.metric.value(np.concatenate(results))
        return Score(value, tuple(sign * self.metric.value(result) for result in results))

    def held_out(self, selection: Selection) -> Array:
        return np.concatenate(self._by_fold(selection))

    def fit(self, selection: Selection) -> RidgeHead | None:
        raise NotImplementedError(
            "a reference probe scores selections; the head of the final table is the fast probe's."
        )

    def _by_fold(self, selection: Selection) -> list[Array]:
        """Per fold, the results of its held-out images."""
        features = self._maps.of(selection)
        found = []
        for fold in self._folds:
            head = self._head()
            head.fit(self._places(features, fold))
            results = []
            for image in fold.held_out:
                answers = self._answers[int(image)]
                outputs = head.outputs(_features(features, int(image), answers))
                results.append(self._result(answers, outputs))
            found.append(np.stack(results))
        return found

    def _places(self, features: SelectionFeatures, fold: Fold) -> Places:
        """All places of the images that are fit on, as one list."""
        parts = [self._answers[int(image)] for image in fold.fit]
        targets = np.concatenate([part.targets for part in parts])
        if parts[0].pooled:
            pooled = torch.cat(
                [_features(features, int(image), part) for image, part in zip(fold.fit, parts, strict=True)]
            )
            return Places(
                lambda chosen: pooled[torch.from_numpy(chosen)],
                targets,
                features.channels,
                self._classes,
                self._seed,
                self._device,
            )
        images = np.repeat(fold.fit, [len(part.targets) for part in parts])
        points = np.concatenate([part.points for part in parts])
        return Places(
            lambda chosen: features.at(images[chosen], points[chosen]),
            targets,
            features.channels,
            self._classes,
            self._seed,
            self._device,
        )


def _features(features: SelectionFeatures, image: int, answers: Answers) -> torch.Tensor:
    """At the places of an image's answers; pooled where one answer holds for the whole image."""
    return features.pooled(image, answers.points) if answers.pooled else features.of_image(image, answers.points)
