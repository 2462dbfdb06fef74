"""Heads that papers train on dense features, slow and careful: what the fast probe must rank like."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Places:
    """Everything that a head may be fit on.

    Attributes:
        features: of some places, by position: (places,) to (places, channels).
        targets: of all places: class ids, or values.
        channels: of the features.
        classes: how many; 0 where targets are values.
        seed: of whatever is drawn.
        device: that networks are trained on.
    """

    features: Callable[[Array], Float[Tensor, "places channels"]]
    targets: Array
    channels: int
    classes: int
    seed: int
    device: torch.device


class ReferenceHead(ABC):
    """Is fit on places, then gives outputs for features: class scores or votes, or one value."""

    @abstractmethod
    def fit(self, places: Places) -> None:
        """Learn from all places, or as many of them as the head says."""

    @abstractmethod
    def outputs(self, features: Float[Tensor, "places channels"]) -> Float[np.ndarray, "places outputs"]:
        """The outputs for these features."""


@dataclass
class MlpEnsembleHead(ReferenceHead):
    """The pixel classifier of label-scarce segmentation (Baranchuk et al., ICLR 2022, and the paper's Table 4 to 6).

    Ten networks ``channels -> 128 -> 32 -> classes`` (``-> 256 -> 128 ->`` from 30 classes), each hidden layer linear,
    ReLU, batch normalisation; Adam at 1e-3, 64 pixels a step, cross-entropy. Each network sees all pixels in an order
    of its own and stops once, after four epochs, its loss was not below its lowest for 50 steps, at the latest after
    `epochs`. The class of a pixel is that of most votes; of equal ones the lowest.

    All networks take their steps together as one batched product; nothing is shared between them.
    """

    networks: int = 10
    batch: int = 64
    learning_rate: float = 1e-3
    epochs: int = 100
    sure_epochs: int = 4
    patience: int = 50

    def fit(self, places: Places) -> None:
        generator = torch.Generator().manual_seed(places.seed)
        hidden = (256, 128) if places.classes >= 30 else (128, 32)
        model = _Networks(self.networks, (places.channels, *hidden, places.classes), generator).to(places.device)
        optimiser = torch.optim.Adam(model.parameters(), lr=self.learning_rate, foreach=True)
        targets = torch.from_numpy(places.targets.astype(np.int64))
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
                features = places.features(chosen.flatten().numpy()).to(places.device)
                outputs = model(features.view(self.networks, batch, -1))
                losses = nn.functional.cross_entropy(
                    outputs.transpose(1, 2), targets[chosen].to(places.device), reduction="none"
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
                        _keep(final, model, ended)
                        running &= ~ended
                        if not bool(running.any()):
                            break
            if not bool(running.any()):
                break
        _keep(final, model, running)
        model.load_state_dict(final)
        self._model, self._device, self._classes = model.eval(), places.device, places.classes

    @torch.inference_mode()
    def outputs(self, features: Float[Tensor, "places channels"]) -> Float[np.ndarray, "places outputs"]:
        votes = torch.zeros(len(features), self._classes)
        for start in range(0, len(features), 8192):
            part = features[start : start + 8192].to(self._device)
            chosen = self._model(part.expand(self.networks, -1, -1)).argmax(2).cpu()
            votes[start : start + 8192] = nn.functional.one_hot(chosen, self._classes).sum(0).float()
        return np.asarray(votes.numpy())


class _Networks(nn.Module):
    """Perceptrons of one shape side by side: (networks, places, channels) to (networks, places, classes)."""

    def __init__(self, networks: int, sizes: tuple[int, ...], generator: torch.Generator) -> None:
        super().__init__()
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        self.norms = nn.ModuleList(nn.BatchNorm1d(networks * size) for size in sizes[1:-1])
        for before, after in pairwise(sizes):
            # As torch.nn.Linear starts; the protocol's own start (normal, 0.02) is made for unscaled features.
            bound = before**-0.5
            draws = torch.rand(networks, before + 1, after, generator=generator) * 2 * bound - bound
            self.weights.append(nn.Parameter(draws[:, :before].clone()))
            self.biases.append(nn.Parameter(draws[:, before:].clone()))

    def forward(self, features: Tensor) -> Tensor:
        hidden = features
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            hidden = torch.baddbmm(bias, hidden, weight)
            if layer < len(self.norms):
                networks, places, width = hidden.shape
                flat = hidden.relu().transpose(0, 1).reshape(places, networks * width)
                hidden = self.norms[layer](flat).view(places, networks, width).transpose(0, 1)
        return hidden


def _keep(final: dict[str, Tensor], model: _Networks, which: Tensor) -> None:
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
        places: most places that are fit on, drawn without replacement; all of them where there are fewer.
        inverse_penalty: scikit-learn's C.
        iterations: most steps of the solver; a warning says when they were not enough.
    """

    places: int = 20_000
    inverse_penalty: float = 1.0
    iterations: int = 1000

    def fit(self, places: Places) -> None:
        chosen = np.arange(len(places.targets))
        if len(chosen) > self.places:
            chosen = np.sort(np.random.default_rng(places.seed).choice(chosen, self.places, replace=False))
        self._model = LogisticRegression(C=self.inverse_penalty, max_iter=self.iterations)
        self._model.fit(places.features(chosen).numpy(), places.targets[chosen])
        self._classes = places.classes

    def outputs(self, features: Float[Tensor, "places channels"]) -> Float[np.ndarray, "places outputs"]:
        found = np.zeros((len(features), self._classes))
        found[:, self._model.classes_.astype(int)] = self._model.predict_proba(features.numpy())
        return found


@dataclass
class LinearHead(ReferenceHead):
    """A linear layer trained by stochastic gradient descent (AdamW): linear probing, as for self-supervised features.

    Cross-entropy for classes; squared error for values, which are standardised first.

    Attributes:
        steps: of `batch` places each, drawn anew for every step.
        learning_rate: falls to nothing along half a cosine.
        decay: AdamW's weight decay.
    """

    steps: int = 1000
    batch: int = 1024
    learning_rate: float = 1e-2
    decay: float = 1e-2

    def fit(self, places: Places) -> None:
        generator = np.random.default_rng(places.seed)
        layer = nn.Linear(places.channels, places.classes or 1).to(places.device)
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
        self._shift, self._spread = (0.0, 1.0) if places.classes else shift_and_spread(places.targets)

        def loss() -> Tensor:
            chosen = generator.integers(len(places.targets), size=min(self.batch, len(places.targets)))
            outputs = layer(places.features(chosen).to(places.device))
            truth = places.targets[chosen]
            if places.classes:
                return nn.functional.cross_entropy(outputs, torch.from_numpy(truth.astype(np.int64)).to(outputs.device))
            wanted = torch.from_numpy((truth - self._shift) / self._spread).to(outputs)
            return nn.functional.mse_loss(outputs[:, 0], wanted)

        descend(layer, loss, self.steps, self.learning_rate, self.decay)
        self._layer, self._device = layer, places.device

    @torch.inference_mode()
    def outputs(self, features: Float[Tensor, "places channels"]) -> Float[np.ndarray, "places outputs"]:
        found = self._layer(features.to(self._device)).cpu() * self._spread + self._shift
        return np.asarray(found.numpy())


def shift_and_spread(values: Array) -> tuple[float, float]:
    """Mean and standard deviation that values are standardised with; 1 where they are all equal."""
    return float(values.mean()), float(values.std()) or 1.0


def descend(model: nn.Module, loss: Callable[[], Tensor], steps: int, learning_rate: float, decay: float) -> None:
    """Train by AdamW, with a learning rate that falls to nothing along half a cosine; `loss` draws a batch."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(steps):
        optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(loss())
        optimiser.step()
        schedule.step()
