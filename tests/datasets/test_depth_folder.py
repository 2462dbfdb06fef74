"""Folders of depth maps: what is masked, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.layouts import (
    HEIGHT,
    WIDTH,
    ids,
    make_depth,
    write_gray,
    write_image,
)

from diffsift.datasets import depth_folder
from diffsift.errors import DataError

SHARES = (0.6, 0.0, 0.4)


def test_8_bit_depth_needs_a_stated_unit(tmp_path: Path) -> None:
    make_depth(tmp_path)
    write_gray(tmp_path / "depth" / "1.png", ids(0, 200))
    with pytest.raises(DataError, match=r"1.png must be a grayscale PNG of 16 bits .* data.png_unit"):
        depth_folder(tmp_path, SHARES, 0).check()
    data = depth_folder(tmp_path, SHARES, 0, png_unit=0.02)
    data.check()
    found = {sample.name: sample.label for split in ("train", "test") for sample in data.split(split)}
    assert np.allclose(found["1"][1], 4.0)
    assert np.allclose(found["3"][1], 30.0), "1500 levels of 2 cm"
    assert data.identity() != depth_folder(tmp_path, SHARES, 0, png_unit=0.01).identity()


@pytest.mark.parametrize("mode", ["RGB", "P", "1"])
def test_depth_that_is_not_grayscale_is_refused(mode: str, tmp_path: Path) -> None:
    make_depth(tmp_path)
    Image.new(mode, (WIDTH, HEIGHT)).save(tmp_path / "depth" / "1.png")
    with pytest.raises(DataError, match=r"1.png must be a grayscale PNG of 16 bits"):
        depth_folder(tmp_path, SHARES, 0, png_unit=1.0).check()


def test_whole_numbers_are_not_metres(tmp_path: Path) -> None:
    make_depth(tmp_path)
    np.save(tmp_path / "depth" / "0.npy", ids(900, 1500, dtype=np.uint16))
    with pytest.raises(DataError, match=r"0.npy must hold metres as floating-point numbers, but holds uint16"):
        depth_folder(tmp_path, SHARES, 0).check()


def test_unknown_depth_is_masked_and_counted(tmp_path: Path) -> None:
    for number in range(5):
        write_image(tmp_path / "images" / f"{number}.png", number)
    (tmp_path / "depth").mkdir()
    for number, bad in enumerate([0.0, np.nan, np.inf, -np.inf, -1.0]):
        values = np.ones((HEIGHT, WIDTH))
        values[0, : number + 1] = bad
        np.save(tmp_path / "depth" / f"{number}.npy", values)
    data = depth_folder(tmp_path, SHARES, 0)
    data.check()
    total = 0
    for held in data.summary().splits:
        samples = data.split(held.name)  # type: ignore[arg-type]
        unknown = sum(int(np.isnan(sample.label).sum()) for sample in samples)
        assert held.excluded == unknown / (len(samples) * HEIGHT * WIDTH)
        assert str(held).endswith(f"; depth 1 to 1 m, typically 1 m; unknown {held.excluded:.1%}".replace("%", " %"))
        total += unknown
    assert total == 1 + 2 + 3 + 4 + 5


def test_two_depths_of_an_image_are_refused(tmp_path: Path) -> None:
    make_depth(tmp_path)
    write_gray(tmp_path / "depth" / "0.png", ids(0, 1500, dtype=np.uint16))
    with pytest.raises(DataError, match=r"holds 0.npy and 0.png"):
        depth_folder(tmp_path, SHARES, 0).check()
