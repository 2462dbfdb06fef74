"""Folders of ten images and masks, for the tests that read them and those that damage them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from diffsift.datasets import ListSplit, SeedSplit, SegmentationFiles, SegmentationFolder, SplitRule

HEIGHT, WIDTH, CLASSES = 6, 8, 3
ORIENTATION = 0x0112
HALVES = SeedSplit((0.5, 0.0, 0.5))


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def mask(number: int) -> np.ndarray:
    return np.random.default_rng([number, 1]).integers(0, CLASSES, (HEIGHT, WIDTH), dtype=np.uint8)


def write_folders(root: Path) -> Path:
    """Ten images with masks: image0 to image9."""
    for folder in ("images", "labels"):
        (root / folder).mkdir()
    for number in range(10):
        Image.fromarray(picture(number)).save(root / "images" / f"image{number}.png")
        Image.fromarray(mask(number)).save(root / "labels" / f"image{number}.png")
    return root


def reader(
    root: Path, *, split: SplitRule | None = None, prompts: Path | None = None, **options: object
) -> SegmentationFolder:
    files = SegmentationFiles(root / "images", root / "labels", prompts)
    options = {"classes": CLASSES, **options}
    return SegmentationFolder(files, split=split or HALVES, **options)  # type: ignore[arg-type]


def write_split_files(root: Path, **stems: list[str]) -> ListSplit:
    for name, members in stems.items():
        (root / f"{name}.txt").write_text("\n".join(members) + "\n\n")
    return ListSplit(**{name: root / f"{name}.txt" for name in stems})


def test_split_by_text_files_leaves_the_rest_alone(folders: Path) -> None:
    (folders / "images" / "image9.png").write_bytes(b"not an image, and not listed")
    (folders / "labels" / "image8.png").unlink()
    rule = write_split_files(folders, train=["image2", "image0"], test=["image1"], validation=["image3"])
    data = reader(folders, split=rule)
    data.check()
    assert data.split("train").names == ("image0", "image2")
    assert data.split("validation").names == ("image3",)
    assert data.split("test").names == ("image1",)
