"""Every probe of ours, and that of the example, passes the contract that third parties get."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from types import ModuleType

import pytest
from support import ROOT

from diffsift.bank import BankView
from diffsift.errors import SpecificationError
from diffsift.objectives import PROBES, Probe, ProbeSpecification
from diffsift.objectives.metrics import Accuracy
from diffsift.objectives.probes import (
    ClassReadout,
    DepthReadout,
    MultiDatasetProbe,
    NormalsReadout,
    Readout,
    fast_probe,
)
from diffsift.specification import Specification
from diffsift.testing.probe import ProbeContract
from diffsift.testing.synthetic import SyntheticBank

READOUTS: dict[str, Readout] = {
    "segmentation": ClassReadout(),
    "depth": DepthReadout("rmse", aligned=False),
    "normals": NormalsReadout("mean-angle"),
    "classification": ClassReadout(Accuracy()),
}


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = ROOT / "examples" / "custom_probe.py"
    spec = importlib.util.spec_from_file_location("custom_probe", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("task", READOUTS)
class TestOurs(ProbeContract):
    @pytest.fixture(params=["ridge", "knn"])
    def make_probe(self, request: pytest.FixtureRequest, task: str) -> Callable[[BankView], Probe]:
        specification = ProbeSpecification(kind=request.param, regularisation=1e-3)
        return lambda bank: fast_probe(bank, specification, READOUTS[task])

    @pytest.fixture
    def bank(self, task: str) -> BankView:
        return SyntheticBank(task)  # type: ignore[arg-type]


class TestSeveralDataSets(ProbeContract):
    @pytest.fixture
    def make_probe(self) -> Callable[[BankView], Probe]:
        def make(bank: BankView) -> Probe:
            banks = (bank, SyntheticBank(images=18, seed=1))
            return MultiDatasetProbe([fast_probe(entry, ProbeSpecification()) for entry in banks])

        return make


class TestTheExample(ProbeContract):
    @pytest.fixture
    def make_probe(self, example: ModuleType) -> Callable[[BankView], Probe]:
        specification = ProbeSpecification(kind="nearest-mean")
        return lambda bank: fast_probe(bank, specification, ClassReadout())


def test_a_specification_names_the_example(example: ModuleType) -> None:
    values = {"model": {"id": "x"}, "data": {"kind": "rendered-scenes"}, "study": {"name": "x"}}
    probe = Specification.parse({**values, "probe": {"kind": "nearest-mean", "options": {"a": 1}}}).probe
    assert PROBES[probe.kind] is example.NearestMean
    assert str(probe) == "nearest-mean probe (a 1), balance 1"
    with pytest.raises(SpecificationError, match=r"probe\.kind must be one of ridge, knn"):
        Specification.parse({**values, "probe": {"kind": "furthest-mean"}})


def test_a_probe_without_options_has_the_identity_it_had_before_there_were_any() -> None:
    assert set(ProbeSpecification().model_dump()) == {"kind", "regularisation", "balance", "neighbours", "exemplars"}
    assert ProbeSpecification(kind="ridge", options={"a": 1}).model_dump()["options"] == {"a": 1}
