from __future__ import annotations

import base64
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from diffsift.errors import StudyError
from diffsift.spaces import Candidate, Selection
from diffsift.tracking import (
    ActivationDecision,
    ActivationPicture,
    FinalRow,
    Outcome,
    PredictionPicture,
    ReportPictures,
    TrialRecord,
    Verdict,
    write_report,
)

FOUND = Selection.of(
    {Candidate("main", "up-level1-repeat0-vit-out", 50): 1.0, Candidate("main", "mid-res-out", 200): 0.35}
)
ORDER = (
    "Verdict",
    "Final table",
    "The selection found",
    "Search",
    "Score against cost",
    "Filters",
    "What activations look like",
    "Predictions on test scenes",
    "How it was measured",
    "Use the selection",
)


def trial(number: int, score: float, proposed_by: str) -> TrialRecord:
    return TrialRecord(
        f"uid-{number}", number, FOUND, score, (score, score), 100 + 46 * number, 0.02, proposed_by, 0.25 * (1 + number)
    )


def outcome() -> Outcome:
    return Outcome(
        study="<script>alert('study')</script>",
        task="segmentation",
        metric="mean IoU",
        protocol="Ridge probe, 5 folds by image.",
        model="demo & friends",
        data="rendered scenes",
        decisions=(
            ActivationDecision("mid-res-out", "res-out", "mid", None, 9, 128, 4, True, "kept"),
            ActivationDecision("down-res-out", "res-out", "down", 0, 1, 32, 1, False, "down stage"),
            ActivationDecision("up-res-out", "res-out", "up", 0, 12, 64, 2, False, "down stage"),
            ActivationDecision("up-self-k", "self-k", "up", 1, 14, 64, 2, False, "self-k is $x$ <noise>"),
        ),
        pool_size=40,
        trials=(trial(0, 0.1, "warm start"), trial(2, 0.18, "tpe $a_$"), trial(1, 0.2, "random")),
        table=(
            FinalRow("found", FOUND, 0.25, 0.23, 0.27, 192, 2, note="equal weights"),
            FinalRow("raw $pixels$", FOUND, 0.07, 0.06, 0.08, 75, 0, 0.18, 0.15, 0.21),
            FinalRow("older practice", FOUND, 0.26, 0.2, 0.3, 128, 1, -0.01, -0.03, 0.01),
        ),
        found=FOUND,
        verdict=Verdict("Scores 0.3.", "Use <older practice>.", ("It is behind <older practice>.",)),
        warnings=("up-x was dropped: NaN",),
        credits=("Photograph by A. Author",),
        class_names=("background", "cube"),
        front=(trial(0, 0.1, "warm start"), trial(1, 0.2, "random")),
        front_costs=("channels", "operations"),
    )


def pictures() -> ReportPictures:
    image = np.random.default_rng(0).random((8, 8, 3))
    rgb = (image * 255).astype(np.uint8)
    label = np.zeros((8, 8), np.uint8)
    label[:2], label[-1] = 1, 255
    return ReportPictures(
        image,
        [ActivationPicture("mid-res-out", 50, True, rgb), ActivationPicture("down-res-out", 50, False, rgb)],
        [PredictionPicture(image, label, np.ones((8, 8), np.int64))],
    )


class Page(HTMLParser):
    """Collects headings and attributes, and checks that elements are closed in order."""

    VOID = frozenset({"meta", "img", "source", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[str] = []
        self.images: list[dict[str, str | None]] = []
        self.tags: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        if tag == "img":
            self.images.append(dict(attrs))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "reports" / "report.html"
    write_report(outcome(), pictures(), path)
    assert [entry.name for entry in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_sections_come_in_order_and_the_page_is_well_formed(text: str) -> None:
    page = Page(text)
    assert tuple(page.headings) == ORDER
    assert page.open == []


def test_nothing_is_loaded_and_nothing_runs(text: str) -> None:
    page = Page(text)
    assert not page.tags & {"script", "link", "iframe"}
    assert re.findall(r"(?:https?:)?//\w", re.sub(r"data:image/png;base64,[\w+/=]+", "", text)) == []
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.images)
    assert all(image["alt"] for image in page.images)


def test_what_others_named_is_escaped(text: str) -> None:
    assert "<script>" not in text
    assert "&lt;script&gt;alert(&#39;study&#39;)&lt;/script&gt;" in text
    assert "<strong>Use &lt;older practice&gt;.</strong>" in text
    assert "self-k is $x$ &lt;noise&gt;" in text


def test_figures_of_the_outcome(text: str) -> None:
    assert "<b>2</b>down stage" in text
    assert "1 of 4 activations were kept" in text
    assert "\N{MINUS SIGN}0.010" in text
    assert "+0.180" in text
    assert "ends at 0.200 in trial 1" in text
    assert "Photograph by A. Author" in text
    assert "up-x was dropped: NaN" in text
    assert 'FeatureExtractor.from_selection("selection.json")' in text
    assert text.count("<details>") == 3


def test_the_front_is_drawn_against_each_cost_and_listed(text: str) -> None:
    section = text[text.index("Score against cost") : text.index("Filters")]
    assert section.count("<figure>") == 2
    assert "score and channels, operations at once" in section
    assert section.count("mid-res-out@200") == 2
    assert ">146<" in section
    assert ">0.50<" in section


def test_the_strongest_other_row_is_in_the_headline(text: str) -> None:
    headline = text[text.index("Strongest other") : text.index("Trials")]
    assert "older practice" in headline
    assert "0.260" in headline


def test_ignored_places_are_grey_in_label_and_prediction(text: str) -> None:
    page = Page(text)
    for part in ("Labels of", "Prediction for"):
        source = next(str(image["src"]) for image in page.images if str(image["alt"]).startswith(part))
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1]))))
        assert pixels.shape == (8, 8, 3)
        assert (pixels[-1] == 128).all()
        assert not (pixels[0] == 128).all()
    assert "ignored" in text
    assert "cube" in text


def test_normals_are_colours_and_grey_where_unknown(tmp_path: Path) -> None:
    label = np.zeros((4, 4, 3), np.float32)
    label[..., 2] = 1
    label[1], label[2] = [-1, 0, 0], np.nan
    shown = [PredictionPicture(np.zeros((4, 4, 3), np.uint8), label, -np.nan_to_num(label))]
    write_report(outcome(), ReportPictures(predictions=shown), tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    drawn = []
    for part in ("Labels of", "Prediction for"):
        source = next(str(image["src"]) for image in page.images if str(image["alt"]).startswith(part))
        drawn.append(np.array(Image.open(io.BytesIO(base64.b64decode(source.split(",")[1])))))
    assert drawn[0][:3, 0].tolist() == [[128, 128, 255], [0, 128, 128], [128, 128, 128]]
    assert drawn[1][:2, 0].tolist() == [[128, 128, 0], [255, 128, 128]]


def test_empty_parts_are_left_out(tmp_path: Path) -> None:
    base = outcome()
    bare = Outcome("s", "t", "m", "p", "model", "data", (), 0, (), (), base.found, Verdict("Nothing was tried.", ""))
    write_report(bare, ReportPictures(), tmp_path / "report.html")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert tuple(page.headings) == (*ORDER[:4], ORDER[5], *ORDER[8:])
    assert page.images == []


def test_a_picture_of_the_wrong_shape_and_a_folder_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"shape \(height, width, 3\)"):
        write_report(outcome(), ReportPictures(image=np.zeros((8, 8))), tmp_path / "report.html")
    (tmp_path / "file").write_text("")
    with pytest.raises(StudyError, match="cannot be written"):
        write_report(outcome(), pictures(), tmp_path / "file" / "report.html")
