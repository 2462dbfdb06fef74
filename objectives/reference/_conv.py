"""A small convolutional head on full-resolution features: other heads see one pixel, this one those around it too."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ._heads import descend
from ._losses import Targets
from ._maps import SelectionFeatures
from ._probe import Fold, ReferenceProbe

_FLOATS = 64_000_000
"""Features in memory at once, where a whole image is scored."""


@dataclass(frozen=True)
class Windows:
    """Full-resolution maps that a head may be fitted on.

    Attributes:
        features: computes the features of an image, given by position, in a span of rows and a span of columns that
            may reach beyond its edge.
        targets: a map of class ids, values or directions for each image, by position; not a number where a pixel does
            not count.
        channels: channels of the features.
        classes: number of classes; 0 where targets are values or directions.
        seed: seed of whatever is drawn.
        device: where the network is trained.
    """

    features: Callable[[int, tuple[int, int], tuple[int, int]], Float[Tensor, "channels height width"]]
    targets: Mapping[int, Float[np.ndarray, "height width *axes"]]
    channels: int
    classes: int
    seed: int
    device: torch.device


@dataclass
class ConvolutionalHead:
    """A 3 x 3 convolution, ReLU and a 1 x 1 convolution, trained by stochastic gradient descent (AdamW) on crops.

    The loss is that of `Targets`. Nothing is padded: around a crop, and at the image's edge, the convolution sees the
    features that are there.

    Attributes:
        hidden: channels between the convolutions.
        steps: number of steps, each on `batch` crops that are drawn anew.
        batch: crops per step.
        edge: edge of a crop in pixels; that of the smallest image where that is less.
        learning_rate: falls to nothing along half a cosine.
        decay: AdamW's weight decay.
    """

    hidden: int = 64
    steps: int = 400
    batch: int = 2
    edge: int = 32
    learning_rate: float = 3e-3
    decay: float = 1e-2

    def fit(self, windows: Windows) -> None:
        """Learn from crops of all maps.

        Args:
            windows: features and targets.
        """
        generator = np.random.default_rng(windows.seed)
        known = np.concatenate([found[_known(found, axes=2)] for found in windows.targets.values()])
        self._targets = Targets.of(windows.classes, known)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(windows.seed)
            model = nn.Sequential(
                nn.Conv2d(windows.channels, self.hidden, 3), nn.ReLU(), nn.Conv2d(self.hidden, self._targets.outputs, 1)
            ).to(windows.device)

        def loss() -> Tensor:
            features, targets = self._crops(windows, generator)
            counted = _known(targets, axes=3)
            outputs = model(features.to(windows.device)).permute(0, 2, 3, 1)
            return self._targets.loss(outputs[torch.from_numpy(counted).to(outputs.device)], targets[counted])

        descend(model, loss, self.steps, self.learning_rate, self.decay)
        self._model, self._device = model, windows.device

    @torch.inference_mode()
    def outputs(
        self,
        features: Callable[[tuple[int, int], tuple[int, int]], Float[Tensor, "channels height width"]],
        shape: tuple[int, int],
        channels: int,
    ) -> Float[np.ndarray, "height width outputs"]:
        """Predict every pixel of an image, some rows at a time.

        Args:
            features: computes the image's features in a span of rows and a span of columns.
            shape: (height, width) of the image's label.
            channels: channels of the features.

        Returns:
            Class scores, or a value or direction per pixel.
        """
        height, width = shape
        band = max(1, _FLOATS // (channels * (width + 2)))
        bands = []
        for top in range(0, height, band):
            bottom = min(top + band, height)
            seen = features((top - 1, bottom + 1), (-1, width + 1))
            bands.append(self._model(seen[None].to(self._device))[0].cpu())
        return np.asarray(self._targets.in_units(torch.cat(bands, dim=1).permute(1, 2, 0)).numpy())

    def _crops(
        self, windows: Windows, generator: np.random.Generator
    ) -> tuple[Float[Tensor, "crops channels _ _"], Float[np.ndarray, "crops edge edge *axes"]]:
        """Features with a pixel more on every side, and targets, of crops of images drawn with replacement."""
        edge = min(self.edge, *(min(targets.shape[:2]) for targets in windows.targets.values()))
        features, crops = [], []
        for image in generator.choice(list(windows.targets), size=self.batch):
            targets = windows.targets[int(image)]
            top, left = (int(generator.integers(size - edge + 1)) for size in targets.shape[:2])
            features.append(windows.features(int(image), (top - 1, top + edge + 1), (left - 1, left + edge + 1)))
            crops.append(targets[top : top + edge, left : left + edge])
        return torch.stack(features), np.stack(crops)


def _known(targets: Float[np.ndarray, "..."], axes: int) -> Bool[np.ndarray, "..."]:
    """Where a pixel counts; its value, or the components of its direction, are behind so many axes."""
    return np.asarray(np.isfinite(targets).all(axis=tuple(range(axes, targets.ndim))))


class ConvolutionalProbe(ReferenceProbe):
    """Fits a `ConvolutionalHead` on maps of the images of a fold; see `ReferenceProbe` for the arguments."""

    def fitted_head(
        self, features: SelectionFeatures, fold: Fold
    ) -> Callable[[int], Float[np.ndarray, "targets outputs"]]:
        targets = {int(image): self._map(int(image)) for image in fold.fit}
        head = ConvolutionalHead()
        head.fit(
            Windows(
                lambda image, rows, columns: features.window(image, self._shape(image), rows, columns),
                targets,
                features.channels,
                self._classes,
                self._seed,
                self._device,
            )
        )

        def outputs(image: int) -> Float[np.ndarray, "targets outputs"]:
            shape = self._shape(image)
            dense = head.outputs(
                lambda rows, columns: features.window(image, shape, rows, columns), shape, features.channels
            )
            return np.asarray(dense[self._counted(image)])

        return outputs

    def _map(self, image: int) -> Float[np.ndarray, "height width *axes"]:
        counted, known = self._counted(image), self._targets[image].targets
        targets = np.full((*counted.shape, *known.shape[1:]), np.nan, np.float32)
        targets[counted] = known
        return targets

    def _shape(self, image: int) -> tuple[int, int]:
        height, width = self._counted(image).shape
        return height, width

    def _counted(self, image: int) -> Bool[np.ndarray, "height width"]:
        counted = self._targets[image].counted
        if counted is None:
            raise ValueError("a convolutional head needs targets whose points are pixels of a map.")
        return counted
