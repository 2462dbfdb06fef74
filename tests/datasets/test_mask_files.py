"""Masks in every format that is read: PNG, TIFF and colours of a palette."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError
from support.folder_files import CLASSES, HALVES, HEIGHT, WIDTH, mask, write_folders

from diffsift.datasets import IGNORE, Dataset, FolderSpecification, SegmentationFiles, SegmentationFolder
from diffsift.errors import DataError, SpecificationError

COLOURS = ((0, 0, 0), (200, 30, 30), (30, 30, 200))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path)


def data_of(root: Path, palette: tuple[tuple[int, int, int], ...] | None = None) -> SegmentationFolder:
    return SegmentationFolder(SegmentationFiles(root / "images", root / "labels", palette=palette), CLASSES, HALVES)


def label_of(data: Dataset, name: str = "image0") -> np.ndarray:
    data.check()
    samples = [sample for split in ("train", "test") for sample in data.split(split)]  # type: ignore[arg-type]
    return next(sample.label for sample in samples if sample.name == name)


def replace_mask(root: Path, picture: Image.Image, suffix: str = ".tif", **options: object) -> None:
    (root / "labels" / "image0.png").unlink()
    picture.save(root / "labels" / f"image0{suffix}", **options)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32])
@pytest.mark.parametrize("compression", [None, "tiff_lzw"])
def test_tiff_masks_hold_class_ids(kind: type, compression: str | None, folders: Path) -> None:
    replace_mask(folders, Image.fromarray(mask(0).astype(kind)), compression=compression)
    assert np.array_equal(label_of(data_of(folders)), mask(0))


def test_palette_and_two_level_tiff_masks_give_indices(folders: Path) -> None:
    palette = Image.fromarray(mask(0), mode="P")
    palette.putpalette([value for colour in COLOURS for value in colour])
    replace_mask(folders, palette)
    assert np.array_equal(label_of(data_of(folders)), mask(0))
    (folders / "labels" / "image0.tif").unlink()
    Image.fromarray(mask(0) > 0).save(folders / "labels" / "image0.tif")
    assert np.array_equal(label_of(data_of(folders)), mask(0) > 0)


def test_tiff_masks_of_several_pages_are_refused(folders: Path) -> None:
    pages = [Image.fromarray(mask(number)) for number in range(3)]
    replace_mask(folders, pages[0], save_all=True, append_images=pages[1:])
    with pytest.raises(DataError, match=r"mask .*image0\.tif must hold one page, but holds 3"):
        data_of(folders).check()


def test_tiff_masks_that_are_stored_inverted_are_refused(folders: Path) -> None:
    replace_mask(folders, Image.fromarray(mask(0)), tiffinfo={262: 0})
    with pytest.raises(DataError, match="must be stored with 0 as black, but 0 is white"):
        data_of(folders).check()


def test_a_tiff_without_dimensions_is_told(folders: Path) -> None:
    replace_mask(folders, Image.fromarray(mask(0)))
    file = folders / "labels" / "image0.tif"
    file.write_bytes(file.read_bytes().replace(b"\x00\x01\x04\x00", b"\x00\x7f\x04\x00"))  # the tag of the width
    with pytest.raises(DataError, match=r"mask .*image0\.tif cannot be decoded: "):
        data_of(folders).check()


def test_a_jpeg_that_is_called_png_is_told(folders: Path) -> None:
    Image.fromarray(mask(0)).save(folders / "labels" / "image0.png", format="JPEG")
    with pytest.raises(DataError, match=r"cannot be decoded: it is a JPEG, which .* save it as PNG or TIFF"):
        data_of(folders).check()


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_colours_of_a_palette_become_class_ids(suffix: str, folders: Path) -> None:
    ids = mask(0).copy()
    ids[0, :3] = IGNORE
    table = np.array([*COLOURS, (255, 255, 255)], np.uint8)
    for number in range(10):
        coloured = table[np.where(ids == IGNORE, CLASSES, ids) if number == 0 else mask(number)]
        (folders / "labels" / f"image{number}.png").unlink()
        Image.fromarray(coloured).save(folders / "labels" / f"image{number}{suffix}")
    data = data_of(folders, (*COLOURS, (255, 255, 255)))
    assert np.array_equal(label_of(data), ids)
    assert data.identity() != data_of(folders, COLOURS).identity()
    with pytest.raises(DataError, match=r"colours of data\.palette alone, but holds \[255, 255, 255\] in 3 pixels"):
        data_of(folders, COLOURS).check()
    with pytest.raises(DataError, match=r"its colours \(.*\[200, 30, 30\].*\) stand for classes, name them"):
        data_of(folders).check()


@pytest.mark.parametrize(
    ("palette", "message"),
    [
        (COLOURS[:2], "a colour for each of 3 classes, and one more .* but has 2"),
        ((*COLOURS[:2], COLOURS[0]), r"different colours, but has \[0, 0, 0\] twice"),
    ],
)
def test_a_palette_must_fit_the_classes(palette: tuple[tuple[int, int, int], ...], message: str, folders: Path) -> None:
    with pytest.raises(SpecificationError, match=message):
        data_of(folders, palette)


def test_fields_of_a_folder_reach_its_reader(folders: Path) -> None:
    for file in (folders / "labels").iterdir():
        file.rename(file.with_name(f"{file.stem}-seg.png"))
    fields = {"kind": "folder", "images": folders / "images", "labels": folders / "labels", "classes": CLASSES}
    specification = FolderSpecification.model_validate(
        {**fields, "label_suffix": "-seg", "exif": "ignore", "allow_absent_classes": True}
    )
    data = specification.open("segmentation")
    data.check()
    assert data.allow_absent_classes
    assert data.identity()["exif"] == "ignore"
    assert label_of(data).shape == (HEIGHT, WIDTH)
    with pytest.raises(ValidationError, match="less than or equal to 255"):
        FolderSpecification.model_validate({**fields, "palette": [[0, 0, 300], [1, 1, 1], [2, 2, 2]]})
