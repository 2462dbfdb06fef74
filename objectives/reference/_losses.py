"""What trained heads put out for classes, values and directions, and the loss of each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, Shaped
from torch import Tensor, nn


@dataclass(frozen=True)
class Targets:
    """What a head is to learn.

    Class ids: a score per class, cross-entropy. Values: one number, squared error after they are standardised.
    Directions (vectors such as normals): what is to be added to the mean direction, one minus the cosine. The length of
    the sum does not matter; starting from zero it would, as the gradient has no bound there.

    Attributes:
        classes: number of classes; 0 where targets are values or directions.
        shift: mean of the values; or mean direction, of length 1.
        spread: standard deviation of the values; 1 where all are equal, and for directions.
    """

    classes: int = 0
    shift: float | Float32[np.ndarray, "components"] = 0.0
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
            mean = known.mean(0)
            length = float(np.linalg.norm(mean))
            start = mean / length if length else np.eye(known.shape[1])[-1]
            return cls(shift=start.astype(np.float32))
        return cls(shift=float(known.mean()), spread=float(known.std()) or 1.0)

    @property
    def outputs(self) -> int:
        """How many numbers a head puts out for each target."""
        return self.classes or np.size(self.shift)

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
        if isinstance(self.shift, np.ndarray):
            directions = torch.from_numpy(truth).to(outputs)
            return (1 - nn.functional.cosine_similarity(self.in_units(outputs), directions, dim=1)).mean()
        wanted = torch.from_numpy((truth - self.shift) / self.spread).to(outputs)
        return nn.functional.mse_loss(outputs[:, 0], wanted)

    def in_units(self, outputs: Float[Tensor, "*axes outputs"]) -> Float[Tensor, "*axes outputs"]:
        """Outputs as what they stand for.

        Args:
            outputs: what the head puts out.

        Returns:
            Scores of classes as they are, values in the unit of the targets, or directions of any length.
        """
        shift = torch.from_numpy(self.shift).to(outputs) if isinstance(self.shift, np.ndarray) else self.shift
        return outputs * self.spread + shift
