"""The contract of samplers: ours, Optuna's, and the example's; ours also passes Optuna's own tests."""

from __future__ import annotations

import runpy
from collections.abc import Callable
from pathlib import Path

import pytest
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from support import ROOT, planted

from diffsift.errors import SpecificationError
from diffsift.search import SAMPLERS, SamplerKind, StudySpecification, SubsetGPSampler, register_sampler
from diffsift.testing.sampler import SamplerContract

EXAMPLE = ROOT / "examples" / "custom_sampler.py"


class TestSubsetGP(SamplerContract):
    kind = SAMPLERS["sift"]
    trials = 40


class TestTPE(SamplerContract):
    kind = SAMPLERS["tpe"]


class TestNSGA2(SamplerContract):
    kind = SAMPLERS["nsga2"]


class TestRandom(SamplerContract):
    kind = SAMPLERS["random"]


class TestCMAES(SamplerContract):
    kind = SAMPLERS["cmaes"]


class TestExample(SamplerContract):
    kind = SamplerKind(runpy.run_path(str(EXAMPLE))["Annealing"])


class TestSubsetGPByOptuna(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: SubsetGPSampler(planted.space(), seed=0)


def test_the_example_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert "on the sealed test split" in capsys.readouterr().out


def test_a_registered_sampler_is_a_value_of_the_specification() -> None:
    with pytest.raises(ValueError, match="must be 'sift', 'tpe', 'nsga2', 'cmaes'"):
        StudySpecification(name="s", sampler="registered")
    register_sampler("registered", SAMPLERS["random"].make, encoding="keys")
    assert StudySpecification(name="s", sampler="registered").sampler == "registered"
    assert SAMPLERS["registered"].encoding == "keys"
    with pytest.raises(SpecificationError, match="'tpe' is taken"):
        register_sampler("tpe", SAMPLERS["random"].make)
