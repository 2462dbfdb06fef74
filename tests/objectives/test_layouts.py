"""Published layouts, each made in small by these tests, and what is said of mistakes in them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import yaml
from PIL import Image
from typer.testing import CliRunner

from diffsift.cli import app
from diffsift.errors import DataError, SpecificationError
from diffsift.objectives.datasets import (
    IGNORE,
    Dataset,
    ade20k,
    cityscapes,
    class_folders,
    ddpm_segmentation,
    depth_folder,
    listed,
    spair,
    voc,
)

HEIGHT, WIDTH = 6, 8


def write_image(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)).save(path)
    return path


def write_gray(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)
    return path


def ids(*values: int, dtype: Any = np.uint8) -> np.ndarray:
    """A label whose rows hold these values in turn."""
    return np.array([values[row % len(values)] for row in range(HEIGHT)], dtype)[:, None].repeat(WIDTH, 1)


def make_voc(root: Path) -> Dataset:
    for split, stems in {"train": ["2007_01", "2007_02"], "val": ["2008_01"]}.items():
        for number, stem in enumerate(stems):
            write_image(root / "JPEGImages" / f"{stem}.jpg", number)
            palette = Image.fromarray(ids(0, 20, 255), mode="P")
            palette.putpalette(list(range(256)) * 3)
            (root / "SegmentationClass").mkdir(exist_ok=True)
            palette.save(root / "SegmentationClass" / f"{stem}.png")
        lists = root / "ImageSets" / "Segmentation"
        lists.mkdir(parents=True, exist_ok=True)
        (lists / f"{split}.txt").write_text("\n".join(stems) + "\n")
    return voc(root)


def make_ade(root: Path) -> Dataset:
    for split, stems in {"training": ["ADE_train_1"], "validation": ["ADE_val_1"]}.items():
        for stem in stems:
            write_image(root / "images" / split / f"{stem}.jpg")
            write_gray(root / "annotations" / split / f"{stem}.png", ids(0, 1, 150))
    return ade20k(root)


def make_cityscapes(root: Path) -> Dataset:
    frames = {"train": ["aachen_000000_000019", "aachen_000000_000020", "aachen_000001_000019"], "val": ["bonn_0_1"]}
    for split, stems in frames.items():
        for stem in stems:
            city = stem.split("_")[0]
            write_image(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
            write_gray(root / "gtFine" / split / city / f"{stem}_gtFine_labelIds.png", ids(7, 33, 0))
    return cityscapes(root)


def make_ddpm(root: Path) -> Dataset:
    for split, count in {"train": 2, "test": 1}.items():
        for number in range(count):
            image = write_image(root / split / f"img_{number}.png", number)
            np.save(image.with_suffix(".npy"), ids(0, 20, 255, dtype=np.int64))
    return ddpm_segmentation(root, 21, 255)


def make_depth(root: Path) -> Dataset:
    for number in range(5):
        write_image(root / "images" / f"{number}.png", number)
        (root / "depth").mkdir(exist_ok=True)
        if number % 2:
            write_gray(root / "depth" / f"{number}.png", ids(0, 1500, dtype=np.uint16))
        else:
            np.save(root / "depth" / f"{number}.npy", ids(0, 1, dtype=np.float32) * np.float32(1.5))
    return depth_folder(root, (0.6, 0.0, 0.4), 0)


def make_classes(root: Path) -> Dataset:
    for split, number in (("train", 0), ("val", 1), ("test", 2)):
        for name in ("cat", "dog"):
            write_image(root / split / name / f"{number}.jpg", number)
    return class_folders(root, (0.6, 0.0, 0.4), 0)


def make_spair(root: Path, **options: Any) -> Dataset:
    points = {"0": [0, 0], "1": [4, 3], "2": None}
    for stem in ("2008_01", "2008_02"):
        write_image(root / "JPEGImages" / "aeroplane" / f"{stem}.jpg")
        annotation = {"image_width": WIDTH, "image_height": HEIGHT, "kps": points, "bndbox": [0, 0, 4, 6]}
        file = root / "ImageAnnotation" / "aeroplane" / f"{stem}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(annotation))
    (root / "Layout" / "large").mkdir(parents=True, exist_ok=True)
    for split, text in {"trn": "000001-2008_01-2008_02:aeroplane\n", "val": "", "test": ""}.items():
        (root / "Layout" / "large" / f"{split}.txt").write_text(text)
    return spair(root, "large", options.pop("category", None), category_prompt=options.pop("category_prompt", False))


def make_list(root: Path) -> Dataset:
    rows = []
    for number, split in enumerate(("train", "train", "validation", "test")):
        write_image(root / "a" / f"{number}.png", number)
        write_gray(root / "b" / f"{number}.png", ids(0, 1, 9))
        rows.append(
            {"image": f"a/{number}.png", "label": f"b/{number}.png", "split": split, "prompt": f"scene {number}"}
        )
    with (root / "list.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return listed(root / "list.csv", "segmentation", ("sky", "sea"), 9)


MAKERS: dict[str, tuple[Callable[[Path], Dataset], dict[str, int], str]] = {
    "voc": (make_voc, {"train": 2, "test": 1}, "segmentation"),
    "ade20k": (make_ade, {"train": 1, "test": 1}, "segmentation"),
    "cityscapes": (make_cityscapes, {"train": 3, "test": 1}, "segmentation"),
    "ddpm-segmentation": (make_ddpm, {"train": 2, "test": 1}, "segmentation"),
    "depth-folder": (make_depth, {"train": 3, "test": 2}, "depth"),
    "class-folders": (make_classes, {"train": 2, "validation": 2, "test": 2}, "classification"),
    "spair": (make_spair, {"train": 2}, "correspondence"),
    "list": (make_list, {"train": 2, "validation": 1, "test": 1}, "segmentation"),
}


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


def rebuilt(layout: str, root: Path) -> Dataset:
    """The data set as it lies there, without making it anew."""
    return {
        "voc": lambda: voc(root),
        "ade20k": lambda: ade20k(root),
        "cityscapes": lambda: cityscapes(root),
        "ddpm-segmentation": lambda: ddpm_segmentation(root, 21, 255),
        "depth-folder": lambda: depth_folder(root, (0.6, 0.0, 0.4), 0),
        "class-folders": lambda: class_folders(root, (0.6, 0.0, 0.4), 0),
        "spair": lambda: spair(root, "large", None, category_prompt=False),
        "list": lambda: listed(root / "list.csv", "segmentation", ("sky", "sea"), 9),
    }[layout]()


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
    assert make_spair(tmp_path, category_prompt=True).split("train")[0].prompt == "a photo of an aeroplane"


def test_a_list_gives_prompts_and_class_names(tmp_path: Path) -> None:
    assert [sample.prompt for sample in make_list(tmp_path).split("train")] == ["scene 0", "scene 1"]
    rows = [{"image": f"a/{n}.png", "label": "ab"[n % 2], "split": ("train", "test")[n // 2]} for n in range(4)]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    data = listed(tmp_path / "list.json", "classification", None, 255)
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
    "class-folders": (damage_classes, "2.jpg cannot be decoded"),
    "spair": (damage_spair, "must hold lines such as .* but holds '000001:aeroplane'"),
    "list": (damage_list, "row 1 must have image, label, split, but lacks split"),
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
        listed(tmp_path / "list.csv", "segmentation", None, 255)


def test_a_group_in_two_splits_is_refused(tmp_path: Path) -> None:
    make_list(tmp_path)
    rows = [
        {"image": f"a/{n}.png", "label": "x", "split": split, "group": "g"} for n, split in ((0, "train"), (1, "test"))
    ]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    with pytest.raises(DataError, match="must keep a group in one split, but 'g' is in train and test"):
        listed(tmp_path / "list.json", "classification", ["x", "y"], 255).check()


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
    assert "needs data with answers to it" in " ".join(result.output.split())


def test_ignored_value_and_class_order_are_part_of_the_identity(tmp_path: Path) -> None:
    make_ddpm(tmp_path / "ddpm")
    assert ddpm_segmentation(tmp_path / "ddpm", 256 - 1, 255).identity() != (
        ddpm_segmentation(tmp_path / "ddpm", 256 - 1, 0).identity()
    )
    make_list(tmp_path)
    file = tmp_path / "list.csv"
    assert listed(file, "segmentation", ("sky", "sea"), 9).identity() != (
        listed(file, "segmentation", ("sea", "sky"), 9).identity()
    )


def test_too_many_classes_are_refused(tmp_path: Path) -> None:
    for number in range(256):
        (tmp_path / f"{number:03}").mkdir()
    with pytest.raises(DataError, match="at most 255 classes, but there are 256"):
        class_folders(tmp_path, (0.6, 0.0, 0.4), 0).check()
