"""Folders of images and masks: every way in which files can be wrong, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.folder_files import CLASSES, HALVES, HEIGHT, WIDTH, mask, picture, reader, write_folders, write_split_files

from diffsift.datasets import IGNORE, FileSplit, SeedSplit, SegmentationFiles, SegmentationFolder
from diffsift.errors import DataError, SpecificationError


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def save_mask(values: np.ndarray, name: str = "image0") -> Callable[[Path], None]:
    return lambda root: Image.fromarray(values).save(root / "labels" / f"{name}.png")


def save_jpeg_cut_short(root: Path) -> None:
    (root / "images" / "image0.png").unlink()
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(root / "images" / "image0.jpg")
    truncate(root / "images" / "image0.jpg")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "mask of another size": (
        save_mask(np.zeros((5, 5), np.uint8)),
        r"mask .*labels/image0\.png must be as large as its image image0\.png \(8 x 6 px\), but is 5 x 5 px\.$",
    ),
    "value beyond the classes": (
        save_mask(np.full((HEIGHT, WIDTH), 7, np.uint8)),
        r"mask .*image0\.png must hold values from 0 to 2 \(3 classes\) or 255 \(ignored\), but holds 7 in 48 pixels",
    ),
    "16-bit value beyond the classes": (save_mask(np.full((HEIGHT, WIDTH), 256, np.uint16)), "but holds 256 in 48"),
    "all ignored": (
        save_mask(np.full((HEIGHT, WIDTH), IGNORE, np.uint8)),
        r"image0\.png must have a pixel that counts, but all hold 255",
    ),
    "coloured mask": (save_mask(picture(0)), r"mask .*image0\.png must have one channel .* save their indices instead"),
    "mask cut short": (lambda root: truncate(root / "labels" / "image0.png"), r"mask .*image0\.png cannot be decoded"),
    "mask that is no PNG": (
        lambda root: Image.fromarray(mask(0)).save(root / "labels" / "image0.png", format="JPEG"),
        r"mask .*image0\.png cannot be decoded",
    ),
    "image cut short": (
        lambda root: truncate(root / "images" / "image0.png"),
        r"image .*image0\.png cannot be decoded",
    ),
    "JPEG cut short": (save_jpeg_cut_short, r"image .*image0\.jpg cannot be decoded: .*truncated"),
    "empty image": (
        lambda root: (root / "images" / "image0.png").write_bytes(b""),
        r"image .*image0\.png cannot be decoded",
    ),
    "16-bit image": (
        lambda root: Image.fromarray(mask(0).astype(np.uint16)).save(root / "images" / "image0.png"),
        r"image .*image0\.png must have 8 bits per channel",
    ),
    "image without mask": (
        lambda root: [(root / "labels" / f"image{number}.png").unlink() for number in range(5)],
        r"mask \(PNG or TIFF\) in .*labels of the same stem, but 5 of 10 have none: image0.png, .*, image4.png\.$",
    ),
    "mask without image": (
        lambda root: (root / "images" / "image4.png").unlink(),
        r"a mask must have an image in .*images of the same stem, but 1 of 10 has none: image4\.png\.$",
    ),
    "a stem twice": (
        lambda root: Image.fromarray(picture(0)).save(root / "images" / "image0.jpg"),
        r"images must have different stems, but .*images holds image0\.jpg and image0\.png",
    ),
    "no images": (
        lambda root: [path.unlink() for path in (root / "images").iterdir()],
        r"images must hold images \(\.bmp, .*\), but holds none",
    ),
    "no folder": (
        lambda root: (root / "labels").rename(root / "masks"),
        r"the folder of labels must exist, but .*labels does not",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_check_names_what_is_wrong(folders: Path, damage: str) -> None:
    make, message = DAMAGES[damage]
    reader(folders).check()
    make(folders)
    with pytest.raises(DataError, match=message) as caught:
        reader(folders).check()
    assert "\n" not in str(caught.value)


def test_images_beyond_pillows_limit_are_refused(folders: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with pytest.raises(DataError, match=r"image\d\.png cannot be decoded: Image size \(48 pixels\) exceeds limit"):
        reader(folders).check()


def test_images_and_labels_in_one_folder_are_refused(folders: Path) -> None:
    data = SegmentationFolder(SegmentationFiles(folders / "images", folders / "images"), CLASSES, split=HALVES)
    with pytest.raises(DataError, match="must lie in different folders"):
        data.check()


def test_a_file_in_place_of_a_folder_is_refused(folders: Path) -> None:
    files = SegmentationFiles(folders / "images" / "image0.png", folders / "labels")
    data = SegmentationFolder(files, CLASSES, split=HALVES)
    with pytest.raises(DataError, match=r"image0\.png is a file"):
        data.check()


SPLIT_MISTAKES: dict[str, tuple[dict[str, list[str]], str]] = {
    "missing stem": (
        {"train": ["image0", "imagge1"], "test": ["image2"]},
        r"split file .*train\.txt names 'imagge1' for train, .*; did you mean 'image1'",
    ),
    "several missing": ({"train": ["street1", "street2", "street3"], "test": ["image2"]}, r"'street1' \(and 2 more\)"),
    "in two splits": ({"train": ["image0"], "test": ["image0"]}, r"test\.txt puts 'image0' in train and test"),
    "twice in one split": ({"train": ["image0", "image0"], "test": ["image1"]}, "puts 'image0' in train twice"),
    "empty": ({"train": [], "test": ["image1"]}, r"train\.txt must name at least one image for train"),
    "no mask": ({"train": ["lonely"], "test": ["image1"]}, r"1 of 11 has none: lonely\.png"),
}


@pytest.mark.parametrize("mistake", SPLIT_MISTAKES)
def test_split_files_are_checked(folders: Path, mistake: str) -> None:
    Image.fromarray(picture(0)).save(folders / "images" / "lonely.png")
    stems, message = SPLIT_MISTAKES[mistake]
    with pytest.raises(DataError, match=message):
        reader(folders, split=write_split_files(folders, **stems)).check()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", '{"train": ["image0"], "tests": ["image1"]}', "has the key 'tests'; did you mean 'test'"),
        ("a.json", '{"train": ["image0"]}', "must map 'test' to a list of stems"),
        ("a.json", '{"train": [1], "test": ["image1"]}', "must map 'train' to a list of stems written as text"),
        ("a.json", '{"train": ', "cannot be read as JSON or YAML"),
        ("a.yaml", "train: [image0\ntest: image1", "cannot be read as JSON or YAML"),
        ("a.yaml", "- image0", "must map split names to lists"),
    ],
)
def test_split_mappings_are_checked(folders: Path, name: str, content: str, message: str) -> None:
    (folders / name).write_text(content)
    with pytest.raises(DataError, match=rf"split file .*{name} .*{message}") as caught:
        reader(folders, split=FileSplit(folders / name)).check()
    assert "\n" not in str(caught.value)


def test_a_missing_split_file_is_named(folders: Path) -> None:
    with pytest.raises(DataError, match=r"split file .*nowhere\.yaml cannot be read"):
        reader(folders, split=FileSplit(folders / "nowhere.yaml")).check()


def test_a_group_in_two_splits_is_refused(folders: Path) -> None:
    for kind in ("images", "labels"):
        for number in (0, 1):
            (folders / kind / f"image{number}.png").rename(folders / kind / f"street_{number}.png")
    rule = write_split_files(folders, train=["street_0"], test=["street_1"])
    reader(folders, split=rule).check()
    with pytest.raises(DataError, match=r"'street' is in train and test \('street_0' in train, 'street_1' in test\)"):
        reader(folders, split=rule, group_separator="_").check()


def test_too_few_images_for_the_fractions_are_refused(folders: Path) -> None:
    with pytest.raises(DataError, match=r"the test split must get an image, but 0\.01 of 10 images"):
        reader(folders, split=SeedSplit((0.99, 0.0, 0.01))).check()


@pytest.mark.parametrize("fractions", [(0.5, 0.0, 0.4), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0), (0.9, -0.1, 0.2)])
def test_fractions_are_checked(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(SpecificationError, match="must sum to 1, with train and test above 0"):
        SeedSplit(fractions)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": 1}, "2 to 255 classes, but got 1"),
        ({"classes": 256}, "2 to 255 classes, but got 256"),
        ({"classes": ("a", "b", "a")}, "'a' twice"),
        ({"ignore": -1}, "ignore must be a mask value"),
        ({"group_separator": ""}, "must not be empty"),
    ],
)
def test_arguments_are_checked(folders: Path, options: dict[str, object], message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        reader(folders, **options)
