"""Data as a whole: what is refused before a search, and what the user is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.folder_files import ORIENTATION
from support.layouts import make_classes, rebuilt, write_image

from diffsift import MappedDataset
from diffsift.bank import BankSpecification, development_set
from diffsift.datasets import (
    Dataset,
    ListReading,
    RenderedScenes,
    SeedSplit,
    SegmentationFiles,
    SegmentationFolder,
    check_splits,
    depth_folder,
    image_list,
)
from diffsift.errors import DataError

SHARES = (0.6, 0.0, 0.4)
SIZE = 12


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def square(number: int, background: int = 0, inside: int = 1) -> np.ndarray:
    """A mask with a square at the upper left."""
    mask = np.full((SIZE, SIZE), background, np.uint8)
    mask[: 4 + number % 3, :5] = inside
    return mask


def rows(
    mask: Callable[[int], Any] = square, image: Callable[[int], Any] = picture, count: int = 24
) -> list[dict[str, Any]]:
    return [{"image": image(number), "label": mask(number)} for number in range(count)]


def write(root: Path, mask: Callable[[int], np.ndarray] = square, count: int = 24, **options: Any) -> None:
    for folder in ("images", "labels"):
        (root / folder).mkdir(parents=True)
    for number in range(count):
        Image.fromarray(picture(number)).save(root / "images" / f"{number:02}.png", **options)
        Image.fromarray(mask(number)).save(root / "labels" / f"{number:02}.png")


def folder(root: Path, classes: Any = ("background", "square"), **options: Any) -> SegmentationFolder:
    files = SegmentationFiles(root / "images", root / "labels", exif=options.pop("exif", "turn"))
    return SegmentationFolder(files, classes, SeedSplit(SHARES), **options)


def listed(root: Path, reading: ListReading | None = None) -> Dataset:
    lines = ["image,label,split"]
    for number, file in enumerate(sorted((root / "images").iterdir())):
        lines.append(f"images/{file.name},labels/{file.name},{'test' if number % 3 == 0 else 'train'}")
    (root / "list.csv").write_text("\n".join(lines))
    return image_list(root / "list.csv", "segmentation", ("background", "square"), reading=reading)


def notes_of(data: Dataset) -> str:
    check_splits(data)
    return "\n".join(data.notes())


def test_good_data_are_described_and_nothing_is_said(tmp_path: Path) -> None:
    write(tmp_path, count=30)
    data = folder(tmp_path)
    assert notes_of(data) == ""
    assert data.summary().lines == [
        "train: 18 images; 12 x 12 px; background 82.6 %, square 17.4 %",
        "test: 12 images; 12 x 12 px; background 82.6 %, square 17.4 %",
    ]


# Classes


@pytest.mark.parametrize("make", [folder, listed])
def test_black_and_white_masks_are_refused_with_the_remedy(make: Any, tmp_path: Path) -> None:
    write(tmp_path, lambda number: square(number, 0, 255))
    with pytest.raises(DataError, match=r"only 'background' \(class 0\) has any: 17\.4 % of the pixels hold 255"):
        check_splits(make(tmp_path))
    palette = ((0, 0, 0), (255, 255, 255))
    if make is listed:
        read = listed(tmp_path, ListReading(palette=palette))
    else:
        files = SegmentationFiles(tmp_path / "images", tmp_path / "labels", palette=palette)
        read = SegmentationFolder(files, ("background", "square"), SeedSplit(SHARES))
    check_splits(read)
    assert np.unique(read.split("train")[0].label).tolist() == [0, 1]


def test_black_and_white_masks_with_another_ignored_value_are_explained(tmp_path: Path) -> None:
    write(tmp_path, lambda number: square(number, 0, 255))
    with pytest.raises(DataError, match=r"but holds 255 in \d+ pixels; did you mean class 1\?"):
        check_splits(folder(tmp_path, ignore=254))


@pytest.mark.parametrize("allow", [False, True])
def test_masks_of_one_class_are_refused(allow: bool) -> None:
    data = MappedDataset(rows(lambda number: square(number, 1, 1)), classes=2, allow_absent_classes=allow)
    with pytest.raises(
        DataError, match=r"must have pixels in train, but of 2 only 'class 1' \(class 1\) has any: check"
    ):
        check_splits(data)


def test_classes_in_the_test_split_alone_are_no_training_data() -> None:
    where = ["train", "test"] * 12
    one = rows(lambda number: square(number, 0, number % 2))
    data = [{**row, "split": where[number]} for number, row in enumerate(one)]
    with pytest.raises(DataError, match=r"in train, but of 2 only 'class 0' \(class 0\) has any: check data\.classes"):
        check_splits(MappedDataset(data, classes=2, split="split", allow_absent_classes=True))


def test_masks_of_one_value_each_are_refused() -> None:
    data = MappedDataset(rows(lambda number: square(number, number % 2, number % 2)), classes=2)
    with pytest.raises(DataError, match="each of 24 masks holds one value alone: for one class per image, use task"):
        check_splits(data)


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_class_that_a_split_lacks_is_refused_unless_allowed(split: str) -> None:
    where = ["train", "test"] * 12

    def labelled(number: int) -> np.ndarray:
        return square(number, 0, 1 if where[number] == split else 2 - number % 4 // 2)

    data = [{**row, "split": where[number]} for number, row in enumerate(rows(labelled))]
    names = {"classes": ("sky", "sea", "sand"), "split": "split"}
    refused = rf"1 of 3 has none in {split} \(sand\): add .* data.allow_absent_classes: true"
    with pytest.raises(DataError, match=refused):
        check_splits(MappedDataset(data, **names))  # type: ignore[arg-type]
    notes = notes_of(MappedDataset(data, **names, allow_absent_classes=True))  # type: ignore[arg-type]
    assert f"the class 'sand' is absent from {split}: " in notes


def test_a_class_that_is_nowhere_is_said_to_be_in_neither_split() -> None:
    names: dict[str, Any] = {"classes": ("background", "square", "sand", "sea")}
    where = ["train", "test"] * 12
    data = [{**row, "split": where[number]} for number, row in enumerate(rows())]
    data[0]["label"] = square(0, 0, 3)  # in train
    refused = r"but 2 of 4 have none in train or test \(sand\) and none in test \(sea\): add"
    with pytest.raises(DataError, match=refused):
        check_splits(MappedDataset(data, **names, split="split"))
    notes = notes_of(MappedDataset(data, **names, split="split", allow_absent_classes=True))
    assert "'sand' is absent from train and test: nothing can be learnt of it, and scores leave it out" in notes
    assert "'sea' is absent from test: scores leave it out" in notes


def test_an_ignored_class_may_be_absent(tmp_path: Path) -> None:
    write(tmp_path, lambda number: square(number, 1, 2))
    check_splits(folder(tmp_path, ("unlabelled", "ground", "square"), ignore=0))
    with pytest.raises(DataError, match=r"1 of 3 has none in train or test \(unlabelled\)"):
        check_splits(folder(tmp_path, ("unlabelled", "ground", "square")))


def test_a_class_without_test_images_is_refused_for_classification(tmp_path: Path) -> None:
    make_classes(tmp_path)
    write_image(tmp_path / "train" / "owl" / "0.png", 5)
    with pytest.raises(DataError, match=r"must have an image in train and in test, but 1 of 3 has none in test \(owl"):
        check_splits(rebuilt("class-folders", tmp_path))


def test_a_class_in_few_test_images_is_told() -> None:
    def rare(number: int) -> np.ndarray:
        mask = square(number)
        mask[-1, -1] = 2 if number in (0, 23) else 0
        return mask

    where = ["train"] * 12 + ["test"] * 12
    data = [{**row, "split": where[number]} for number, row in enumerate(rows(rare))]
    notes = notes_of(MappedDataset(data, classes=3, split="split"))
    assert notes == (
        "the class 'class 2' is in fewer than 3 test images: intervals cannot show how uncertain the score of such a "
        "class is"
    )


# Too little, and too much alike


def test_few_independent_images_are_told() -> None:
    data = [{**row, "video": f"video {number // 6}"} for number, row in enumerate(rows())]
    assert "there are only 12 train images in 2 groups and 12 test images in 2 groups: " in notes_of(
        MappedDataset(data, classes=2, group="video", fractions=(0.5, 0.0, 0.5))
    )


@pytest.mark.parametrize("count", [2, 12])
def test_one_group_is_too_little_to_cross_validate_over(count: int) -> None:
    data = [{**row, "video": number >= count // 2} for number, row in enumerate(rows(count=count))]
    mapped = MappedDataset(data, classes=2, group="video", fractions=(0.5, 0.0, 0.5))
    check_splits(mapped)
    with pytest.raises(DataError, match=r"at least two groups of training images to cross-validate over, .* in one"):
        development_set(mapped, BankSpecification(pixels_per_image=4), folds=2)


def nearly(number: int) -> np.ndarray:
    """The first image again, brighter by what nobody sees; the others differ."""
    return (picture(0).clip(0, 250) + 2).astype(np.uint8) if number == 20 else picture(number)


@pytest.mark.parametrize(
    ("image", "found"),
    [(lambda number: picture(number % 20), 4), (nearly, 1), (picture, 0)],
    ids=["same", "near", "none"],
)
def test_images_in_two_splits_are_told(image: Callable[[int], np.ndarray], found: int) -> None:
    data = {
        "train": rows(image=image)[:20],
        "test": rows(image=image)[20:] + rows(image=lambda n: picture(100 + n))[:8],
    }
    notes = notes_of(MappedDataset(data, classes=2))
    expected = f"{found} of 12 test images equal or nearly equal a train image (test/0 ~ train/0"
    assert (expected in notes) == bool(found)
    assert ("nearly equal" in notes) == bool(found)


def test_images_that_differ_in_a_detail_are_not_called_equal() -> None:
    def scene(number: int) -> np.ndarray:
        image = np.full((SIZE, SIZE, 3), 120, np.uint8)
        image[number % 8 : number % 8 + 4, :4] = 200
        return image

    assert "nearly equal" not in notes_of(
        MappedDataset({"train": rows(image=lambda n: scene(0)), "test": rows(image=lambda n: scene(4))}, classes=2)
    )


def test_built_in_scenes_are_described_without_being_drawn() -> None:
    data = RenderedScenes(train=3, validation=0, test=2, size=32)
    check_splits(data)
    assert data.summary().lines == ["train: 3 images", "test: 2 images"]


# Depth


def write_depth(root: Path, depth: Callable[[int], np.ndarray], suffix: str) -> None:
    (root / "depth").mkdir(parents=True)
    for number in range(24):
        write_image(root / "images" / f"{number:02}.png", number)
        if suffix == ".npy":
            np.save(root / "depth" / f"{number:02}.npy", depth(number))
        else:
            Image.fromarray(depth(number)).save(root / "depth" / f"{number:02}.png")


def slope(number: int, kind: Any, scale: float, far: float | None) -> np.ndarray:
    """Depths of a tilted ground, 6 x 8 px, with a sky of one value."""
    values = (scale * (1 + np.arange(48).reshape(6, 8) / 40 + number / 100)).astype(kind)
    if far is not None:
        values[0] = far
    return np.asarray(values)


@pytest.mark.parametrize(
    ("kind", "scale", "far", "suffix", "note"),
    [
        (
            np.uint16,
            2000,
            65535,
            ".png",
            "known depths are 65.535 m, the largest value that the files can hold: if that",
        ),
        (np.float32, 2, 65.535, ".npy", "known depths are 65.535 m, the largest value that the files can hold"),
        (
            np.float32,
            2,
            1e10,
            ".npy",
            "known depths are 1e+10 m, far beyond the next, 4.81 m: if that stands",
        ),
        (np.float32, 2000, None, ".npy", "the typical depth is 3405 m: if these are millimetres, divide by 1000"),
        (np.float32, 2, None, ".npy", ""),
        (np.uint16, 2000, None, ".png", ""),
    ],
)
def test_depths_that_cannot_be_depths_are_told(
    kind: Any, scale: float, far: float | None, suffix: str, note: str, tmp_path: Path
) -> None:
    write_depth(tmp_path, lambda number: slope(number, kind, scale, far), suffix)
    data = depth_folder(tmp_path, SHARES, 0)
    notes = notes_of(data)
    assert note in notes
    assert ("depth" in notes) == bool(note)
    if far is not None:
        limited = depth_folder(tmp_path, SHARES, 0, depth_limit=10.0)
        assert "depth" not in notes_of(limited)
        assert np.isnan(limited.split("train")[0].label[0]).all()
        assert np.isfinite(limited.split("train")[0].label[1:]).all()
        assert limited.summary().splits[0].excluded == pytest.approx(1 / 6)
        assert limited.identity() != data.identity()


def test_the_limit_holds_for_rows_from_python() -> None:
    depths = [{"image": picture(n), "label": np.full((SIZE, SIZE), 30.0 if n % 2 else 3.0)} for n in range(24)]
    for depth in depths:
        depth["label"][0] = 2.0
    data = MappedDataset(depths, task="depth", depth_limit=20)
    data.check()
    assert {float(np.nanmax(sample.label)) for sample in data.split("train")} == {2.0, 3.0}


# Orientation and range of images


@pytest.mark.parametrize("orientation", [1, 2, 3, 4, 5, 6, 7, 8])
@pytest.mark.parametrize("make", [folder, listed])
def test_an_orientation_that_sizes_cannot_tell_is_told(make: Any, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    write(tmp_path, exif=exif)
    data = make(tmp_path)
    assert ("24 of 24 images are turned by their EXIF orientation" in notes_of(data)) == (orientation != 1)
    ignoring = folder(tmp_path, exif="ignore") if make is folder else listed(tmp_path, ListReading(exif="ignore"))
    assert "EXIF" not in notes_of(ignoring)
    sample = ignoring.split("train")[0]
    stored = np.asarray(Image.open(tmp_path / "images" / Path(sample.name).with_suffix(".png").name))
    assert np.array_equal(sample.image, stored)
    assert np.array_equal(sample.image, data.split("train")[0].image) == (orientation == 1)
    assert ignoring.identity() != data.identity()


def test_pictures_from_python_are_turned_or_not() -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 3

    def turned(number: int) -> Image.Image:
        image = Image.fromarray(picture(number))
        image.getexif()[ORIENTATION] = 3
        return image

    data = MappedDataset(rows(image=turned), classes=2)
    assert "set exif='ignore'" in notes_of(data)
    ignoring = MappedDataset(rows(image=turned), classes=2, exif="ignore")
    assert "EXIF" not in notes_of(ignoring)
    first, other = data.split("train")[0], ignoring.split("train")[0]
    assert np.array_equal(first.image, other.image[::-1, ::-1])


def test_floating_point_images_from_python_are_told() -> None:
    data = MappedDataset(rows(image=lambda number: picture(number) / 255 if number < 5 else picture(number)), classes=2)
    assert "5 of 24 images are floating point: each is taken as 0 (black) to 1 (white)" in notes_of(data)
    with pytest.raises(DataError, match="floating point of 0 to 255 must become uint8"):
        check_splits(MappedDataset(rows(image=lambda number: picture(number).astype(np.float32)), classes=2))


# All bad files


def test_all_bad_files_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    for number in (3, 7, 8, 11, 19):
        (tmp_path / "images" / f"{number:02}.png").write_bytes(b"no image")
    with pytest.raises(DataError) as caught:
        check_splits(folder(tmp_path))
    said = str(caught.value)
    assert said.startswith("5 samples cannot be used: image ")
    assert all(f"{number:02}" in said for number in (3, 7, 8, 11, 19))
    assert "\n" not in said


def test_hundreds_of_bad_files_make_a_short_message() -> None:
    data = MappedDataset(rows(lambda number: square(number, 0, 7), count=300), classes=2)
    with pytest.raises(
        DataError, match=r"^at least 100 samples cannot be used: the label of row 0 .* row 98, row 99\.$"
    ) as caught:
        data.check()
    assert len(str(caught.value)) < 2000


def test_all_missing_files_of_a_list_are_named(tmp_path: Path) -> None:
    write(tmp_path)
    data = listed(tmp_path)
    for number in (3, 7):
        (tmp_path / "labels" / f"{number:02}.png").unlink()
    with pytest.raises(DataError, match=r"2 samples cannot be used: .*03\.png.*07\.png"):
        data.check()
