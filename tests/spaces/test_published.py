"""Rule-based choices: the paper's own on its networks, the same positions on others."""

from __future__ import annotations

from support.published import SD15, SDXL, activations_of

from diffsift.backbones import PipelineBackbone
from diffsift.spaces import PAPER_SELECTIONS, older_practice, paper_choice


def test_the_papers_selection_on_its_own_networks() -> None:
    assert paper_choice(activations_of(SD15)) == PAPER_SELECTIONS["SD 1.5"]
    assert paper_choice(activations_of(SDXL)) == PAPER_SELECTIONS["SDXL"]


def test_the_older_practice_is_as_the_paper_describes_it() -> None:
    upsamplers = tuple(f"up-level{level}-upsampler-out" for level in range(3))
    assert older_practice(activations_of(SD15)) == (*upsamplers, "up-level3-repeat2-vit-out")
    assert older_practice(activations_of(SDXL)) == (*upsamplers[:2], "up-level2-repeat2-res-out")


def test_another_network_gets_the_same_positions(tiny_backbone: PipelineBackbone) -> None:
    known = tiny_backbone.activations()
    assert paper_choice(known) == (
        "up-level0-repeat1-vit-block0-cross-q",
        "up-level0-repeat1-res-out",
        "up-level1-repeat1-vit-block0-cross-q",
        "up-level1-repeat0-vit-block0-self-k",
    )
    assert older_practice(known) == ("up-level0-upsampler-out", "up-level1-repeat1-vit-out")


def test_without_an_up_stage_there_is_no_choice(tiny_backbone: PipelineBackbone) -> None:
    rest = [entry for entry in tiny_backbone.activations() if entry.stage != "up"]
    assert paper_choice(rest) == ()
    assert older_practice(rest) == ()
