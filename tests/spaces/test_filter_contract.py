"""The contract of filters, met by all of ours and the example of the documentation; registered filters by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from support.examples import load_example

from diffsift.backbones import Activation
from diffsift.errors import SpecificationError
from diffsift.spaces import (
    FILTERS,
    Candidate,
    FilterSpecification,
    MeasuredFilter,
    NamePatternFilter,
    Properties,
    PropertyFilter,
    StructuralFilter,
    UsableFilter,
    apply_filters,
    register_filter,
)
from diffsift.testing.filter import FilterContract


class TestOurs(FilterContract):
    @pytest.fixture(
        params=[
            StructuralFilter,
            partial(UsableFilter, attention_maps=False),
            partial(NamePatternFilter, keep=("up-*", "mid-*"), drop=("*-increment",)),
        ]
    )
    def make_filter(self, request: pytest.FixtureRequest) -> Callable[[], PropertyFilter]:
        return request.param


class TestMeasured(FilterContract):
    @pytest.fixture
    def make_filter(self, catalogue: tuple[Activation, ...]) -> Callable[[], PropertyFilter]:
        clean = Properties(0.0, 1.0, 1.0, 0.1, 0.1, 1.0, 0.0)
        measured = {
            Candidate("main", entry.name, 50): replace(clean, diffusion_noise=number / len(catalogue))
            for number, entry in enumerate(catalogue)
        }
        return partial(MeasuredFilter, measured)


class TestExample(FilterContract):
    @pytest.fixture
    def make_filter(self) -> Callable[[], PropertyFilter]:
        filter_class: Any = load_example("custom_filter").NarrowFilter
        return filter_class

    def test_it_is_known_by_name_and_applied_after_the_rules(self, catalogue: tuple[Activation, ...]) -> None:
        class Later(PropertyFilter):
            def reasons(self, activations: Any) -> dict[str, str]:
                return {entry.name: "dropped later" for entry in activations if entry.kind in ("res-out", "cross-q")}

        register_filter("later", Later)
        asked = FilterSpecification(rules="structural", further=("later",))
        reasons = {decision.activation.name: decision.reason for decision in apply_filters(catalogue, asked)}
        assert reasons["down-level0-repeat0-res-out"] == "down-stage: diffusion noise not removed yet"
        assert reasons["up-level1-repeat0-vit-block0-cross-q"] == "dropped later"
        assert "later" in FILTERS.names()

    def test_it_runs(self, capsys: pytest.CaptureFixture[str]) -> None:
        load_example("custom_filter").main()
        assert "dropped: more than 640 channels" in capsys.readouterr().out


def test_a_name_that_is_not_registered_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be names of filters, structural.* \(register_filter"):
        FilterSpecification(further=("norrow",))
    with pytest.raises(SpecificationError, match="'structural' is taken"):
        register_filter("structural", UsableFilter)
