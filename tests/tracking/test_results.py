"""The results of a study, written and read again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from diffsift.errors import StudyError
from diffsift.spaces import Candidate, Selection
from diffsift.tracking import (
    ActivationDecision,
    ActivationPicture,
    FinalRow,
    Outcome,
    PredictionPicture,
    ReportPictures,
    Reranked,
    SelectionFrequency,
    StudyResults,
    TrialRecord,
    Verdict,
    write_report,
)

SELECTION = Selection.of({Candidate("main", "mid-vit-out", 50): 1.0, Candidate("main", "up-vit-out", 100): 0.35})


def results() -> StudyResults:
    trial = TrialRecord("abc-0", 0, SELECTION, 0.5, (0.4, 0.6), 192, 0.02, "add", 0.25, {"main": 2})
    row = FinalRow("selection found", SELECTION, 0.5, 0.4, 0.6, 192, 2)
    outcome = Outcome(
        *("horses", "segmentation", "mean IoU", "p", "model", "data"),
        decisions=(ActivationDecision("mid-vit-out", "vit-out", "mid", None, 3, 192, 4, True, "kept"),),
        pool_size=2,
        trials=(trial,),
        table=(row, FinalRow("raw pixels", SELECTION, 0.1, 0.0, 0.2, 75, 0, 0.4, 0.3, 0.5, "note")),
        found=SELECTION,
        verdict=Verdict("Better.", "Use it.", ("It is.",)),
        warnings=("beware",),
        class_names=("background", "<horse>"),
        measures={"selection found": {"IoU of horse": float("nan")}},
        front=(trial,),
        reranked=(Reranked(SELECTION, 0, 0.5, 0.4, True),),
        stability=(SelectionFrequency("main", "mid-vit-out", 0.9),),
        protocol_fields={"task": "segmentation", "thresholds": [0.1]},
    )
    pixels = np.random.default_rng(0).integers(0, 256, (6, 7, 3), dtype=np.uint8)
    depth = np.full((6, 7), np.nan, np.float32)
    pictures = ReportPictures(
        image=pixels,
        activations=[ActivationPicture("mid-vit-out", 50, True, pixels[:2, :2])],
        predictions=[PredictionPicture(pixels, depth, depth + 1), PredictionPicture(pixels, depth, depth)],
    )
    return StudyResults(outcome, pictures, "tested")


def test_what_was_saved_is_read_again_and_gives_the_same_report(tmp_path: Path) -> None:
    before = results()
    digest = before.save(tmp_path / "new" / "horses.npz")
    after = StudyResults.load(tmp_path / "new" / "horses.npz", digest)
    assert str(after.outcome) == str(before.outcome)  # of numbers that are none too, which equal nothing
    assert after.tested == "tested"
    write_report(before.outcome, before.pictures, tmp_path / "before.html")
    write_report(after.outcome, after.pictures, tmp_path / "after.html")
    assert (tmp_path / "before.html").read_bytes() == (tmp_path / "after.html").read_bytes()


def test_changed_results_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "horses.npz"
    digest = results().save(file)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.raises(StudyError, match="were changed"):
        StudyResults.load(file, digest)
    file.unlink()
    with pytest.raises(StudyError, match="cannot be read: No such file"):
        StudyResults.load(file, digest)
