"""The loop over the test split: what it keeps of feature maps, and in which order networks and batches come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffsift.backbones import (
    BackboneCache,
    FeatureMap,
    PipelineBackbone,
    PixelControl,
    activation_named,
    cache,
    load,
    on_cpu,
    whole_map,
)
from diffsift.backbones.specification import ModelSpecification
from diffsift.bank import Bank, BankSpecification
from diffsift.common.context import RunContext
from diffsift.datasets import RenderedScenesSpecification
from diffsift.extraction import Standardiser
from diffsift.objectives import (
    OBJECTIVES,
    ClassificationSpecification,
    CorrespondenceSpecification,
    DepthSpecification,
    FittedSelection,
    ProbeSpecification,
    TaskSpecification,
    _capturing,
    _test_loop,
)
from diffsift.objectives._capturing import CapturedMaps
from diffsift.spaces import Candidate, Selection, activations_by_timestep

NAMES = ("up-level1-repeat1-res-out", "up-level1-repeat1-vit-out")
CANDIDATES = [Candidate(backbone, name, t) for backbone in ("main", "random") for name in NAMES for t in (50, 300)]
PIXELS = Candidate("pixels", "pixels-5x5", 0)
ROWS = {
    "pixels": Selection.of([PIXELS]),
    "random": Selection.of(CANDIDATES[4:6]),
    "single": Selection.of(CANDIDATES[:1]),
    "everything": Selection.of([CANDIDATES[0], CANDIDATES[2]]),
    "found": Selection.of({CANDIDATES[0]: 0.4, CANDIDATES[3]: 1.0}),
}
BANK = BankSpecification(pixels_per_image=20, max_channels=6, fit_images=6)
SCENES = RenderedScenesSpecification(size=32, train=8, validation=0, test=5)
STATISTICS = Standardiser(torch.zeros(7), torch.ones(7), None)
TASKS: dict[str, Any] = {
    "segmentation": TaskSpecification(folds=2),
    "depth": DepthSpecification(kind="depth", folds=2),
    "classification": ClassificationSpecification(kind="classification", folds=2),
    "correspondence": CorrespondenceSpecification(kind="correspondence", resolution=5),
}


@pytest.fixture
def backbones(tiny_pipeline: Path) -> BackboneCache:
    found = BackboneCache()
    found.add("main", lambda: load(ModelSpecification(id=str(tiny_pipeline), device="cpu")))
    found.add_untrained("random", "main")
    found.add("pixels", lambda: PixelControl(found["main"]), beside="main")
    return found


def fitted(task: Any, folder: Path, backbones: BackboneCache, **probe: Any) -> tuple[Any, list[FittedSelection]]:
    """An objective, and the rows fitted on its development set."""
    objective = OBJECTIVES[task.kind](SCENES, task, BANK, ProbeSpecification(**{"regularisation": 0.01, **probe}))
    bank = Bank(folder, objective.load(), BANK, RunContext(batch_size=8))
    for backbone, known in backbones.each({"main", "random", "pixels"}):
        bank.fill(backbone, activations_by_timestep([*CANDIDATES, PIXELS], backbone.name, known))
    scorer = objective.probe(bank)
    return objective, [
        FittedSelection(name, selection, scorer.fit(selection), bank.standardisers(selection.candidates))
        for name, selection in ROWS.items()
    ]


class WholeMaps(CapturedMaps):
    """What is read is read from whole float32 maps on the CPU, after the pass."""

    def _passes(self, read: Any) -> Iterator[tuple[str, int, dict[str, Tensor]]]:
        for backbone, timestep, maps in super()._passes(lambda _, entry: whole_map(entry)):
            total: dict[str, Tensor] = {}
            for name, values in maps.items():
                activation = activation_named(name, self._backbones[backbone].activations())
                found = read(
                    Candidate(backbone, name, timestep), FeatureMap(activation, timestep, values, slice(0, len(values)))
                )
                for key, value in found.items() if isinstance(found, dict) else [(name, found)]:
                    total[key] = total[key] + value if key in total else value
            yield backbone, timestep, total


class Passes:
    """What runs: (backbone, timestep) once per image; and the shapes of what is copied to the CPU."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ran: list[tuple[str, int]] = []
        self.copied: list[tuple[int, ...]] = []
        denoise = PipelineBackbone.denoise

        def counted(backbone: PipelineBackbone, clean: Tensor, noise: Tensor, timestep: int, conditioning: Any) -> None:
            self.ran += [(backbone.name, timestep)] * len(clean)
            denoise(backbone, clean, noise, timestep, conditioning)

        def copied(found: dict[str, Tensor]) -> dict[str, Tensor]:
            self.copied += [tuple(tensor.shape) for tensor in found.values()]
            return on_cpu(found)

        monkeypatch.setattr(PipelineBackbone, "denoise", counted)
        monkeypatch.setattr(_capturing, "on_cpu", copied)


@pytest.mark.parametrize("kind", TASKS)
def test_results_are_those_of_whole_maps_none_of_which_is_kept(
    kind: str, tmp_path: Path, backbones: BackboneCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, rows = fitted(TASKS[kind], tmp_path, backbones)
    with monkeypatch.context() as patch:
        passes = Passes(patch)
        found = objective.test(rows, backbones, RunContext(batch_size=3))
    with monkeypatch.context() as patch:
        patch.setattr(_test_loop, "CapturedMaps", WholeMaps)
        expected = objective.test(rows, backbones, RunContext(batch_size=5))
    assert list(found.results) == list(ROWS) == list(found.measures)
    for name, results in expected.results.items():
        np.testing.assert_allclose(found.results[name], results, atol=1e-6)
    images = 4 if kind == "correspondence" else 5
    used = {(candidate.backbone, candidate.timestep) for row in rows for candidate in row.standardisers}
    assert Counter(passes.ran) == dict.fromkeys(used - {("pixels", 0)}, images)
    if kind in ("segmentation", "depth"):  # sums on native grids
        assert {shape[1] for shape in passes.copied} == {len(objective.class_names) or 1}
        # In each of two batches: one a timestep for random (2), found (2) and everything (1, of two candidates), ...
        assert len(passes.copied) == 2 * 7
    else:  # features at the locations of a grid, and at keypoints
        assert {shape[2] for shape in passes.copied} <= {6}
        assert len(passes.copied) == 2 * 6


def test_networks_come_one_after_another_and_those_in_memory_first(
    tmp_path: Path, backbones: BackboneCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    objective, rows = fitted(TASKS["segmentation"], tmp_path, backbones)
    expected = objective.test(rows, backbones, RunContext(batch_size=5))
    monkeypatch.setattr(cache, "free_memory", lambda device: 0)
    backbones.load("main")
    backbones._loaded.pop("random")
    backbones.load("random")  # in place of the model
    assert not backbones.in_memory("main")
    passes = Passes(monkeypatch)
    found = objective.test(rows, backbones, RunContext(batch_size=2))
    assert list(dict.fromkeys(name for name, _ in passes.ran)) == ["random", "main"]
    assert Counter(name for name, _ in passes.ran)["random"] == 2 * 5
    assert backbones.in_memory("main")
    assert not backbones.in_memory("random")
    assert list(found.results) == list(expected.results) == list(ROWS)
    assert [sample.name for sample in found.samples] == [sample.name for sample in expected.samples]
    assert found.groups == expected.groups
    for name, results in expected.results.items():
        np.testing.assert_allclose(found.results[name], results, atol=1e-6)


def test_selections_that_fuse_networks_join_those_of_each(backbones: BackboneCache) -> None:
    def row(name: str, *used: str) -> FittedSelection:
        candidates = [Candidate(backbone, "a", 0) for backbone in used]
        return FittedSelection(name, Selection.of(candidates), None, dict.fromkeys(candidates, STATISTICS))

    backbones.add("other", lambda: backbones["main"])
    rows = [row("1", "pixels"), row("2", "other"), row("3", "random"), row("4", "main"), row("5", "main", "other")]
    parts = [[entry.name for entry in part] for part in _test_loop._by_networks(rows, backbones)]
    assert parts == [["1", "2", "4", "5"], ["3"]]
    backbones.load("random")
    backbones._loaded.pop("main")
    parts = [[entry.name for entry in part] for part in _test_loop._by_networks(rows, backbones)]
    assert parts == [["3"], ["1", "2", "4", "5"]]
    backbones.load("main")  # together with random weights, "other" still apart
    parts = [[entry.name for entry in part] for part in _test_loop._by_networks(rows[:4], backbones)]
    assert parts == [["1", "3", "4"], ["2"]]


@pytest.mark.unchecked
def test_fewer_images_run_together_where_features_at_places_take_much_memory() -> None:
    candidates = [Candidate("main", name, t) for name in "abc" for t in (50, 300)]
    row = FittedSelection("row", Selection.of(candidates), None, dict.fromkeys(candidates, STATISTICS))
    loop = _test_loop.EvaluationLoop(None, None, None, sampled=1_000_000)  # type: ignore[arg-type]
    # Three candidates of 7 channels at a timestep, 4 bytes each: 84 MB an image.
    assert loop._images_together([row, row], 16) == 2
    assert loop._images_together([row, row], 1) == 1
    loop = _test_loop.EvaluationLoop(None, None, None)  # type: ignore[arg-type]
    assert loop._images_together([row, row], 16) == 16
