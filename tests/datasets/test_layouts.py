"""Published layouts, each made in small by these tests, and what is said of mistakes in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from support import tiny
from support.layouts import (
    HEIGHT,
    MAKERS,
    WIDTH,
    ids,
    make_ade,
    make_cityscapes,
    make_classes,
    make_ddpm,
    make_depth,
    make_list,
    make_spair,
    make_voc,
    rebuilt,
    write_gray,
    write_image,
)
from typer.testing import CliRunner

from diffsift.cli.app import app
from diffsift.datasets import IGNORE, Dataset, class_folders, ddpm_segmentation, image_list, spair
from diffsift.errors import DataError, SpecificationError


@pytest.mark.parametrize("layout", MAKERS)
def test_splits_and_labels(layout: str, tmp_path: Path) -> None:
    make, counts, task = MAKERS[layout]
    data = make(tmp_path)
    assert data.task == task
    data.check()
    for split in ("train", "validation", "test"):
        samples = data.split(split)  # type: ignore[arg-type]
        assert len(samples) == counts.get(split, 0)
        for sample in samples:
            assert sample.image.shape == (HEIGHT, WIDTH, 3)
    names = [sample.name for split in counts for sample in data.split(split)]  # type: ignore[arg-type]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("layout", MAKERS)
def test_identity_is_the_content(layout: str, tmp_path: Path) -> None:
    make, _, _ = MAKERS[layout]
    first, second = make(tmp_path / "a"), make(tmp_path / "b")
    assert first.identity() == second.identity()
    image = next(
        file
        for file in sorted((tmp_path / "b").rglob("*"))
        if file.suffix in (".jpg", ".png") and "bel" not in str(file)
    )
    write_image(image, 99)
    assert rebuilt(layout, tmp_path / "b").identity() != first.identity()


def test_class_ids_are_those_of_each_set(tmp_path: Path) -> None:
    def column(data: Dataset) -> list[int]:
        return [int(value) for value in data.split("train")[0].label[:3, 0]]

    assert column(make_voc(tmp_path / "voc")) == [0, 20, IGNORE]
    assert column(make_ade(tmp_path / "ade")) == [IGNORE, 0, 149]
    assert column(make_cityscapes(tmp_path / "city")) == [0, 18, IGNORE]
    assert column(make_ddpm(tmp_path / "ddpm")) == [0, 20, IGNORE]
    assert column(make_list(tmp_path / "list")) == [0, 1, IGNORE]


def test_depth_is_in_metres_and_unknown_where_zero(tmp_path: Path) -> None:
    for sample in make_depth(tmp_path).split("train"):
        assert np.isnan(sample.label[0]).all()
        assert np.allclose(sample.label[1], 1.5)


def test_frames_of_a_sequence_are_a_group(tmp_path: Path) -> None:
    assert [sample.group for sample in make_cityscapes(tmp_path).split("train")] == [
        "aachen_000000",
        "aachen_000000",
        "aachen_000001",
    ]


def test_classes_are_folders(tmp_path: Path) -> None:
    data = make_classes(tmp_path)
    assert data.class_names == ("cat", "dog")
    assert [int(sample.label) for sample in data.split("test")] == [0, 1]
    undivided = class_folders(tmp_path / "train", (0.5, 0.0, 0.5), 0)
    assert len(undivided.split("train")) + len(undivided.split("test")) == 2


def test_keypoints_boxes_and_pairs(tmp_path: Path) -> None:
    data = make_spair(tmp_path)
    assert data.pairs("train") == [(0, 1)]
    sample = data.split("train")[0]
    assert np.allclose(sample.label[:2], [[0, 0], [0.5, 0.5]])
    assert np.isnan(sample.label[2]).all()
    assert sample.box == (0, 0, 0.5, 1)
    assert sample.prompt is None
    assert make_spair(tmp_path, category_prompt=True).split("train")[0].prompt == "a photo of a aeroplane"


def test_a_list_gives_prompts_and_class_names(tmp_path: Path) -> None:
    assert [sample.prompt for sample in make_list(tmp_path).split("train")] == ["scene 0", "scene 1"]
    rows = [{"image": f"a/{n}.png", "label": "ab"[n % 2], "split": ("train", "test")[n // 2]} for n in range(4)]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    data = image_list(tmp_path / "list.json", "classification", None, 255)
    assert data.class_names == ("a", "b")
    assert [int(sample.label) for sample in data.split("test")] == [0, 1]


def damage_voc(root: Path) -> None:
    (root / "SegmentationClass" / "2007_02.png").unlink()


def damage_ade(root: Path) -> None:
    write_gray(root / "annotations" / "training" / "ADE_train_1.png", ids(151))


def damage_city(root: Path) -> None:
    next((root / "gtFine").rglob("*_labelIds.png")).unlink()


def damage_ddpm(root: Path) -> None:
    np.save(root / "train" / "img_0.npy", np.array([[object()]]), allow_pickle=True)


def damage_depth(root: Path) -> None:
    np.save(root / "depth" / "0.npy", np.ones((3, 3)))


def damage_normals(root: Path) -> None:
    np.save(root / "normals" / "0.npy", np.ones((6, 8, 3)))


def damage_classes(root: Path) -> None:
    (root / "test" / "cat" / "2.jpg").write_bytes(b"no image")


def damage_spair(root: Path) -> None:
    (root / "Layout" / "large" / "trn.txt").write_text("000001:aeroplane\n")


def damage_list(root: Path) -> None:
    (root / "list.csv").write_text("image,label,splitt\na/0.png,b/0.png,train\n")


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "voc": (damage_voc, r"2007_02 .* must have the file .*2007_02.png"),
    "ade20k": (damage_ade, "must hold values from 0 to 150 .* holds 151"),
    "cityscapes": (damage_city, "must have the file .*_gtFine_labelIds.png"),
    "ddpm-segmentation": (damage_ddpm, "img_0.npy cannot be read as an array of numbers"),
    "depth-folder": (damage_depth, r"0.npy must be as large as its image 0.png \(8 x 6 px\), but is 3 x 3"),
    "normals-folder": (damage_normals, "0.npy must hold unit vectors, but most are of other lengths, 1.73 to 1.73"),
    "class-folders": (damage_classes, "2.jpg cannot be decoded"),
    "spair": (damage_spair, "must hold lines such as .* but holds '000001:aeroplane'"),
    "list": (damage_list, "the header must have image, label, split, but lacks split; did you mean 'split'"),
}


@pytest.mark.parametrize("layout", DAMAGES)
def test_what_is_wrong_is_named(layout: str, tmp_path: Path) -> None:
    MAKERS[layout][0](tmp_path)
    damage, message = DAMAGES[layout]
    damage(tmp_path)
    with pytest.raises(DataError, match=message):
        rebuilt(layout, tmp_path).check()


@pytest.mark.parametrize("layout", MAKERS)
def test_a_missing_folder_is_named(layout: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        rebuilt(layout, tmp_path / "nowhere").check()


def test_an_unknown_category_offers_the_closest(tmp_path: Path) -> None:
    make_spair(tmp_path)
    with pytest.raises(DataError, match="no category 'aeroplan'; did you mean 'aeroplane'"):
        spair(tmp_path, "large", "aeroplan", category_prompt=False).check()


def test_masks_in_a_list_need_classes(tmp_path: Path) -> None:
    with pytest.raises(SpecificationError, match=r"data\.classes must be given"):
        image_list(tmp_path / "list.csv", "segmentation", None, 255)


def test_a_group_in_two_splits_is_refused(tmp_path: Path) -> None:
    make_list(tmp_path)
    rows = [
        {"image": f"a/{n}.png", "label": "x", "split": split, "group": "g"} for n, split in ((0, "train"), (1, "test"))
    ]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="must keep a group in one split, but 'g' is in train and test"):
        image_list(tmp_path / "list.json", "classification", ["x", "y"], 255).check()


SPECIFIED: dict[str, dict[str, Any]] = {
    "ddpm-segmentation": {"classes": 21},
    "list": {"answers": "segmentation", "classes": ["sky", "sea"], "ignore": 9},
}


@pytest.mark.parametrize("layout", sorted(set(MAKERS) - {"spair"}))
def test_a_search_reads_them(layout: str, tiny_pipeline: Path, tmp_path: Path) -> None:
    make, _, task = MAKERS[layout]
    make(tmp_path / "data")
    values = tiny.specification(tiny_pipeline, tmp_path)
    place = {"file": "data/list.csv"} if layout == "list" else {"root": "data"}
    values["data"] = {"kind": layout, **place, **SPECIFIED.get(layout, {})}
    values["task"] = {"kind": task, "folds": 2}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(values))
    arguments = ["search", str(tmp_path / "search.yaml"), "--dry-run", "-w", str(tmp_path / "workspace")]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert "dry run" in result.output
    values["task"] = {"kind": "correspondence"}
    (tmp_path / "search.yaml").write_text(yaml.safe_dump(values))
    result = CliRunner().invoke(app, arguments)
    assert "needs data with labels for it" in " ".join(result.output.split())


def test_ignored_value_and_class_order_are_part_of_the_identity(tmp_path: Path) -> None:
    make_ddpm(tmp_path / "ddpm")
    assert ddpm_segmentation(tmp_path / "ddpm", 256 - 1, 255).identity() != (
        ddpm_segmentation(tmp_path / "ddpm", 256 - 1, 0).identity()
    )
    make_list(tmp_path)
    file = tmp_path / "list.csv"
    assert image_list(file, "segmentation", ("sky", "sea"), 9).identity() != (
        image_list(file, "segmentation", ("sea", "sky"), 9).identity()
    )


def test_too_many_classes_are_refused(tmp_path: Path) -> None:
    for number in range(256):
        (tmp_path / f"{number:03}").mkdir()
    with pytest.raises(DataError, match="at most 255 classes, but there are 256"):
        class_folders(tmp_path, (0.6, 0.0, 0.4), 0).check()
