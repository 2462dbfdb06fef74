"""Folders of normals maps, and normals in lists and rows: how files are decoded, what is masked, what is refused."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.layouts import HEIGHT, WIDTH, directions, make_normals, write_image

from diffsift.datasets import Dataset, MappedDataset, Sample, image_list, normals_folder
from diffsift.errors import DataError

SHARES = (0.6, 0.0, 0.4)


def labels_of(data: Dataset) -> dict[str, np.ndarray]:
    data.check()
    return {sample.name: sample.label for split in ("train", "test") for sample in data.split(split)}


def degrees_between(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.degrees(np.arccos((first * second).sum(-1).clip(-1, 1)))


def write_rgb16(file: Path, levels: np.ndarray) -> None:
    """An RGB PNG of 16 bits per channel, which Pillow cannot write."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width, _ = levels.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in levels)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def test_pictures_and_arrays_hold_the_same_directions(tmp_path: Path) -> None:
    make_normals(tmp_path)
    truth = directions(3)
    levels = np.round((truth + 1) / 2 * 65535)
    levels[0] = 0
    levels[1] = 32768
    write_rgb16(tmp_path / "normals" / "3.png", levels)
    found = labels_of(normals_folder(tmp_path, SHARES, 0))
    for number in range(5):
        label = found[str(number)]
        assert (label.dtype, label.shape) == (np.float32, (HEIGHT, WIDTH, 3))
        known = np.isfinite(label[..., 0])
        assert not known[0].any()
        np.testing.assert_allclose(np.linalg.norm(label[known], axis=1), 1, atol=1e-6)
        worst = degrees_between(label[2:], directions(number)[2:]).max()
        assert worst < (0.5 if number % 2 else 0.05)
    assert not np.isfinite(found["3"][:2]).any(), "black and mid-grey are no directions"
    assert np.isfinite(found["3"][2:]).all()


def test_unknown_normals_are_masked_counted_and_said(tmp_path: Path) -> None:
    (tmp_path / "normals").mkdir()
    unknown = [[0, 0, 0], [np.nan, 0, 1], [np.inf, 0, 0], [0, 0, 0.5], [0, 0, -3]]
    for number, bad in enumerate(unknown):
        write_image(tmp_path / "images" / f"{number}.png", number)
        values = directions(number)
        values[0, : number + 1] = bad
        np.save(tmp_path / "normals" / f"{number}.npy", values)
    data = normals_folder(tmp_path, SHARES, 0)
    found = labels_of(data)
    for number in range(5):
        assert np.isnan(found[str(number)]).all(2).sum() == number + 1
    notes = data.notes()
    assert [note.split(" are unknown ")[1] for note in notes] == ["(not of unit length): they are masked"] * 2
    assert sum(int(note.split()[0]) for note in notes) == 1 + 2 + 3 + 4 + 5
    assert f"of {3 * HEIGHT * WIDTH} normals (" in notes[0]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ((directions(0) + 1) / 2, r"must hold unit vectors, but most are of other lengths, .*: arrays hold n itself"),
        (2 * directions(0), "must hold unit vectors, but most are of other lengths, 2.00 to 2.00"),
        (
            (directions(0) * 127).astype(np.int8),
            r"must hold normals .*, but holds int8",
        ),
        (
            directions(0)[..., :2],
            r"must hold normals .* \(height, width, 3\), but holds float32 \(6, 8, 2\)",
        ),
        (directions(0)[..., 0], r"must hold numbers with 3 axes, but holds \(6, 8\)"),
        (np.zeros((HEIGHT, WIDTH, 3), np.float32), "must have a pixel that counts, but has none"),
        (directions(0)[:-1], r"must be as large as its image 0.png \(8 x 6 px\), but is 8 x 5 px"),
    ],
)
def test_what_holds_no_normals_is_refused(values: np.ndarray, message: str, tmp_path: Path) -> None:
    make_normals(tmp_path)
    np.save(tmp_path / "normals" / "0.npy", values)
    with pytest.raises(DataError, match=f"0.npy {message}"):
        normals_folder(tmp_path, SHARES, 0).check()


@pytest.mark.parametrize("mode", ["L", "P", "RGBA"])
def test_pictures_that_are_not_rgb_are_refused(mode: str, tmp_path: Path) -> None:
    make_normals(tmp_path)
    Image.new(mode, (WIDTH, HEIGHT)).save(tmp_path / "normals" / "1.png")
    with pytest.raises(DataError, match=rf"1.png must be an RGB PNG of .* or a .npy file, .* mode '{mode}'"):
        normals_folder(tmp_path, SHARES, 0).check()


def test_a_photograph_is_no_normals_map(tmp_path: Path) -> None:
    make_normals(tmp_path)
    write_image(tmp_path / "normals" / "1.png", 7)
    with pytest.raises(DataError, match=r"1.png must hold unit vectors, but most are of other lengths"):
        normals_folder(tmp_path, SHARES, 0).check()


def test_lists_and_rows_hold_normals_too(tmp_path: Path) -> None:
    make_normals(tmp_path)
    rows: list[dict[str, Any]] = [
        {"image": f"images/{n}.png", "label": f"normals/{n}.{'png' if n % 2 else 'npy'}", "split": split}
        for n, split in enumerate(("train", "train", "test"))
    ]
    (tmp_path / "list.json").write_text(json.dumps(rows))
    listed = list(labels_of(image_list(tmp_path / "list.json", "normals", None)).values())
    paths = [{**row, "image": str(tmp_path / row["image"]), "label": str(tmp_path / row["label"])} for row in rows]
    arrays = [{**row, "label": label} for row, label in zip(paths, listed, strict=True)]
    tensors = [{**row, "label": torch.tensor(row["label"]).permute(2, 0, 1)} for row in arrays]
    for given in (paths, arrays, tensors):
        data = MappedDataset(given, split="split", task="normals")
        for found, expected in zip(labels_of(data).values(), listed, strict=True):
            np.testing.assert_allclose(found, expected, atol=1e-6)
        assert data.class_names == ()
        assert "normals (" in data.notes()[0]
    flat = MappedDataset([{**row, "label": np.ones((HEIGHT, WIDTH))} for row in paths], split="split", task="normals")
    with pytest.raises(DataError, match=r"label of row 0 must have a vector per pixel, but has the shape \(6, 8\)"):
        flat.check()


class Given(Dataset):
    """A user's own data set, of one label."""

    task, class_names = "normals", ()

    def __init__(self, label: np.ndarray) -> None:
        self._label = label

    def split(self, name: str) -> Any:
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        return [] if name == "validation" else [Sample(name, image, self._label, name)]


@pytest.mark.unchecked
@pytest.mark.parametrize("change", [lambda n: (n + 1) / 2, lambda n: n[..., :2], lambda n: n[..., [0, 1, 2, 2]]])
def test_labels_of_a_users_data_set_must_be_unit_vectors(change: Any) -> None:
    Given(directions(0)).check()
    with pytest.raises(DataError, match=r"the label of train must hold unit vectors of 3 components"):
        Given(change(directions(0))).check()


def test_a_normal_that_is_known_in_part_is_refused() -> None:
    label = directions(0)
    label[2, 3, 0] = np.nan
    with pytest.raises(DataError, match="all of them NaN where a normal is unknown"):
        Given(label).check()
