"""The measured filter: its threshold comes from the pool, and its reasons name what was measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from diffsift.backbones import Activation
from diffsift.spaces import (
    Candidate,
    FilterSpecification,
    MeasuredFilter,
    Properties,
    apply_filters,
    capacity,
    rules_for,
)

CLEAN = Properties(
    diffusion_noise=0.1,
    granularity=0.5,
    over_refinement=0.5,
    locality=0.1,
    position=0.1,
    increment_noise=0.5,
    outliers=0.0,
)
BLOCK = Activation("a", "block-out", "blocks", None, 0, 64, 2, "tokens", "a", repeat=0, repeats=1)


def named(count: int) -> list[Activation]:
    return [replace(BLOCK, name=f"block{number}") for number in range(count)]


def test_capacity_grows_with_channels_and_places_and_falls_with_each_property() -> None:
    base = capacity(BLOCK, CLEAN)
    assert capacity(replace(BLOCK, channels=128), CLEAN) == pytest.approx(2 * base)
    assert capacity(replace(BLOCK, stride=1), CLEAN) == pytest.approx(4 * base)
    for field in ("diffusion_noise", "locality", "position"):
        assert capacity(BLOCK, replace(CLEAN, **{field: 0.9})) < base / 2
    assert capacity(BLOCK, replace(CLEAN, diffusion_noise=1.0)) == 0
    assert capacity(BLOCK, replace(CLEAN, diffusion_noise=0.0)) < float("inf")


def test_the_best_three_of_ten_are_kept_whatever_their_level() -> None:
    activations = named(10)
    for level in (1.0, 0.01):
        found = {
            Candidate("main", entry.name, 50): replace(CLEAN, locality=1 - level * (1 - number / 10))
            for number, entry in enumerate(activations)
        }
        dropped = MeasuredFilter(found).reasons(activations)
        assert set(dropped) == {f"block{number}" for number in range(3, 10)}


def test_reasons_name_what_holds_an_activation_back() -> None:
    activations = named(4)
    changes = ({}, {"diffusion_noise": 0.98}, {"locality": 0.95}, {"position": 0.95})
    found = {
        Candidate("main", entry.name, 50): replace(CLEAN, **change)
        for entry, change in zip(activations, changes, strict=True)
    }
    dropped = MeasuredFilter(found).reasons(activations)
    assert [dropped[f"block{number}"].rpartition("its ")[2] for number in (1, 2, 3)] == [
        "diffusion noise",
        "locality",
        "position",
    ]


def test_auto_measures_where_the_rules_say_nothing() -> None:
    activations = named(4)
    auto = FilterSpecification()
    assert rules_for(activations, auto) == "measured"
    up = replace(BLOCK, name="up", stage="up", kind="cross-q", level=0)
    assert rules_for([*activations, up], auto) == "structural"
    assert rules_for(activations, FilterSpecification(rules="none")) == "none"


def test_measured_decisions_carry_their_reasons() -> None:
    activations = named(4)
    found = {
        Candidate("main", entry.name, 50): replace(CLEAN, diffusion_noise=0.2 + 0.2 * number)
        for number, entry in enumerate(activations)
    }
    decisions = apply_filters(activations, FilterSpecification(), MeasuredFilter(found))
    assert [decision.kept for decision in decisions] == [True, False, False, False]
    assert all("low capacity as measured" in decision.reason for decision in decisions[1:])
