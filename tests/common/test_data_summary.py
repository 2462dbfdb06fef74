"""The record of what a data set holds, in words and as JSON."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from diffsift.common.data_summary import DataSummary, SplitSummary

SPLIT = SplitSummary(
    "train",
    images=12,
    groups=4,
    smallest=(16, 24),
    largest=(32, 40),
    classes={"sky": 0.25, "sea": 0.7496, "sand": 0.0004},
    excluded=0.1,
)


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (SplitSummary("test", 1), "test: 1 image"),
        (SplitSummary("test", 3, groups=3), "test: 3 images"),
        (SplitSummary("test", 3, groups=1, pairs=2), "test: 3 images in 1 group (2 pairs)"),
        (
            SPLIT,
            "train: 12 images in 4 groups; 24 x 16 to 40 x 32 px; sky 25.0 %, sea 75.0 %, sand < 0.1 %; ignored 10.0 %",
        ),
        (
            replace(SPLIT, classes={}, depth=(0.51, 2.0, 80.0), largest=(16, 24)),
            "train: 12 images in 4 groups; 24 x 16 px; depth 0.51 to 80 m, typically 2 m; unknown 10.0 %",
        ),
        (replace(SPLIT, classes={}, excluded=0.0), "train: 12 images in 4 groups; 24 x 16 to 40 x 32 px"),
    ],
)
def test_a_split_in_words(split: SplitSummary, words: str) -> None:
    assert str(split) == words


def test_of_many_classes_the_largest_and_the_rarest_are_shown() -> None:
    shares = {f"class {number}": number / 4950 for number in range(100)}
    words = str(SplitSummary("train", 5, classes=shares))
    assert words.startswith("train: 5 images; class 99 2.0 %, class 98 2.0 %, ")
    assert words.endswith("class 93 1.9 % and 93 more classes down to class 0 0.0 %")


def test_a_data_set_in_lines_and_as_json() -> None:
    summary = DataSummary((SPLIT, SplitSummary("test", 3)), ("2 .tif files (images/a.tif, images/b.tif)", "1 folder"))
    assert summary.lines == [
        str(SPLIT),
        "test: 3 images",
        "left out: 2 .tif files (images/a.tif, images/b.tif); 1 folder",
    ]
    assert [line.partition(": ")[0] for line in replace(summary, name="night").lines] == ["night"] * 3
    loaded = json.loads(json.dumps(summary.to_json()))
    assert loaded["splits"][0]["classes"] == dict(SPLIT.classes)
    assert loaded["left_out"] == list(summary.left_out)
