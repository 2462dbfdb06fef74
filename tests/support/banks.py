"""A bank of the tiny pipeline and data set, and what tests of banks look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from diffsift.backbones import Activation, PipelineBackbone, activation_named
from diffsift.bank import Bank, BankSpecification, DevelopmentSet
from diffsift.common.context import RunContext
from diffsift.datasets import FolderSpecification
from diffsift.objectives import ProbeSpecification, SegmentationObjective, TaskSpecification
from diffsift.spaces import Candidate
from support import tiny

NAMES = ("up-level0-repeat0-vit-block0-cross-q", "up-level1-repeat1-res-out", "up-level1-repeat1-vit-block0-ffn-inner")
SPECIFICATION = BankSpecification(pixels_per_image=16, max_channels=12, fit_images=4)
Wanted = dict[int, list[Activation]]


def development_of(data: Path, specification: BankSpecification = SPECIFICATION) -> DevelopmentSet:
    folder = FolderSpecification(kind="folder", images=data / "images", labels=data / "labels", classes=tiny.CLASSES)
    return SegmentationObjective(folder, TaskSpecification(), specification, ProbeSpecification()).load()


def bank_of(folder: Path, development: DevelopmentSet, **options: Any) -> Bank:
    """`options` are fields of the context, or the study's name."""
    study = options.pop("study", None)
    return Bank(folder, development, SPECIFICATION, RunContext(**{"batch_size": 3, **options}), study=study)


def wanted_of(backbone: PipelineBackbone) -> Wanted:
    """Four candidates at two timesteps."""
    known = backbone.activations()
    return {50: [activation_named(name, known) for name in NAMES], 300: [activation_named(NAMES[0], known)]}


class Counted:
    """A backbone's passes: how many images ran at each timestep, and a moment to stop at."""

    def __init__(self, backbone: PipelineBackbone, monkeypatch: pytest.MonkeyPatch, stop_at: int | None = None) -> None:
        self.images: dict[int, int] = {}
        capture = backbone.capture

        def counted(images: list[Any], wanted: Wanted, **options: Any) -> Iterator[Any]:
            for timestep, maps in capture(images, wanted, **options):
                if sum(self.images.values()) == stop_at:
                    raise KeyboardInterrupt
                self.images[timestep] = self.images.get(timestep, 0) + len(images)
                yield timestep, maps

        monkeypatch.setattr(backbone, "capture", counted)


def part_of(development: DevelopmentSet, images: Sequence[int]) -> DevelopmentSet:
    """A data set of some of the images."""
    chosen = list(images)
    return replace(
        development,
        samples=[development.samples[image] for image in chosen],
        **{name: getattr(development, name)[chosen] for name in ("points", "labels", "weights", "fold", "training")},
        groups=tuple(development.groups[image] for image in chosen),
        identity={"images": chosen},
        digests=(),
    )


def features_of(bank: Bank, wanted: Wanted) -> dict[Candidate, np.ndarray]:
    candidates = [Candidate("main", entry.name, t) for t, activations in wanted.items() for entry in activations]
    return {candidate: np.asarray(bank[candidate].features) for candidate in candidates}
