"""Filters: the published pools are kept, every drop has its reason, patterns mean what they say."""

from __future__ import annotations

import csv
from dataclasses import replace
from typing import Any

import pytest
from support import ASSETS
from support.published import SD15, SDXL, activations_of

from diffsift.backbones import PipelineBackbone, in_scope
from diffsift.errors import SpecificationError
from diffsift.spaces import Decision, FilterSpecification, apply_filters, check_patterns, paper_choice

PUBLISHED = ASSETS / "published_pools.csv"


def published(backbone: str) -> set[str]:
    """Names of the pool that Meng et al. (NeurIPS 2024) were left with after their qualitative filtering."""
    with PUBLISHED.open(encoding="utf-8", newline="") as file:
        return {row["activation"] for row in csv.DictReader(file) if row["backbone"] == backbone}


def kept(decisions: tuple[Decision, ...]) -> set[str]:
    return {decision.activation.name for decision in decisions if decision.kept}


def decide(backbone: PipelineBackbone, **options: Any) -> tuple[Decision, ...]:
    return apply_filters(backbone.activations(), FilterSpecification(**options))


@pytest.mark.parametrize(
    ("backbone", "config", "pool", "ours"), [("sd-1.5", SD15, 33, 34), ("sdxl", SDXL, 63, 66)], ids=["SD 1.5", "SDXL"]
)
def test_the_structural_rules_keep_the_published_pools_and_few_more(
    backbone: str, config: dict[str, Any], pool: int, ours: int
) -> None:
    names = published(backbone)
    assert len(names) == pool
    known = in_scope(activations_of(config), "paper")
    found = kept(apply_filters(known, FilterSpecification()))
    assert found >= names
    assert len(found) == ours
    assert found >= set(paper_choice(known))


def test_every_drop_has_a_reason_and_no_kept_one_has(tiny_backbone: PipelineBackbone) -> None:
    decisions = decide(tiny_backbone)
    assert [decision.activation for decision in decisions] == list(tiny_backbone.activations())
    assert all(decision.kept == (decision.reason == "") for decision in decisions)
    reasons = {decision.activation.name: decision.reason for decision in decisions}
    assert reasons["down-level0-repeat0-res-out"] == "down-stage: diffusion noise not removed yet"
    assert reasons["up-level0-repeat0-vit-block0-ffn-inner"] == "increment: carries high-frequency noise"
    assert reasons["up-level1-repeat0-res-out"] == "last up level: diffusion noise comes back"
    assert "self-attention" in reasons["up-level0-repeat0-vit-block0-self-q"]


def test_without_rules_everything_is_kept(tiny_backbone: PipelineBackbone) -> None:
    assert all(decision.kept for decision in decide(tiny_backbone, rules="none", attention_maps=True))
    dropped = [entry for entry in decide(tiny_backbone, rules="none") if not entry.kept]
    assert {entry.activation.kind for entry in dropped} == {"self-map", "cross-map"}
    assert {entry.reason for entry in dropped} == {"attention map: filters.attention_maps is off"}


def test_what_cannot_be_captured_is_dropped_with_the_reason(tiny_backbone: PipelineBackbone) -> None:
    known = tiny_backbone.activations()
    broken = replace(known[0], unreadable="its module runs 0 times in a pass, not once")
    first, *_ = apply_filters((broken, *known[1:]), FilterSpecification(rules="none"))
    assert first.reason == "cannot be captured: its module runs 0 times in a pass, not once"


def test_patterns_keep_and_drop_by_name(tiny_backbone: PipelineBackbone) -> None:
    decisions = decide(tiny_backbone, rules="none", keep=("mid-*", "up-*-cross-q"), drop=("*-increment",))
    assert all(name.startswith("mid-") or name.endswith("cross-q") for name in kept(decisions))
    reasons = {decision.activation.name: decision.reason for decision in decisions}
    assert reasons["mid-repeat0-res-increment"] == "name matches '*-increment' of filters.drop"
    assert reasons["unet-in"] == "name matches no pattern of filters.keep"
    both = kept(decide(tiny_backbone, keep=("up-*-cross-q",)))
    assert both == {name for name in kept(decide(tiny_backbone)) if name.endswith("cross-q")}


def test_the_filter_named_first_gives_the_reason(tiny_backbone: PipelineBackbone) -> None:
    reasons = {d.activation.name: d.reason for d in decide(tiny_backbone, drop=("down-*",))}
    assert reasons["down-level0-repeat0-res-out"] == "name matches 'down-*' of filters.drop"


def test_filters_that_leave_nothing_say_what_dropped_how_many(tiny_backbone: PipelineBackbone) -> None:
    with pytest.raises(SpecificationError, match=r"must keep at least one .*\d+ x down-stage.*filters\.rules to none"):
        decide(tiny_backbone, keep=("down-*",))


@pytest.mark.parametrize("field", ["keep", "drop"])
def test_a_pattern_that_matches_nothing_offers_close_names(tiny_backbone: PipelineBackbone, field: str) -> None:
    names = [entry.name for entry in tiny_backbone.activations()]
    with pytest.raises(
        SpecificationError, match=rf"filters\.{field} .*'mid-vit-uot' matches none; did you mean 'mid-vit"
    ):
        check_patterns(names, FilterSpecification(**{field: ("mid-vit-uot",)}))


def test_a_pattern_may_be_meant_for_another_model(tiny_backbone: PipelineBackbone) -> None:
    names = [entry.name for entry in tiny_backbone.activations()]
    check_patterns([*names, "block3-attn-out"], FilterSpecification(drop=("*-attn-out", "down-*")))
    assert kept(decide(tiny_backbone, drop=("*-attn-out",))) == kept(decide(tiny_backbone))
