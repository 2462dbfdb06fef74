"""What the readers of published layouts accept, mask and refuse, each on a small set with one thing wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import tiny
from support.layouts import (
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
from support.reporters import Recorder

import diffsift
from diffsift import Specification
from diffsift.datasets import Dataset, class_folders, ddpm_segmentation, depth_folder, image_list
from diffsift.datasets.layout_specifications import DdpmSegmentationSpecification, SpairSpecification
from diffsift.errors import DataError, SpecificationError
from diffsift.runs.plan import plan

SHARES = (0.6, 0.0, 0.4)


def sizes(data: Dataset) -> dict[str, int]:
    return {split: len(data.split(split)) for split in ("train", "validation", "test")}  # type: ignore[arg-type]


def images_of(root: Path, *folders: str) -> None:
    for number, folder in enumerate(folders):
        write_image(root / folder / f"{number}.png", number)


# Published splits


@pytest.mark.parametrize(("make", "train", "test"), [(make_voc, 2, 1), (make_ade, 2, 1), (make_cityscapes, 3, 1)])
def test_the_published_training_images_are_searched_on_and_the_validation_images_sealed(
    make: Any, train: int, test: int, tmp_path: Path
) -> None:
    data = make(tmp_path)
    assert sizes(data) == {"train": train, "validation": 0, "test": test}
    names = {split: " ".join(sample.name for sample in data.split(split)) for split in ("train", "test")}
    published = {
        make_voc: ("2007_01 2007_02", "2008_01"),
        make_ade: ("training/ADE_train_1 training/ADE_train_2", "validation/ADE_val_1"),
        make_cityscapes: (
            "train/aachen_000000_000019 train/aachen_000000_000020 train/aachen_000001_000019",
            "val/bonn_0_1",
        ),
    }
    assert (names["train"], names["test"]) == published[make]


def test_train_and_val_without_test_seal_val(tmp_path: Path) -> None:
    images_of(tmp_path, "train/cat", "train/dog", "val/cat", "val/dog", "val/dog")
    data = class_folders(tmp_path, SHARES, 0)
    data.check()
    assert sizes(data) == {"train": 2, "validation": 0, "test": 3}


@pytest.mark.parametrize("alone", ["train", "test", "val"])
def test_one_split_folder_alone_is_told(alone: str, tmp_path: Path) -> None:
    images_of(tmp_path, f"{alone}/cat", f"{alone}/dog")
    with pytest.raises(DataError, match=f"must hold train and test, or train and val, .* but of these holds {alone}"):
        class_folders(tmp_path, SHARES, 0).check()


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    images_of(tmp_path, *["bus", "train"] * 6)
    data = class_folders(tmp_path, (0.5, 0.0, 0.5), 0)
    assert data.class_names == ("bus", "train")
    data.check()


# Class folders


def test_a_class_folder_without_images_is_refused(tmp_path: Path) -> None:
    make_classes(tmp_path)
    (tmp_path / "train" / "cat" / "0.jpg").unlink()
    with pytest.raises(DataError, match="train/cat must hold images"):
        rebuilt("class-folders", tmp_path).check()


def test_a_class_without_training_images_is_refused(tmp_path: Path) -> None:
    make_classes(tmp_path)
    write_image(tmp_path / "test" / "owl" / "0.png")
    with pytest.raises(DataError, match=r"'owl' has one in test alone \(.*owl/0.png\)"):
        rebuilt("class-folders", tmp_path).check()


# Lists


@pytest.mark.parametrize("classes", [None, 2])
def test_an_integer_label_of_zero_is_a_label(classes: int | None, tmp_path: Path) -> None:
    images_of(tmp_path, *["a"] * 4)
    rows = [{"image": f"a/{n}.png", "label": n % 2, "split": ("train", "test")[n // 2]} for n in range(4)]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    data = image_list(tmp_path / "list.json", "classification", classes)
    data.check()
    assert [int(sample.label) for sample in data.split("train")] == [0, 1]


def test_numbers_as_class_names_are_in_their_order(tmp_path: Path) -> None:
    rows = [{"image": "x.png", "label": label, "split": "train"} for label in (10, 9, 100)]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    assert image_list(tmp_path / "list.json", "classification", None).class_names == ("9", "10", "100")


def test_a_class_id_beyond_the_classes_is_refused(tmp_path: Path) -> None:
    images_of(tmp_path, "a")
    (tmp_path / "list.json").write_text(json.dumps([{"image": "a/0.png", "label": 2, "split": "train"}]))
    with pytest.raises(DataError, match="must have one of the classes as label, but has '2'"):
        image_list(tmp_path / "list.json", "classification", 2).check()


def test_a_list_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes("image,label,split\na/0.png,Käfer,train\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"list.csv must be UTF-8, but byte 27 is not"):
        image_list(tmp_path / "list.csv", "classification", ["x", "y"]).check()


def test_a_split_list_that_is_not_utf8_is_told(tmp_path: Path) -> None:
    make_voc(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_bytes(b"2008\xe9")
    with pytest.raises(DataError, match=r"val.txt must list the images of a split in UTF-8"):
        rebuilt("voc", tmp_path).check()


def test_a_quoted_line_break_belongs_to_its_field(tmp_path: Path) -> None:
    images_of(tmp_path, "a", "a")
    lines = ["image,label,split,prompt", 'a/0.png,x,train,"a bird,\r\na\x85tree"', "a/1.png,y,train,a dog"]
    (tmp_path / "list.csv").write_bytes("\n".join(lines).encode())
    data = image_list(tmp_path / "list.csv", "classification", None)
    assert [sample.prompt for sample in data.split("train")] == ["a bird,\r\na\x85tree", "a dog"]
    (tmp_path / "list.csv").write_bytes("\n".join([*lines, "a/2.png,x,train,a dog, a cat"]).encode())
    with pytest.raises(DataError, match=r"row 3 \(it ends in line 5\) must have 4 fields"):
        image_list(tmp_path / "list.csv", "classification", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the header must have image, label, split, but lacks image, label, split"),
        ("image;label;split\n", "fields are parted by commas"),
        ("image,label,split,split\n", "the header must name each column once"),
        ("image,label,split\n", "must list at least one image"),
        ("image,label,split\na.png,,train\n", "row 1 must have image, label, split, but lacks label"),
        ('image,label,split\na.png,"x,train\n', "cannot be parsed"),
    ],
)
def test_mistakes_in_a_csv_are_told(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        image_list(tmp_path / "list.csv", "classification", ["x", "y"]).check()


@pytest.mark.parametrize("label", [[1], 0.5, True])
def test_a_label_in_json_is_text_or_a_whole_number(label: Any, tmp_path: Path) -> None:
    (tmp_path / "list.json").write_text(json.dumps([{"image": "a.png", "label": label, "split": "train"}]))
    with pytest.raises(DataError, match="row 1 must hold texts or whole numbers, but label is"):
        image_list(tmp_path / "list.json", "classification", ["x", "y"]).check()


# Depth


def test_a_search_says_what_is_masked(tiny_pipeline: Path, tmp_path: Path) -> None:
    make_depth(tmp_path / "data")
    values = tiny.specification(tiny_pipeline, tmp_path)
    values["data"] = {"kind": "depth-folder", "root": str(tmp_path / "data")}
    values["task"] = {"kind": "depth", "folds": 2}
    recorder = Recorder()
    plan(Specification.parse(values), workspace=tmp_path / "workspace", reporter=recorder)
    assert recorder.lines[0].endswith("train: 3 images; 8 x 6 px; depth 1.5 to 1.5 m, typically 1.5 m; unknown 50.0 %")


@pytest.mark.parametrize(
    ("lost", "message"),
    [
        ("depth/0.npy", r"an image must have a .png or .npy file in .*depth of the same stem, .* none: 0.png"),
        ("images/0.png", r"file in .*depth must have an image in .*images of the same stem, .* none: 0.npy"),
    ],
)
def test_a_missing_half_of_a_pair_is_named(lost: str, message: str, tmp_path: Path) -> None:
    make_depth(tmp_path)
    (tmp_path / lost).unlink()
    with pytest.raises(DataError, match=message):
        depth_folder(tmp_path, SHARES, 0).check()


# Masks


def test_masks_without_images_are_named(tmp_path: Path) -> None:
    make_ade(tmp_path / "ade")
    write_gray(tmp_path / "ade" / "annotations" / "training" / "x.png", ids(1))
    with pytest.raises(DataError, match=r"must have an image in .*training of the same stem, .* none: x.png"):
        rebuilt("ade20k", tmp_path / "ade").check()
    make_cityscapes(tmp_path / "city")
    write_gray(tmp_path / "city" / "gtFine" / "train" / "aachen" / "a_0_1_gtFine_labelIds.png", ids(7))
    with pytest.raises(DataError, match=r"a_0_1_gtFine_labelIds.png must have the file .*a_0_1_leftImg8bit.png"):
        rebuilt("cityscapes", tmp_path / "city").check()


def test_an_empty_cityscapes_is_refused(tmp_path: Path) -> None:
    for folder in ("leftImg8bit/train", "leftImg8bit/val", "gtFine/train", "gtFine/val"):
        (tmp_path / folder).mkdir(parents=True)
    with pytest.raises(DataError, match=r"leftImg8bit/train must hold a folder with images \*_leftImg8bit.png"):
        rebuilt("cityscapes", tmp_path).check()


def test_an_empty_list_of_voc_is_refused(tmp_path: Path) -> None:
    make_voc(tmp_path)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("\n")
    with pytest.raises(DataError, match=r"val.txt must name at least one image"):
        rebuilt("voc", tmp_path).check()


def test_a_folder_too_high_is_told(tmp_path: Path) -> None:
    make_ddpm(tmp_path / "horse_21" / "real")
    with pytest.raises(DataError, match=r"must have the folder train, but has none; is the root .*horse_21/real\?"):
        ddpm_segmentation(tmp_path / "horse_21", 21, 255).check()


def test_presets_of_the_ddpm_sets(tmp_path: Path) -> None:
    specified = DdpmSegmentationSpecification.model_validate(
        {"kind": "ddpm-segmentation", "root": tmp_path, "preset": "bedroom-28"}
    )
    assert specified.ignored == 0
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / split / "0.png")
        np.save(tmp_path / split / "0.npy", np.array([*range(12), *range(25, 29)]).reshape(4, 4))
    data = ddpm_segmentation(
        tmp_path, specified.classes, specified.ignored, preset="bedroom-28", label_size=specified.label_edge
    )
    data.check()
    assert len(data.class_names) == 29
    sample = data.split("train")[0]
    assert sample.image.shape == (9, 9, 3)
    assert sample.label.shape == (256, 256)
    assert sample.label[::64, ::64].tolist() == [[255, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [25, 26, 27, 28]]
    assert (sample.label == sample.label[::64, ::64].repeat(64, 0).repeat(64, 1)).all()
    note = data.notes()[-1]
    assert "bedroom-28 has 40 train and 20 test images, but here are 1 train and 1 test" in note


def test_a_preset_runs_through(tiny_pipeline: Path, tmp_path: Path) -> None:
    for split, count in (("train", 4), ("test", 2)):
        (tmp_path / "real" / split).mkdir(parents=True)
        for number in range(count):
            file = tmp_path / "real" / split / f"{number}.png"
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(file)
            np.save(file.with_suffix(".npy"), np.random.default_rng(number).integers(0, 15, (30, 30)))
    values = tiny.specification(tiny_pipeline, tmp_path)
    values["data"] = {"kind": "ddpm-segmentation", "root": str(tmp_path / "real"), "preset": "cat-15"}
    values["task"] = {"kind": "segmentation", "folds": 2}
    values["study"] = {**values["study"], "trials": 4}
    recorder = Recorder()
    files = {"workspace": tmp_path / "workspace", "out": tmp_path / "selection.json"}
    result = diffsift.select(values, **files, reporter=recorder)
    assert any(
        "cat-15 has 30 train and 20 test images, but here are 4 train and 2 test" in line for line in recorder.lines
    )
    assert any("cat-15 has 30 train" in warning for warning in result.outcome.warnings)
    assert result.outcome.table


def test_labels_that_are_brought_to_a_size_are_square(tmp_path: Path) -> None:
    make_ddpm(tmp_path)
    with pytest.raises(DataError, match=r"img_0.npy and its image must be square .* 256 x 256 px, but are 8 x 6 and"):
        ddpm_segmentation(tmp_path, 21, 255, label_size=256).check()


@pytest.mark.parametrize(
    ("fields", "message"),
    [({}, "data must have classes, or a preset"), ({"preset": "cat-15", "classes": 16}, "data.classes must be 15")],
)
def test_classes_of_a_ddpm_set_are_known(fields: dict[str, Any], message: str, tmp_path: Path) -> None:
    data = {"kind": "ddpm-segmentation", "root": str(tmp_path), **fields}
    with pytest.raises(SpecificationError, match=message):
        Specification.parse({"model": {"id": "m"}, "data": data, "study": {"name": "s"}})


# SPair


def annotate(root: Path, stem: str, **changes: Any) -> None:
    file = root / "ImageAnnotation" / "aeroplane" / f"{stem}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kps": {"0": [0, 0], "1": [WIDTH + 1, 3]}},
            r"trn.txt: pair 000001-2008_01-2008_02:aeroplane must .*2008_02.json has keypoint 1 at \(9, 3\), outside",
        ),
        ({"kps": {"0": [0, -0.5]}}, r"2008_02.json has keypoint 0 at \(0, -0.5\)"),
        ({"kps": {"0": None, "1": None, "2": [1, 1]}}, r"trn.txt: pair .* must have a keypoint that both images show"),
        ({"bndbox": [4, 0, 0, 6]}, r"2008_02.json must hold bndbox as x0, y0, x1, y1 around an area"),
        ({"image_width": 0}, r"2008_02.json must hold image_width"),
        ({"image_width": 9}, r"2008_02.jpg must be 9 x 6 px as annotated, but is 8 x 6"),
        ({"kps": []}, r"2008_02.json must hold image_width, image_height, kps"),
    ],
)
def test_mistakes_in_pairs_are_told_by_the_check(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    make_spair(tmp_path)
    annotate(tmp_path, "2008_02", **changes)
    with pytest.raises(DataError, match=message):
        rebuilt("spair", tmp_path).check()


def test_the_prompt_of_dift_is_the_default(tmp_path: Path) -> None:
    assert SpairSpecification(kind="spair", root=tmp_path).category_prompt
    assert make_spair(tmp_path, category_prompt=True).split("train")[0].prompt == "a photo of a aeroplane"


def test_a_search_over_pairs_with_the_prompt_of_dift(tiny_pipeline: Path, tmp_path: Path) -> None:
    make_spair(tmp_path / "data")
    for number, split in enumerate(("trn", "val", "test")):
        for stem in (f"{number}_1", f"{number}_2"):
            write_image(tmp_path / "data" / "JPEGImages" / "aeroplane" / f"{stem}.jpg", number)
            source = tmp_path / "data" / "ImageAnnotation" / "aeroplane" / "2008_01.json"
            source.with_name(f"{stem}.json").write_text(source.read_text())
        lines = f"00000{number}-{number}_1-{number}_2:aeroplane\n"
        (tmp_path / "data" / "Layout" / "large" / f"{split}.txt").write_text(lines)
    values = tiny.specification(tiny_pipeline, tmp_path)
    values["data"] = {"kind": "spair", "root": str(tmp_path / "data")}
    values["task"] = {"kind": "correspondence", "resolution": 4}
    values["study"] = {**values["study"], "trials": 4}
    files = {"workspace": tmp_path / "workspace", "out": tmp_path / "selection.json"}
    result = diffsift.select(values, **files)
    assert json.loads(result.selection_file.read_text())
    assert all(0 <= row.score <= 1 for row in result.outcome.table)


def test_a_list_refuses_8_bit_depth_too(tmp_path: Path) -> None:
    make_list(tmp_path)
    with pytest.raises(DataError, match=r"b/0.png must be a grayscale PNG of 16 bits"):
        image_list(tmp_path / "list.csv", "depth", None).check()
    image_list(tmp_path / "list.csv", "depth", None, png_unit=0.1).check()
