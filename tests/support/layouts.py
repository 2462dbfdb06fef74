"""Small data sets in published layouts, as the tests make them."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from diffsift.datasets import (
    Dataset,
    ade20k,
    cityscapes,
    class_folders,
    ddpm_segmentation,
    depth_folder,
    image_list,
    normals_folder,
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


def directions(seed: int) -> np.ndarray:
    """Unit vectors that face the viewer, for every pixel."""
    vectors = np.random.default_rng(seed).normal([0, 0, 3], size=(HEIGHT, WIDTH, 3))
    return (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float32)


def make_normals(root: Path) -> Dataset:
    for number in range(5):
        write_image(root / "images" / f"{number}.png", number)
        (root / "normals").mkdir(exist_ok=True)
        values = directions(number)
        values[0] = 0
        if number % 2:
            levels = np.round((values + 1) / 2 * 255).astype(np.uint8)
            Image.fromarray(levels).save(root / "normals" / f"{number}.png")
        else:
            np.save(root / "normals" / f"{number}.npy", values)
    return normals_folder(root, (0.6, 0.0, 0.4), 0)


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
    return image_list(root / "list.csv", "segmentation", ("sky", "sea"), 9)


MAKERS: dict[str, tuple[Callable[[Path], Dataset], dict[str, int], str]] = {
    "voc": (make_voc, {"train": 2, "test": 1}, "segmentation"),
    "ade20k": (make_ade, {"train": 1, "test": 1}, "segmentation"),
    "cityscapes": (make_cityscapes, {"train": 3, "test": 1}, "segmentation"),
    "ddpm-segmentation": (make_ddpm, {"train": 2, "test": 1}, "segmentation"),
    "depth-folder": (make_depth, {"train": 3, "test": 2}, "depth"),
    "normals-folder": (make_normals, {"train": 3, "test": 2}, "normals"),
    "class-folders": (make_classes, {"train": 2, "validation": 2, "test": 2}, "classification"),
    "spair": (make_spair, {"train": 2}, "correspondence"),
    "list": (make_list, {"train": 2, "validation": 1, "test": 1}, "segmentation"),
}


def rebuilt(layout: str, root: Path) -> Dataset:
    """The data set as it lies there, without making it anew."""
    return {
        "voc": lambda: voc(root),
        "ade20k": lambda: ade20k(root),
        "cityscapes": lambda: cityscapes(root),
        "ddpm-segmentation": lambda: ddpm_segmentation(root, 21, 255),
        "depth-folder": lambda: depth_folder(root, (0.6, 0.0, 0.4), 0),
        "normals-folder": lambda: normals_folder(root, (0.6, 0.0, 0.4), 0),
        "class-folders": lambda: class_folders(root, (0.6, 0.0, 0.4), 0),
        "spair": lambda: spair(root, "large", None, category_prompt=False),
        "list": lambda: image_list(root / "list.csv", "segmentation", ("sky", "sea"), 9),
    }[layout]()
