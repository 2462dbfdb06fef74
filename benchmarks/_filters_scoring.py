"""Scores of single candidates and of selections of four, for `filters.py`: the bank and probe that a search uses."""

from __future__ import annotations

import csv
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffsift.backbones import Activation, Backbone, ModelSpecification, load
from diffsift.bank import Bank, BankSpecification
from diffsift.common.context import RunContext
from diffsift.datasets import RenderedScenesSpecification
from diffsift.objectives import ProbeSpecification, RidgeProbe, SegmentationObjective, TaskSpecification
from diffsift.spaces import Candidate, Selection

TIMESTEPS = (50, 150, 250, 400, 600)
SEED, SCENES = 77, 150
MAX_CHANNELS = 96  # as in the demo


@dataclass(frozen=True)
class Single:
    """A candidate scored alone.

    Attributes:
        score: mean IoU on the validation scenes' sampled locations.
        rms: root mean square of the raw activation over training locations: its magnitude.
    """

    activation: Activation
    timestep: int
    score: float
    rms: float

    @property
    def candidate(self) -> Candidate:
        return Candidate("main", self.activation.name, self.timestep)


@dataclass(frozen=True)
class Network:
    """A pipeline with its readable activations and the bank and probe they are scored on."""

    name: str
    backbone: Backbone
    activations: tuple[Activation, ...]
    timesteps: tuple[int, ...]
    bank: Bank
    probe: RidgeProbe

    def fill(self) -> None:
        """Run the network for what the bank does not hold yet."""
        self.bank.fill(self.backbone, {timestep: list(self.activations) for timestep in self.timesteps})


def open_network(name: str, folder: Path, workspace: Path, *, scenes: int, timesteps: Sequence[int]) -> Network:
    """A pipeline folder on rendered scenes of a seed used nowhere else, `scenes` each to train and to validate on."""
    task = BankSpecification(max_channels=MAX_CHANNELS)
    data = RenderedScenesSpecification(train=scenes, validation=scenes, test=1, seed=SEED)
    development = SegmentationObjective(data, TaskSpecification(), task, ProbeSpecification()).load()
    backbone = load(ModelSpecification(id=str(folder), device="cpu", batch_size=32))
    backbone.place_attention_maps()
    activations = tuple(entry for entry in backbone.activations() if not entry.unreadable)
    bank = Bank(workspace / name, development, task, RunContext(batch_size=32))
    probe = RidgeProbe(bank, ProbeSpecification(), memory=4_000_000_000)
    return Network(name, backbone, activations, tuple(timesteps), bank, probe)


def score_singles(network: Network) -> list[Single]:
    """Every activation x timestep alone; candidates with values that are not finite are left out."""
    network.fill()
    found = []
    for activation in network.activations:
        for timestep in network.timesteps:
            candidate = Candidate("main", activation.name, timestep)
            if candidate not in network.bank:
                print(f"left out: {candidate}: {network.bank.rejected[candidate]}")
                continue
            statistics = network.bank[candidate].standardiser
            energy = (statistics.mean.double() ** 2 + statistics.scale.double() ** -2).mean()
            score = network.probe.score(Selection.of([candidate])).value
            found.append(Single(activation, timestep, score, float(energy.sqrt())))
    return found


def best_four(network: Network, singles: Sequence[Single], kept: Collection[Candidate], budget: int = 400) -> float:
    """The best score of a greedy forward selection of up to four candidates among those kept.

    Each of the three rounds may call the probe for a third of the budget: half of it for the best single candidates
    that are not chosen yet, half spread over all others, as the best complement is often poor alone. Equal weights.
    """
    ranked = [single for single in sorted(singles, key=lambda s: -s.score) if single.candidate in kept]
    if not ranked:
        return 0.0
    chosen, best = [ranked[0].candidate], ranked[0].score
    for _ in range(3):
        others = [single.candidate for single in ranked if single.candidate not in chosen]
        share = budget // 3
        tried = others[: share // 2]
        spread = others[share // 2 :]
        tried += (
            [spread[int(i)] for i in np.unique(np.linspace(0, len(spread) - 1, share - len(tried)))] if spread else []
        )
        if not tried:
            break
        scores = [network.probe.score(Selection.of([*chosen, candidate])).value for candidate in tried]
        if max(scores) <= best:
            break
        best = max(scores)
        chosen.append(tried[int(np.argmax(scores))])
    return best


def singles_rows(
    network: str, singles: Sequence[Single], properties: dict[Candidate, dict[str, float]]
) -> list[dict[str, Any]]:
    """One CSV row per single score, with what was measured of it."""
    names = sorted({name for measured in properties.values() for name in measured})
    return [
        {
            "network": network,
            "activation": single.activation.name,
            "kind": single.activation.kind,
            "stage": single.activation.stage,
            "depth": single.activation.depth,
            "stride": single.activation.stride,
            "channels": single.activation.channels,
            "timestep": single.timestep,
            "score": single.score,
            "rms": single.rms,
            **{name: properties.get(single.candidate, {}).get(name) for name in names},
        }
        for single in singles
    ]


def read_singles(path: Path, network: Network) -> list[Single]:
    """Scores of an earlier run; empty where there are none of this network."""
    if not path.is_file():
        return []
    known = {entry.name: entry for entry in network.activations}
    with path.open(encoding="utf-8", newline="") as file:
        return [
            Single(known[row["activation"]], int(row["timestep"]), float(row["score"]), float(row["rms"]))
            for row in csv.DictReader(file)
            if row["network"] == network.name and row["activation"] in known
        ]
