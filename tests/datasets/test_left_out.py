"""Files beside images and masks: none is left out in silence, and names match whatever their Unicode form."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.folder_files import mask, picture, reader, write_folders, write_split_files
from support.layouts import make_cityscapes, make_classes, make_depth, rebuilt, write_image

from diffsift.datasets import FileSplit, SeedSplit, SegmentationFiles, SegmentationFolder, image_list
from diffsift.errors import DataError

COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "été") for form in ("NFC", "NFD"))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path)


def left_out(root: Path) -> tuple[str, ...]:
    data = reader(root)
    data.check()
    return data.summary().left_out


def test_nothing_is_left_out_of_clean_folders(folders: Path) -> None:
    assert left_out(folders) == ()


def test_whatever_is_not_used_is_named_with_the_reason(folders: Path) -> None:
    images, labels = folders / "images", folders / "labels"
    for name in ("a.tif", "b.TIF", "c.tif", "d.tif", "notes", ".hidden.png", "Thumbs.db", ".DS_Store", "._image0.png"):
        (images / name).write_bytes(b"")
    (labels / ".DS_Store").write_bytes(b"")
    (images / "old").mkdir()
    for folder in (images, labels):
        (folder / "gone.png").symlink_to(folder / "nowhere.png")
    os.mkfifo(images / "pipe.png")
    assert left_out(folders) == (
        "1 hidden file (images/.hidden.png)",
        "4 .tif files (images/a.tif, images/b.TIF, images/c.tif and 1 more)",
        "2 links to what is not there (images/gone.png, labels/gone.png)",
        "1 file without a suffix (images/notes)",
        "1 folder within folders (images/old)",
        "1 special file (images/pipe.png)",
        "4 files of operating systems (images/.DS_Store, images/._image0.png, images/Thumbs.db and 1 more)",
    )


def test_images_that_no_split_names_are_counted(folders: Path) -> None:
    data = reader(folders, split=write_split_files(folders, train=["image2", "image0"], test=["image1"]))
    data.check()
    (said,) = data.summary().left_out
    assert said.startswith("14 .png files of no split (images/image3.png, ")


@pytest.mark.parametrize("layout", ["cityscapes", "class-folders", "depth-folder"])
def test_other_layouts_say_it_too(layout: str, tmp_path: Path) -> None:
    make = {"cityscapes": make_cityscapes, "class-folders": make_classes, "depth-folder": make_depth}[layout]
    make(tmp_path)
    data = rebuilt(layout, tmp_path)
    assert data.summary().left_out == ()
    image = sorted(tmp_path.rglob("*.png" if layout != "class-folders" else "*.jpg"))[-1]
    stray = (
        image.with_name("stray.txt")
        if layout != "cityscapes"
        else tmp_path / "leftImg8bit" / "train" / "aachen" / "stray.txt"
    )
    stray.write_text("")
    assert rebuilt(layout, tmp_path).summary().left_out == (f"1 .txt file ({stray.parent.name}/stray.txt)",)


def test_litter_is_no_class(tmp_path: Path) -> None:
    make_classes(tmp_path)
    (tmp_path / "train" / "__MACOSX").mkdir()
    data = rebuilt("class-folders", tmp_path)
    data.check()
    assert data.class_names == ("cat", "dog")
    assert data.summary().left_out == ("1 file of operating systems (train/__MACOSX)",)


def test_a_folder_without_images_says_what_it_holds(folders: Path) -> None:
    for file in (folders / "images").iterdir():
        file.rename(file.with_suffix(".tif"))
    with pytest.raises(DataError, match=r"but holds no such file; it holds 10 \.tif files \(images/image0\.tif, "):
        reader(folders).check()


# Names


def accented(folders: Path, image: str, label: str) -> None:
    Image.fromarray(picture(50)).save(folders / "images" / f"{image}.png")
    Image.fromarray(mask(50)).save(folders / "labels" / f"{label}.png")


@pytest.mark.parametrize(("image", "other"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
def test_unicode_forms_match(image: str, other: str, folders: Path) -> None:
    accented(folders, image, other)
    rule = write_split_files(folders, train=["image2", other], test=["image1"])
    (folders / "prompts.yaml").write_text(f"{other}: a summer\nimage1: x\nimage2: y\n", encoding="utf-8")
    data = reader(folders, split=rule, prompts=folders / "prompts.yaml")
    data.check()
    assert data.split("train").names == tuple(sorted([image, "image2"]))
    (sample,) = [sample for sample in data.split("train") if sample.name == image]
    assert sample.prompt == "a summer"
    assert np.array_equal(sample.label, mask(50))


def test_unicode_forms_match_in_lists(folders: Path) -> None:
    accented(folders, COMPOSED, DECOMPOSED)
    rows = [f"images/{DECOMPOSED}.png,labels/{COMPOSED}.png,train", "images/image1.png,labels/image1.png,test"]
    (folders / "list.csv").write_text("\n".join(["image,label,split", *rows]), encoding="utf-8")
    image_list(folders / "list.csv", "segmentation", 3).check()


def test_names_that_are_not_utf8_are_refused(folders: Path) -> None:
    bad = os.fsencode(folders / "images") + b"/caf\xe9.png"
    (folders / "images" / "image0.png").rename(os.fsdecode(bad))
    with pytest.raises(DataError, match=r"names of files must be UTF-8, but caf\\xe9\.png is not: rename them\.$"):
        reader(folders).check()


def test_a_stray_name_that_is_not_utf8_is_shown(folders: Path) -> None:
    Path(os.fsdecode(os.fsencode(folders / "images") + b"/caf\xe9\n.txt")).write_text("")
    assert left_out(folders) == (r"1 .txt file (images/caf\xe9\n.txt)",)


def test_a_list_with_a_lone_surrogate_is_refused(folders: Path) -> None:
    (folders / "list.json").write_text(r'[{"image": "\udce9.png", "label": "a", "split": "train"}]')
    with pytest.raises(DataError, match=r"must have the file .*\\xe9\.png, but there is none"):
        image_list(folders / "list.json", "segmentation", 3).check()


# Masks that are called or stored otherwise


def with_masks(root: Path, label_suffix: str = "") -> SegmentationFolder:
    return SegmentationFolder(
        SegmentationFiles(root / "images", root / "labels", label_suffix=label_suffix), 3, SeedSplit((0.5, 0.0, 0.5))
    )


def test_masks_with_a_suffix_are_hinted_at_and_read(folders: Path) -> None:
    before = reader(folders).identity()
    for file in (folders / "labels").iterdir():
        file.rename(file.with_name(f"{file.stem}_mask.png"))
    with pytest.raises(DataError, match=r"is image0_mask\.png meant\? Then set data\.label_suffix: '_mask'"):
        reader(folders).check()
    data = with_masks(folders, "_mask")
    data.check()
    assert data.identity() == before, "how files are called does not matter"
    Image.fromarray(mask(0)).save(folders / "labels" / "image0_mask2.png")
    assert with_masks(folders, "_mask").summary().left_out == ("1 .png file of no split (labels/image0_mask2.png)",)


def test_jpeg_masks_are_refused_with_the_reason(folders: Path) -> None:
    for file in list((folders / "labels").iterdir()):
        Image.open(file).save(file.with_suffix(".jpg"))
        file.unlink()
    with pytest.raises(DataError, match=r"image0\.jpg is a JPEG, which changes values where it compresses: save it as"):
        reader(folders).check()


def test_a_missing_mask_that_is_a_link_is_told(folders: Path) -> None:
    (folders / "labels" / "image4.png").unlink()
    (folders / "labels" / "image4.png").symlink_to(folders / "gone.png")
    with pytest.raises(DataError, match=r"1 of 10 has none: image4\.png; image4\.png is a link that leads nowhere"):
        reader(folders).check()


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_split_named_twice_is_refused(suffix: str, folders: Path) -> None:
    file = folders / f"split{suffix}"
    file.write_text('{"train": ["image0"], "test": ["image1"], "train": ["image2"]}')
    with pytest.raises(DataError, match=r"split file .* cannot be read as JSON or YAML: .*(twice|once)"):
        reader(folders, split=FileSplit(file)).check()


def test_a_prompt_given_twice_is_refused(folders: Path) -> None:
    (folders / "prompts.yaml").write_text("image0: a\nimage1: b\nimage0: c\n")
    with pytest.raises(DataError, match=r"'image0' must stand once in a mapping, but is in line 1 and again"):
        reader(folders, prompts=folders / "prompts.yaml").check()


def test_all_files_of_one_stem_and_all_empty_classes_are_named(folders: Path, tmp_path: Path) -> None:
    for number in (0, 4, 8):
        Image.fromarray(picture(0)).save(folders / "images" / f"image{number}.bmp")
    with pytest.raises(DataError, match=r"image0\.bmp and image0\.png, image4\.bmp .*, image8\.bmp and image8\.png\.$"):
        reader(folders).check()
    make_classes(tmp_path / "classes")
    for file in list((tmp_path / "classes" / "train").rglob("*.jpg")):
        file.unlink()
    with pytest.raises(DataError, match=r"2 samples cannot be used: .*train/cat must hold.*train/dog must hold images"):
        rebuilt("class-folders", tmp_path / "classes").check()


def test_images_of_other_kinds_beside_known_ones_are_named(tmp_path: Path) -> None:
    make_classes(tmp_path)
    write_image(tmp_path / "train" / "cat" / "x.gif")
    (tmp_path / "train" / "cat" / "more").mkdir()
    assert rebuilt("class-folders", tmp_path).summary().left_out == (
        "1 folder within folders (cat/more)",
        "1 .gif file (cat/x.gif)",
    )
