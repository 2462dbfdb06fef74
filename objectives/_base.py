"""The abstract objective: a task with its data, its probe and its metric."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from diffsift.spaces import Candidate, Selection, Shelf, Standardiser

from .bank import Bank
from .datasets import Sample
from .development import DevelopmentSet
from .probes import RidgeHead, RidgeProbe


@dataclass(frozen=True)
class Contender:
    """A selection with its probe fit on the development set, ready for the test split."""

    name: str
    selection: Selection
    head: RidgeHead
    standardisers: Mapping[Candidate, Standardiser]


@dataclass(frozen=True)
class TestResult:
    """How contenders did on the test split.

    Attributes:
        counts: per contender, the confusion counts of each test image (rows are true classes).
        predictions: per contender, predicted class ids of the first few images.
        samples: those first few images.
    """

    counts: dict[str, Float64[np.ndarray, "images classes classes"]]
    predictions: dict[str, list[UInt8[np.ndarray, "height width"]]]
    samples: list[Sample]


class Objective(ABC):
    """A task: reads its data, scores selections on a bank, and scores contenders on the sealed test split.

    The test split is opened by `test` alone, and only once per study: whoever calls it records that.
    """

    metric: str
    protocol: str
    class_names: tuple[str, ...]
    credits: tuple[str, ...]

    @abstractmethod
    def load(self) -> DevelopmentSet:
        """Check all data, then give what the search may look at.

        Raises:
            DataError: a file is not what it should be.
        """

    @abstractmethod
    def probe(self, bank: Bank) -> RidgeProbe:
        """The probe that scores selections on the bank."""

    @abstractmethod
    def test(
        self,
        contenders: Sequence[Contender],
        shelf: Shelf,
        *,
        noise_seed: int,
        batch_size: int,
        progress: bool,
    ) -> TestResult:
        """Open the test split and score every contender on all of its pixels."""
