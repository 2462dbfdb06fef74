"""The verdict: one recommendation, and the comparisons behind it."""

from __future__ import annotations

from dataclasses import replace

from diffsift.evaluation import RowName, verdict_on
from diffsift.spaces import Candidate, Selection
from diffsift.tracking import FinalRow, Reranked, Verdict

A, B = (Candidate("main", name, 50) for name in "ab")
FOUND = FinalRow(RowName.FOUND, Selection.of([A, B]), 0.3, 0.25, 0.35, 16, 2)


def row(name: str, gain: float, *, channels: int = 8, noise: float = 0.01) -> FinalRow:
    return FinalRow(name, Selection.of([A]), 0.3 - gain, 0.2, 0.4, channels, 1, gain, gain - noise, gain + noise)


def test_a_verdict_names_every_row_that_is_ahead_and_the_best_of_them() -> None:
    table = [row("latents", -0.02), row("pixels", -0.05), row("older practice", 0.03), row("single", 0.005), FOUND]
    verdict = verdict_on(table)
    assert verdict.headline == "The selection found scores 0.300 [0.250, 0.350] on the sealed test split."
    assert verdict.recommendation == "Use pixels: it scores better with no more channels."
    assert verdict.evidence == (
        "It is behind pixels and latents; the best of them is pixels (-0.050 [-0.060, -0.040], 8 channels against 16).",
        "It is better than older practice (+0.030 [+0.020, +0.040]).",
        "It is not shown to be better than single (+0.005 [-0.005, +0.015], 8 channels against 16).",
    )
    assert str(verdict).startswith(f"{verdict.headline} {verdict.recommendation} It is behind")


def test_there_is_one_recommendation() -> None:
    larger = row("everything", -0.05, channels=400)
    assert verdict_on([larger, FOUND]).recommendation == (
        "Use everything, or the selection found where its size matters: it has 16 channels instead of 400."
    )
    close, wide = row("single", 0.005), row("older practice", 0.005, channels=99)
    assert verdict_on([close, wide, FOUND]).recommendation == "Use single: it is smaller and not shown to be worse."
    assert verdict_on([wide, row("pixels", 0.1), FOUND]).recommendation == "Use the selection found."
    assert verdict_on([larger, close, FOUND]).recommendation.startswith("Use everything")


def test_too_few_test_images_leave_the_recommendation_to_held_out_images() -> None:
    table = [row("pixels", -0.05), row("single", 0.005, channels=1), FOUND]

    def recommended(pixels: float, single: float, found: float, images: int = 3) -> str:
        held_out = {"pixels": pixels, "single": single, RowName.FOUND: found}
        verdict = verdict_on(table, few_images=images, held_out=held_out)
        assert any("behind pixels" in line for line in verdict.evidence)
        return verdict.recommendation

    assert recommended(0.2, 0.3, 0.4) == (
        "Use the selection found: 3 independent test images are too few to tell rows apart, and it is the best on "
        "held-out images."
    )
    assert recommended(0.5, 0.3, 0.4, images=1).startswith("Use pixels: 1 independent test image is too few")
    assert recommended(0.4, 0.4, 0.4).startswith("Use single: ")


def test_reranking_is_part_of_the_evidence() -> None:
    entries = [
        Reranked(FOUND.selection, 0, fast_score=0.4, slow_score=0.5, taken=True),
        Reranked(Selection.of([A]), 1, fast_score=0.5, slow_score=0.4, taken=False),
    ]
    assert verdict_on([FOUND], entries, "linear").evidence == (
        "It is the best of 2 distinct selections by the linear probe, and number 2 by the fast probe.",
    )
    agreed = [entries[0], replace(entries[1], fast_score=0.3)]
    assert verdict_on([FOUND], agreed, "mlp").evidence[0].endswith("and also the best by the fast probe.")


def test_a_verdict_comes_back_from_json_and_from_the_text_of_older_versions() -> None:
    verdict = verdict_on([row("pixels", 0.1), FOUND])
    assert Verdict.from_json(verdict.to_json()) == verdict
    old = Verdict.from_json("The selection found scores 0.3. It is better than pixels.")
    assert old.headline == "The selection found scores 0.3."
    assert old.evidence == ("It is better than pixels.",)
