"""Every objective of ours, and that of the example, passes the contract that third parties get."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
from support import ROOT

from diffsift.datasets import RenderedScenesSpecification
from diffsift.errors import SpecificationError
from diffsift.objectives import (
    OBJECTIVES,
    ClassificationSpecification,
    CorrespondenceSpecification,
    DepthSpecification,
    NormalsSpecification,
    Objective,
    OtherTaskSpecification,
    ProbeSpecification,
    TaskSpecification,
    make_objective,
)
from diffsift.specification import Specification
from diffsift.testing.objective import BANK, ObjectiveContract

SCENES = RenderedScenesSpecification(size=32, train=12, validation=8, test=5)
FURTHER = RenderedScenesSpecification(size=32, train=8, validation=0, test=4, seed=1)
TASKS: dict[str, Any] = {
    "segmentation": TaskSpecification(),
    "depth": DepthSpecification(kind="depth", score="abs-rel"),
    "normals": NormalsSpecification(kind="normals", score="within-22.5"),
    "classification": ClassificationSpecification(kind="classification"),
    "correspondence": CorrespondenceSpecification(kind="correspondence", resolution=6),
}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = ROOT / "examples" / "custom_objective.py"
    spec = importlib.util.spec_from_file_location("custom_objective", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestOurs(ObjectiveContract):
    @pytest.fixture(scope="class", params=TASKS)
    def make_objective(self, request: pytest.FixtureRequest) -> Callable[[], Objective]:
        task = TASKS[request.param]
        return lambda: OBJECTIVES[task.kind](SCENES, task, BANK, ProbeSpecification())


class TestSeveralDataSets(ObjectiveContract):
    @pytest.fixture(scope="class")
    def make_objective(self) -> Callable[[], Objective]:
        data = {"main": SCENES, "further": FURTHER}
        return lambda: make_objective(data, TASKS["segmentation"], BANK, ProbeSpecification())


class TestTheExample(ObjectiveContract):
    @pytest.fixture(scope="class")
    def make_objective(self, example: ModuleType) -> Callable[[], Objective]:
        task = OtherTaskSpecification(kind="pixel-accuracy")
        return lambda: example.PixelAccuracy(SCENES, task, BANK, ProbeSpecification())


def test_a_specification_names_the_example(example: ModuleType) -> None:
    values = {"model": {"id": "x"}, "data": {"kind": "rendered-scenes"}, "study": {"name": "x"}}
    specification = Specification.parse({**values, "task": {"kind": "pixel-accuracy"}})
    objective = make_objective(specification.data_sets, specification.task, BANK, specification.probe)
    assert isinstance(objective, example.PixelAccuracy)
    with pytest.raises(SpecificationError, match="'pixel-accuracy' has no reference probes"):
        objective.targets(objective.dataset.split("train")[0])
