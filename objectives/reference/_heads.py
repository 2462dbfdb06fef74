"""Heads that papers train on dense features, slow and careful: what the fast probe must rank like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from ._losses import Targets


@dataclass(frozen=True)
class TrainingLocations:
    """Everything that a head may be fitted on.

    Attributes:
        features: computes the features of some locations, given by position.
        targets: targets of all locations: class ids, values, or directions of unit length.
        channels: channels of the features.
        classes: number of classes; 0 where targets are values or directions.
        seed: seed of whatever is drawn.
        device: where networks are trained.
    """

    features: Callable[[Int[np.ndarray, "chosen"]], Float[Tensor, "chosen channels"]]
    targets: Shaped[np.ndarray, "locations *axes"]
    channels: int
    classes: int
    seed: int
    device: torch.device


class ReferenceHead(ABC):
    """A head on features of single locations.

    A `LocationProbe` makes a new head for every selection and fold, calls `fit` once, and then `outputs` for each
    held-out image.
    """

    @abstractmethod
    def fit(self, locations: TrainingLocations) -> None:
        """Learn from all locations, or from as many as the head says.

        Args:
            locations: features and targets.
        """

    @abstractmethod
    def outputs(self, features: Float[Tensor, "locations channels"]) -> Float[np.ndarray, "locations outputs"]:
        """Predict.

        Args:
            features: features of some locations.

        Returns:
            Class scores or votes, or a value or direction per location.
        """


@dataclass
class MlpEnsembleHead(ReferenceHead):
    """The pixel classifier of label-scarce segmentation (Baranchuk et al., ICLR 2022, and the paper's Table 4 to 6).

    Ten networks ``channels -> 128 -> 32 -> classes`` (``-> 256 -> 128 ->`` from 30 classes), each hidden layer linear,
    ReLU, batch normalisation; Adam at 1e-3, 64 pixels a step, cross-entropy. Each network sees all pixels in an order
    of its own and stops once, after four epochs, its loss was not below its lowest for 50 steps, at the latest after
    `epochs`. The class of a pixel is that of most votes; of equal ones the lowest.

    All networks take their steps together as one batched product; nothing is shared between them.

    Attributes:
        networks: number of networks.
        batch: locations per step.
        learning_rate: Adam's.
        epochs: most passes over all locations.
        sure_epochs: passes that every network makes.
        patience: steps without a lower loss after which a network stops.
    """

    networks: int = 10
    batch: int = 64
    learning_rate: float = 1e-3
    epochs: int = 100
    sure_epochs: int = 4
    patience: int = 50

    def fit(self, locations: TrainingLocations) -> None:
        generator = torch.Generator().manual_seed(locations.seed)
        hidden = (256, 128) if locations.classes >= 30 else (128, 32)
        model = _Networks(self.networks, (locations.channels, *hidden, locations.classes), generator).to(
            locations.device
        )
        optimiser = torch.optim.Adam(model.parameters(), lr=self.learning_rate, foreach=True)
        targets = torch.from_numpy(locations.targets.astype(np.int64))
        count = len(targets)
        batch = min(self.batch, count)
        lowest = torch.full((self.networks,), torch.inf)
        waited = torch.zeros(self.networks, dtype=torch.int64)
        running = torch.ones(self.networks, dtype=torch.bool)
        final = {name: value.clone() for name, value in model.state_dict().items()}
        for epoch in range(self.epochs):
            orders = torch.stack([torch.randperm(count, generator=generator) for _ in range(self.networks)])
            for start in range(0, count - batch + 1, batch):
                chosen = orders[:, start : start + batch]
                features = locations.features(chosen.flatten().numpy()).to(locations.device)
                outputs = model(features.view(self.networks, batch, -1))
                losses = nn.functional.cross_entropy(
                    outputs.transpose(1, 2), targets[chosen].to(locations.device), reduction="none"
                ).mean(1)
                optimiser.zero_grad(set_to_none=True)
                torch.autograd.backward(losses.sum())
                optimiser.step()
                if epoch >= self.sure_epochs:
                    known = losses.detach().cpu()
                    waited = torch.where(known < lowest, 0, waited + 1)
                    lowest = torch.minimum(lowest, known)
                    ended = running & (waited > self.patience)
                    if bool(ended.any()):
                        _store(final, model, ended)
                        running &= ~ended
                        if not bool(running.any()):
                            break
            if not bool(running.any()):
                break
        _store(final, model, running)
        model.load_state_dict(final)
        self._model, self._device, self._classes = model.eval(), locations.device, locations.classes

    @torch.inference_mode()
    def outputs(self, features: Float[Tensor, "locations channels"]) -> Float[np.ndarray, "locations outputs"]:
        votes = torch.zeros(len(features), self._classes)
        for start in range(0, len(features), 8192):
            part = features[start : start + 8192].to(self._device)
            chosen = self._model(part.expand(self.networks, -1, -1)).argmax(2).cpu()
            votes[start : start + 8192] = nn.functional.one_hot(chosen, self._classes).sum(0).float()
        return np.asarray(votes.numpy())


class _Networks(nn.Module):
    """Perceptrons of one shape side by side: (networks, locations, channels) to (networks, locations, classes)."""

    def __init__(self, networks: int, sizes: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.norms = nn.ModuleList(nn.BatchNorm1d(networks * size) for size in sizes[1:-1])
        for before, after in pairwise(sizes):
            # As torch.nn.Linear starts; the protocol's own start (normal, 0.02) is made for unscaled features.
            bound = before**-0.5
            start = torch.rand(networks, before + 1, after, generator=generator) * 2 * bound - bound
            self.weights.append(nn.Parameter(start[:, :before].clone()))
            self.biases.append(nn.Parameter(start[:, before:].clone()))

    def forward(self, features: Tensor) -> Tensor:
        hidden = features
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < len(self.norms):
                networks, count, width = hidden.shape
                flat = hidden.relu().transpose(0, 1).reshape(count, networks * width)
                hidden = self.norms[layer](flat).view(count, networks, width).transpose(0, 1)
        return hidden


def _store(final: dict[str, Tensor], model: _Networks, which: Tensor) -> None:
    """Copy the state of some of the networks."""
    for name, value in model.state_dict().items():
        if value.ndim == 0:  # batches counted by batch normalisation: of no effect
            continue
        networks = len(which)
        shape = (networks, -1)
        final[name].view(shape)[which] = value.view(shape)[which]


@dataclass
class LogisticHead(ReferenceHead):
    """Multinomial logistic regression with an L2 penalty (scikit-learn, lbfgs).

    Attributes:
        most: most locations that are fitted on, drawn without replacement; all of them where there are fewer.
        inverse_penalty: scikit-learn's C.
        iterations: most steps of the solver; a warning says when they were not enough.
    """

    most: int = 20_000
    inverse_penalty: float = 1.0
    iterations: int = 1000

    def fit(self, locations: TrainingLocations) -> None:
        chosen = np.arange(len(locations.targets))
        if len(chosen) > self.most:
            chosen = np.sort(np.random.default_rng(locations.seed).choice(chosen, self.most, replace=False))
        self._model = LogisticRegression(C=self.inverse_penalty, max_iter=self.iterations)
        self._model.fit(locations.features(chosen).numpy(), locations.targets[chosen])
        self._classes = locations.classes

    def outputs(self, features: Float[Tensor, "locations channels"]) -> Float[np.ndarray, "locations outputs"]:
        outputs = np.zeros((len(features), self._classes))
        outputs[:, self._model.classes_.astype(int)] = self._model.predict_proba(features.numpy())
        return outputs


@dataclass
class LinearHead(ReferenceHead):
    """A linear layer trained by stochastic gradient descent (AdamW): linear probing, as for self-supervised features.

    The loss is that of `Targets`.

    Attributes:
        steps: number of steps, each on `batch` locations that are drawn anew.
        batch: locations per step.
        learning_rate: falls to nothing along half a cosine.
        decay: AdamW's weight decay.
    """

    steps: int = 1000
    batch: int = 1024
    learning_rate: float = 1e-2
    decay: float = 1e-2

    def fit(self, locations: TrainingLocations) -> None:
        generator = np.random.default_rng(locations.seed)
        self._targets = Targets.of(locations.classes, locations.targets)
        layer = nn.Linear(locations.channels, self._targets.outputs).to(locations.device)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)

        def loss() -> Tensor:
            chosen = generator.integers(len(locations.targets), size=min(self.batch, len(locations.targets)))
            outputs = layer(locations.features(chosen).to(locations.device))
            return self._targets.loss(outputs, locations.targets[chosen])

        descend(layer, loss, self.steps, self.learning_rate, self.decay)
        self._layer, self._device = layer, locations.device

    @torch.inference_mode()
    def outputs(self, features: Float[Tensor, "locations channels"]) -> Float[np.ndarray, "locations outputs"]:
        return np.asarray(self._targets.in_units(self._layer(features.to(self._device)).cpu()).numpy())


def descend(model: nn.Module, loss: Callable[[], Tensor], steps: int, learning_rate: float, decay: float) -> None:
    """Train by AdamW, with a learning rate that falls to nothing along half a cosine.

    Args:
        model: whose parameters are trained.
        loss: draws a batch and computes its loss.
        steps: number of batches.
        learning_rate: that of the first step.
        decay: AdamW's weight decay.
    """
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss())
        optimiser.step()
        schedule.step()
