"""Inputs that are damaged at random, and what a user would do with each: the cases of `robustness.py`.

A part of the benchmark is a class with fixed seeds. `make` writes its case of a number into an empty folder, and `use`
does with it what a user would; it may succeed or raise a `DiffsiftError`.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from _mutations import mutated_bytes, mutated_statistics, mutated_text, mutated_value
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from support import tiny

SIZE = 32
CLASSES = ("background", "square", "disc")


class Part(ABC):
    """One kind of input.

    Args:
        scratch: folder for what all cases start from.
    """

    default_count: int

    def __init__(self, scratch: Path) -> None:
        self.scratch, self.model = scratch, scratch / "model"
        tiny.pipeline().save_pretrained(self.model)

    @abstractmethod
    def make(self, number: int, folder: Path) -> None:
        """Write the case of a number, the same in every run."""

    @abstractmethod
    def use(self, folder: Path) -> None:
        """Do with the case what a user would."""


class Specifications(Part):
    """YAML specifications whose fields or characters are changed; read and checked as ``diffsift search`` does."""

    default_count = 3000

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        write_images(scratch / "data")
        self._bases = _specifications(scratch / "data", self.model)

    def make(self, number: int, folder: Path) -> None:
        chance = random.Random(f"specification {number}")
        values = deepcopy(chance.choice(self._bases))
        if number % 4:
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                values = mutated_value(values, chance)
            text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
        else:
            text = mutated_text(yaml.safe_dump(values, sort_keys=False), chance)
        (folder / "specification.yaml").write_text(text, encoding="utf-8", errors="surrogatepass")

    def use(self, folder: Path) -> None:
        from diffsift.runs.inputs import check_inputs
        from diffsift.specification_file import load_specification

        check_inputs(load_specification(folder / "specification.yaml"))


class Selections(Part):
    """Selection files and their statistics; what can be read is loaded, and its features of an image are computed."""

    default_count = 1500

    def __init__(self, scratch: Path) -> None:
        import torch

        from diffsift.backbones import ModelSpecification, load
        from diffsift.extraction import Standardiser, save_selection
        from diffsift.spaces import Candidate, Selection

        super().__init__(scratch)
        model = ModelSpecification(id=str(self.model), device="cpu")
        backbone = load(model)
        known = {entry.name: entry for entry in backbone.activations()}
        names = ("up-level0-repeat0-vit-block0-cross-q", "up-level1-repeat0-res-out")
        members = [Candidate("main", name, 50) for name in names]
        noise = torch.Generator().manual_seed(0)
        statistics = {
            entry: Standardiser.fit(
                torch.randn(200, known[entry.activation].channels, generator=noise), max_channels=known_channels
            )
            for entry, known_channels in zip(members, (6, 512), strict=True)
        }
        save_selection(
            scratch / "selection.json",
            Selection.of({members[0]: 1.0, members[1]: 0.5}),
            {"main": model},
            statistics,
            identities={"main": backbone.identity()},
            about={"study": "robustness"},
        )

    def make(self, number: int, folder: Path) -> None:
        chance = random.Random(f"selection {number}")
        text = (self.scratch / "selection.json").read_text(encoding="utf-8")
        blob = (self.scratch / "selection.safetensors").read_bytes()
        document = json.loads(text)
        document.pop("checksum", None)  # whoever changes the file leaves out what would tell
        way = number % 4
        if way < 2:
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                document = mutated_value(document, chance)
            text = json.dumps(document)
        elif way == 2:
            text = mutated_text(text, chance)
        else:  # whoever forges the statistics forges their digest too
            blob = mutated_statistics(blob, chance)
            document["statistics"]["sha256"] = hashlib.sha256(blob).hexdigest()
            text = json.dumps(document)
        (folder / "selection.json").write_text(text, encoding="utf-8", errors="surrogatepass")
        (folder / "selection.safetensors").write_bytes(blob)

    def use(self, folder: Path) -> None:
        import torch

        from diffsift import FeatureExtractor

        extractor = FeatureExtractor.from_selection(folder / "selection.json", device="cpu")
        if not extractor(torch.full((1, 3, SIZE, SIZE), 0.5)).isfinite().all():
            raise AssertionError("features are not finite")


class Images(Part):
    """Image files of several formats with damaged bytes; each is decoded."""

    default_count = 300

    def make(self, number: int, folder: Path) -> None:
        chance = random.Random(f"image {number}")
        kind = ("png", "jpeg", "tiff", "webp", "bmp", "gif")[number % 6]
        (folder / f"image.{kind}").write_bytes(mutated_bytes(_encoded(_picture(number), kind), chance))

    def use(self, folder: Path) -> None:
        from diffsift.datasets import read_image

        read_image(next(folder.iterdir()))


class Masks(Part):
    """A folder of images in which one mask has damaged bytes, another type, size or values; the data are checked."""

    default_count = 300

    def make(self, number: int, folder: Path) -> None:
        chance = random.Random(f"mask {number}")
        write_images(folder)
        file = folder / "labels" / "image03.png"
        if number % 2:
            file.write_bytes(mutated_bytes(file.read_bytes(), chance))
        else:
            _odd_mask(chance).save(file)

    def use(self, folder: Path) -> None:
        from diffsift.datasets.opening import open_dataset
        from diffsift.specification import Specification

        values = _specifications(folder, self.model)[0]
        specification = Specification.parse(values)
        dataset = open_dataset(specification.data, "segmentation")
        dataset.check()


class Models(Part):
    """Pipeline folders with a damaged configuration or weights, or without a file; each is loaded and run."""

    default_count = 100

    def make(self, number: int, folder: Path) -> None:
        chance = random.Random(f"model {number}")
        shutil.copytree(self.model, folder / "model")
        files = sorted(file for file in (folder / "model").rglob("*") if file.is_file())
        configurations = [file for file in files if file.suffix == ".json"]
        way = number % 5
        if way < 3:
            file = chance.choice([file for file in configurations if "config" in file.name or "index" in file.name])
            try:
                values = mutated_value(json.loads(file.read_text(encoding="utf-8")), chance)
            except ValueError:
                values = None
            file.write_text(json.dumps(values), encoding="utf-8", errors="surrogatepass")
        elif way == 3:
            file = chance.choice(files)
            file.write_bytes(mutated_bytes(file.read_bytes(), chance))
        else:
            chance.choice(files).unlink()

    def use(self, folder: Path) -> None:
        import torch

        from diffsift.backbones import ModelSpecification, load

        backbone = load(ModelSpecification(id=str(folder / "model"), device="cpu"))
        wanted = {50: [entry for entry in backbone.activations() if entry.name == "up-level1-repeat0-res-out"]}
        for _ in backbone.capture(torch.full((1, 3, SIZE, SIZE), 0.5), wanted, seed=0):
            pass


PARTS: dict[str, type[Part]] = {
    "specifications": Specifications,
    "selections": Selections,
    "images": Images,
    "masks": Masks,
    "models": Models,
}


def write_images(root: Path, count: int = 10) -> None:
    """Images of a square and a disc, with their masks."""
    for kind in ("images", "labels"):
        (root / kind).mkdir(parents=True)
    for number in range(count):
        Image.fromarray(_picture(number)).save(root / "images" / f"image{number:02}.png")
        Image.fromarray(_mask(number)).save(root / "labels" / f"image{number:02}.png")


def _mask(number: int) -> np.ndarray:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[3:14, 4 : 12 + number % 4] = 1
    rows, columns = np.ogrid[:SIZE, :SIZE]
    mask[(rows - 22) ** 2 + (columns - 20) ** 2 < 36] = 2
    return mask


def _picture(number: int) -> np.ndarray:
    colours = np.array([[90, 90, 90], [200, 60, 60], [60, 60, 200]])
    noise = np.random.default_rng(number).normal(0, 20, (SIZE, SIZE, 3))
    return np.asarray((colours[_mask(number)] + noise).clip(0, 255).astype(np.uint8))


def _odd_mask(chance: random.Random) -> Image.Image:
    """A mask of another mode, type, size or other values."""
    mask = _mask(3)
    makers: tuple[Callable[[], np.ndarray], ...] = (
        lambda: mask * 255,
        lambda: mask.astype(np.uint16) * chance.choice((1, 257, 20000)),
        lambda: (mask - 1).astype(np.uint8),
        lambda: np.stack([mask] * chance.choice((3, 4)), axis=2),
        lambda: mask > 0,
        lambda: mask[: chance.randint(1, SIZE), : chance.randint(1, SIZE)],
        lambda: np.full_like(mask, chance.randint(0, 255)),
    )
    return Image.fromarray(chance.choice(makers)())


def _specifications(data: Path, model: Path) -> list[dict[str, Any]]:
    """Valid specifications that between them use most fields."""
    folder = {"kind": "folder", "images": str(data / "images"), "labels": str(data / "labels"), "classes": [*CLASSES]}
    small: dict[str, Any] = {
        "model": {"id": str(model), "device": "cpu"},
        "data": folder,
        "study": {"name": "robustness", "trials": 5},
    }
    full = {
        "model": {"id": str(model), "dtype": "float32", "image_size": [32, 32], "prompt": "a seven", "noise_seeds": 2},
        "further_models": {"other": {"id": str(model), "prompt": "a disc"}},
        "joint": {"prompts": ["a square"], "noise_seeds": [3]},
        "data": {**folder, "ignore": 255},
        "further_data": {"more": folder},
        "task": {"kind": "segmentation", "folds": 2},
        "timesteps": [50, 0.2],
        "filters": {"keep": ["up-*"], "drop": ["*-ffn-*"]},
        "limits": {"activations": 3, "channels": 1000, "passes": 4},
        "bank": {"pixels_per_image": 16, "max_channels": 12, "fit_images": 5, "budget_gb": 1.0},
        "probe": {"kind": "ridge", "regularisation": "auto", "balance": 0.5},
        "study": {"name": "full", "objectives": ["score", "channels"], "seed": 3, "rerank": 2, "timeout": 10.0},
        "tracking": {"mlflow": False, "child_runs": 5},
    }
    published = {**small, "protocol": "ddpm-segmentation", "task": {"kind": "segmentation"}}
    knn = {**small, "probe": {"kind": "knn", "neighbours": 5}, "study": {"name": "knn", "sampler": "tpe"}}
    return [small, full, published, knn]


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()
