"""Sums of folded heads on native grids against standardised, projected and weighted features at every pixel."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsift.backbones import FeatureMap
from diffsift.bank import all_locations
from diffsift.extraction import Standardiser, sample_map
from diffsift.objectives import FittedSelection, RidgeHead, _dense, dense_outputs, head_of
from diffsift.spaces import Candidate, Selection

CHANNELS = {Candidate("main", "a", 50): 9, Candidate("main", "b", 50): 30, Candidate("main", "c", 300): 12}
GRIDS = dict(zip(CHANNELS, ((4, 6), (8, 12), (4, 6)), strict=True))
MEAN = 2000.0
"""Of all values, a thousand deviations: a part of a sum that must not hide what differs."""
SHAPES = ((10, 14), (7, 5), (16, 16))


class Maps:
    """Feature maps that are there, read as a backbone reads them: pass by pass, images divided among two parts."""

    def __init__(self, dtype: torch.dtype) -> None:
        generator = torch.Generator().manual_seed(0)
        self.values = {
            candidate: (torch.randn(len(SHAPES), channels, *GRIDS[candidate], generator=generator) * 2 + MEAN).to(dtype)
            for candidate, channels in CHANNELS.items()
        }

    def sums(self, read: Callable[[Candidate, FeatureMap], dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
        for timestep in (50, 300):
            parts: list[dict[str, Tensor]] = []
            for images in (slice(0, 2), slice(2, 3)):
                total: dict[str, Tensor] = {}
                for candidate in [candidate for candidate in CHANNELS if candidate.timestep == timestep]:
                    found = read(candidate, feature_map(self.values[candidate][images], images))
                    for name, value in found.items():
                        total[name] = total[name] + value if name in total else value
                parts.append(total)
            yield {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def feature_map(values: Tensor, images: slice) -> Any:
    return SimpleNamespace(values=values, images=images)


def standardiser(channels: int, generator: torch.Generator) -> Standardiser:
    """Statistics of values around a mean, with a projection to 6 components beyond 10 channels."""
    samples = torch.randn(400, channels, generator=generator) * 2 + MEAN
    return Standardiser.fit(samples, max_channels=6 if channels > 10 else 10)


@pytest.fixture(scope="module")
def fitted() -> list[FittedSelection]:
    generator, rng = torch.Generator().manual_seed(1), np.random.default_rng(0)
    standardisers = {candidate: standardiser(channels, generator) for candidate, channels in CHANNELS.items()}
    rows = []
    # The last has more sums than any candidate has features, like one of many exemplars.
    for name, chosen, width in (
        ("all", list(CHANNELS), 3),
        ("one", [*CHANNELS][1:2], 1),
        ("many", [*CHANNELS][:2], 20),
    ):
        own = {candidate: standardisers[candidate] for candidate in chosen}
        weights = {
            candidate: rng.normal(size=(entry.channels, width)).astype(np.float32) for candidate, entry in own.items()
        }
        head = RidgeHead(weights, rng.normal(size=width).astype(np.float32))
        rows.append(FittedSelection(name, Selection.of(chosen), head, own))
    return rows


def outputs(maps: Maps, fitted: list[FittedSelection]) -> dict[str, list[Tensor]]:
    samples: Any = [SimpleNamespace(label=np.zeros(shape, np.uint8)) for shape in SHAPES]
    return dense_outputs(samples, maps, fitted)  # type: ignore[arg-type]


def expected(maps: Maps, entry: FittedSelection, image: int) -> Tensor:
    """Whole maps are enlarged first, then standardised, projected and weighted at every pixel, in float64."""
    shape = SHAPES[image]
    points = torch.from_numpy(all_locations(np.zeros(shape, np.uint8)).points).double()[None]
    total = torch.from_numpy(head_of(entry).intercept).double()
    for candidate, own in entry.standardisers.items():
        exact = Standardiser(
            own.mean.double(), own.scale.double(), None if own.projection is None else own.projection.double()
        )
        features = exact.apply(sample_map(maps.values[candidate][image : image + 1].double(), points))[0]
        total = total + features @ torch.from_numpy(head_of(entry).weights[candidate]).double()
    return total.T.reshape(-1, *shape)


@pytest.mark.unchecked
@pytest.mark.parametrize("at_once", [16_000_000, 100])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_outputs_are_those_of_enlarged_features(
    fitted: list[FittedSelection], dtype: torch.dtype, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_dense, "_VALUES_AT_ONCE", at_once)  # parts of a map, or of an image
    maps = Maps(dtype)
    found = outputs(maps, fitted)
    assert list(found) == ["all", "one", "many"]
    for entry in fitted:
        for image, values in enumerate(found[entry.name]):
            wanted = expected(maps, entry, image).float()
            assert values.shape == wanted.shape
            # The maps are what the type made of them; sums are in float32 for all types.
            torch.testing.assert_close(values, wanted, rtol=1e-4, atol=2e-4)


@pytest.mark.unchecked
def test_narrow_heads_are_folded_once_and_wide_ones_never(
    fitted: list[FittedSelection], monkeypatch: pytest.MonkeyPatch
) -> None:
    applied: list[int] = []
    apply = Standardiser.apply

    def counted(self: Standardiser, features: Tensor) -> Tensor:
        applied.append(self.raw_channels)
        return apply(self, features)

    maps = Maps(torch.float32)
    outputs(maps, fitted)
    folded = {name: dict(entry._folded) for name, entry in zip(("all", "one", "many"), fitted, strict=True)}
    assert [len(entry) for entry in folded.values()] == [3, 1, 0]
    monkeypatch.setattr(Standardiser, "apply", counted)
    outputs(maps, fitted)
    assert all(entry._folded[key] is value for entry in fitted for key, value in folded[entry.name].items())
    assert applied == [9, 30, 9, 30]  # the wide head's two candidates, for two parts of the images
