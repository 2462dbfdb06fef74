"""Folders of images and masks: what is read and how it is split."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from support.folder_files import (
    CLASSES,
    HEIGHT,
    ORIENTATION,
    WIDTH,
    mask,
    picture,
    reader,
    write_folders,
    write_split_files,
)

from diffsift.datasets import IGNORE, FileSplit, SeedSplit
from diffsift.errors import DataError


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    return write_folders(tmp_path)


def only(root: Path, name: str = "image0") -> np.ndarray:
    """The loaded sample of that name, image and label stacked for comparison."""
    data = reader(root)
    found = [sample for split in ("train", "test") for sample in data.split(split) if sample.name == name]
    assert len(found) == 1
    return found[0].image


# What is read


def test_samples_are_the_files(folders: Path) -> None:
    data = reader(folders, classes=("sky", "road", "tree"))
    data.check()
    assert data.class_names == ("sky", "road", "tree")
    seen = set()
    for split in ("train", "validation", "test"):
        for sample in data.split(split):
            number = int(sample.name.removeprefix("image"))
            assert np.array_equal(sample.image, picture(number))
            assert np.array_equal(sample.label, mask(number))
            assert sample.group == sample.name
            seen.add(number)
    assert seen == set(range(10))


def test_nothing_is_read_before_it_is_asked_for(folders: Path) -> None:
    samples = reader(folders).split("train")
    (folders / "images" / f"{samples.names[1]}.png").write_bytes(b"no longer an image")
    assert samples[0].image.shape == (HEIGHT, WIDTH, 3)
    with pytest.raises(DataError, match=rf"image .*{samples.names[1]}\.png cannot be decoded"):
        samples[1]


@pytest.mark.parametrize("suffix", [".jpg", ".JPEG", ".webp", ".bmp"])
def test_other_image_formats(folders: Path, suffix: str) -> None:
    (folders / "images" / "image0.png").unlink()
    Image.fromarray(picture(0)).save(folders / "images" / f"image0{suffix}")
    assert only(folders).shape == (HEIGHT, WIDTH, 3)


def test_hidden_files_subfolders_and_other_files_are_left_alone(folders: Path) -> None:
    (folders / "images" / "._image0.png").write_bytes(b"what macOS leaves behind")
    (folders / "images" / "Thumbs.db").write_bytes(b"")
    (folders / "images" / "old.png").mkdir()
    reader(folders).check()


def test_grayscale_images_become_rgb(folders: Path) -> None:
    gray = picture(0)[..., 0]
    Image.fromarray(gray).save(folders / "images" / "image0.png")
    assert np.array_equal(only(folders), np.repeat(gray[..., None], 3, axis=2))


def test_transparent_images_are_laid_on_white(folders: Path) -> None:
    rgba = np.dstack([picture(0), np.full((HEIGHT, WIDTH), 255, np.uint8)])
    rgba[0, 0, 3] = 0
    Image.fromarray(rgba).save(folders / "images" / "image0.png")
    image = only(folders)
    assert image[0, 0].tolist() == [255, 255, 255]
    assert np.array_equal(image[1:], rgba[1:, :, :3])


def test_palette_images_with_a_transparent_colour_are_laid_on_white(folders: Path) -> None:
    indexed = Image.fromarray(np.eye(HEIGHT, WIDTH, dtype=np.uint8)).convert("P")
    indexed.putpalette([10, 20, 30, 40, 50, 60])
    indexed.save(folders / "images" / "image0.png", transparency=1)
    image = only(folders)
    assert image[0, 0].tolist() == [255, 255, 255]
    assert image[0, 1].tolist() == [10, 20, 30]


def test_exif_orientation_is_applied(folders: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6  # stored turned: to be shown turned by 90 degrees clockwise
    stored = np.rot90(picture(0), 1)
    Image.fromarray(np.ascontiguousarray(stored)).save(folders / "images" / "image0.png", exif=exif)
    assert np.array_equal(only(folders), picture(0))


def test_a_mask_that_was_not_turned_with_its_image_is_explained(folders: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(picture(0)).save(folders / "images" / "image0.png", exif=exif)
    with pytest.raises(DataError, match="turned by its EXIF orientation"):
        reader(folders).check()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palette_masks_give_indices(folders: Path, bits: int) -> None:
    indices = mask(0) % min(CLASSES, 2**bits)
    palette = Image.new("P", (WIDTH, HEIGHT))
    palette.putdata(indices.ravel().tolist())
    palette.putpalette([0, 0, 0, 200, 0, 0, 0, 200, 0])
    palette.save(folders / "labels" / "image0.png", bits=bits)
    assert np.array_equal(label_of(folders), indices)


def label_of(root: Path, name: str = "image0", **options: object) -> np.ndarray:
    data = reader(root, **options)
    return next(s.label for split in ("train", "test") for s in data.split(split) if s.name == name)


@pytest.mark.parametrize("bits", [2, 4])
def test_grayscale_masks_of_few_bits_give_stored_values(folders: Path, bits: int) -> None:
    write_gray_png(folders / "labels" / "image0.png", mask(0), bits)
    assert np.array_equal(label_of(folders), mask(0))


def write_gray_png(path: Path, values: np.ndarray, bits: int) -> None:
    """Pillow cannot write grayscale PNGs of 2 and 4 bits, but other programs do."""
    import struct
    import zlib

    per_byte = 8 // bits
    padded = np.pad(values, ((0, 0), (0, -values.shape[1] % per_byte))).reshape(len(values), -1, per_byte)
    packed = (padded << (np.arange(per_byte)[::-1] * bits).astype(np.uint8)).sum(2).astype(np.uint8)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + b"".join(
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
            for kind, body in chunks
        )
    )


def test_sixteen_bit_masks(folders: Path) -> None:
    values = mask(0).astype(np.uint16)
    values[0, 0] = 65535
    Image.fromarray(values).save(folders / "labels" / "image0.png")
    label = label_of(folders, ignore=65535)
    assert label.dtype == np.uint8
    assert label[0, 0] == IGNORE
    assert np.array_equal(label[1:], mask(0)[1:])


def test_two_colour_masks(folders: Path) -> None:
    Image.fromarray(mask(0) > 0).save(folders / "labels" / "image0.png")
    assert np.array_equal(label_of(folders), (mask(0) > 0).astype(np.uint8))


@pytest.mark.parametrize("ignore", [0, 2])
def test_the_ignore_value_may_be_a_class_id(folders: Path, ignore: int) -> None:
    assert np.array_equal(label_of(folders, ignore=ignore), np.where(mask(0) == ignore, IGNORE, mask(0)))


# How it is split


def test_seed_split_depends_on_the_seed_only(folders: Path) -> None:
    first = reader(folders, split=SeedSplit((0.6, 0.2, 0.2), seed=1))
    sizes = [len(first.split(name)) for name in ("train", "validation", "test")]
    assert sizes == [6, 2, 2]
    second = reader(folders, split=SeedSplit((0.6, 0.2, 0.2), seed=2))
    assert first.split("train").names != second.split("train").names
    again = reader(folders, split=SeedSplit((0.6, 0.2, 0.2), seed=1))
    assert first.split("train").names == again.split("train").names


@given(
    st.lists(st.sampled_from("abcdefghijkl"), min_size=1, max_size=40),
    st.integers(0, 1000),
    st.sampled_from([(0.8, 0.0, 0.2), (0.6, 0.2, 0.2), (0.34, 0.33, 0.33)]),
)
@settings(max_examples=100, deadline=None)
def test_seed_split_keeps_groups_whole_and_loses_nothing(
    groups: list[str], seed: int, fractions: tuple[float, float, float]
) -> None:
    stems = [f"{group}_{number}" for number, group in enumerate(groups)]
    rule = SeedSplit(fractions, seed)
    try:
        splits = rule.assign(stems, lambda stem: stem[0])
    except DataError:  # some split is left without an image
        return
    assert sorted(stem for members in splits.values() for stem in members) == sorted(stems)
    assert splits == rule.assign(stems[::-1], lambda stem: stem[0])
    of_group = [{stem[0] for stem in members} for members in splits.values()]
    assert sum(len(names) for names in of_group) == len(set(groups))


def test_group_separator(folders: Path) -> None:
    for kind in ("images", "labels"):
        for path in list((folders / kind).iterdir()):
            number = int(path.stem.removeprefix("image"))
            path.rename(path.with_name(f"street_{number // 2}_{number}.png"))
    data = reader(folders, group_separator="_")
    members = {name: {sample.group for sample in data.split(name)} for name in ("train", "test")}
    assert set(data.split("train").groups) == members["train"]
    assert members["train"].isdisjoint(members["test"])
    assert members["train"] | members["test"] == {f"street_{number}" for number in range(5)}


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_split_by_mapping_takes_numbers_as_names(folders: Path, suffix: str) -> None:
    for kind in ("images", "labels"):
        (folders / kind / "image0.png").rename(folders / kind / "0001.png")
    path = folders / f"splits{suffix}"
    path.write_text(
        json.dumps({"train": ["0001"], "test": ["image1"]})
        if suffix == ".json"
        else "train: [0001]\ntest:\n  - image1\n"
    )
    data = reader(folders, split=FileSplit(path))
    assert data.split("train").names == ("0001",)
    assert len(data.split("validation")) == 0


# Identity


def test_identity_is_that_of_the_content(folders: Path) -> None:
    by_seed = reader(folders)
    before = by_seed.identity()
    assert json.loads(json.dumps(before)) == before
    assert reader(folders).identity() == before
    train, test = (list(by_seed.split(name).names) for name in ("train", "test"))
    Image.fromarray(picture(77)).save(folders / "images" / "unlisted.png")
    rule = write_split_files(folders, train=train[::-1], test=test)
    assert reader(folders, split=rule).identity() == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: Image.fromarray(picture(99)).save(root / "images" / "image3.png"),
        lambda root: Image.fromarray(mask(99)).save(root / "labels" / "image3.png"),
        lambda root: [(root / kind / "image3.png").rename(root / kind / "other.png") for kind in ("images", "labels")],
        lambda root: [(root / kind / "image3.png").unlink() for kind in ("images", "labels")],
    ],
    ids=["image", "mask", "name", "removed"],
)
def test_identity_changes_with_any_sample(folders: Path, change: Callable[[Path], object]) -> None:
    before = reader(folders).identity()
    change(folders)
    assert reader(folders).identity() != before


def test_identity_changes_with_what_is_made_of_the_files(folders: Path) -> None:
    before = reader(folders).identity()
    assert reader(folders, ignore=2).identity() != before
    assert reader(folders, classes=4).identity() != before
    assert reader(folders, split=SeedSplit((0.5, 0.0, 0.5), seed=5)).identity() != before
    assert reader(folders, classes=("a", "b", "c")).identity() == before
