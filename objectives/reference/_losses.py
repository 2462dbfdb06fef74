"""What trained heads put out for classes, values and directions, and the loss of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn


@dataclass(frozen=True)
class Targets:
    """What a head is to learn.

    Class ids: a score per class, cross-entropy. Values: one number, squared error after they are standardised.
    Directions (vectors of unit length, such as normals): as many numbers as components, one minus the cosine, for
    which the length of an output does not matter.

    Attributes:
        classes: number of classes; 0 where targets are values or directions.
        components: of a direction; 0 where targets are none.
        shift: mean of the values.
        spread: standard deviation of the values; 1 where all are equal.
    """

    classes: int = 0
    components: int = 0
    shift: float = 0.0
    spread: float = 1.0

    @classmethod
    def of(cls, classes: int, known: Shaped[np.ndarray, "targets *axes"]) -> Targets:
        """Find out what targets are.

        Args:
            classes: number of classes; 0 where targets are values or directions.
            known: all targets that count: ids or values, or a vector each.

        Returns:
            What a head is to learn.
        """
        if classes:
            return cls(classes=classes)
        if known.ndim == 2:
            return cls(components=known.shape[1])
        return cls(shift=float(known.mean()), spread=float(known.std()) or 1.0)

    @property
    def outputs(self) -> int:
        """How many numbers a head puts out for each target."""
        return self.classes or self.components or 1

    def loss(self, outputs: Float[Tensor, "targets outputs"], truth: Shaped[np.ndarray, "targets *axes"]) -> Tensor:
        """The mean loss over targets.

        Args:
            outputs: what the head puts out.
            truth: what it should.

        Returns:
            A number that gradients flow from; 0 where there are no targets.
        """
        if not len(outputs):
            return outputs.sum()
        if self.classes:
            return nn.functional.cross_entropy(outputs, torch.from_numpy(truth.astype(np.int64)).to(outputs.device))
        if self.components:
            return (1 - nn.functional.cosine_similarity(outputs, torch.from_numpy(truth).to(outputs), dim=1)).mean()
        wanted = torch.from_numpy((truth - self.shift) / self.spread).to(outputs)
        return nn.functional.mse_loss(outputs[:, 0], wanted)

    def in_units(self, outputs: Float[Tensor, "*axes"]) -> Float[Tensor, "*axes"]:
        """Outputs in the unit of the targets.

        Args:
            outputs: what the head puts out.

        Returns:
            Values as they were before they were standardised; everything else as it is.
        """
        return outputs * self.spread + self.shift
