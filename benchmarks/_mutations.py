"""Inputs that are damaged at random, and what diffsift does with each: the mutators of `robustness.py`.

A part of the benchmark is a class with a fixed seed. `make` writes its case of a number into an empty folder, and `use`
does with it what a user would; it may succeed or raise a `DiffsiftError`.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

SIZE = 32
CLASSES = ("background", "square", "disc")
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3.5, -0.0, 10**30, -(10**30), 1e308, float("inf"), float("-inf"), float("nan")),
    *(
        "",
        " ",
        "no",
        "0",
        "1e9",
        "x" * 5000,
        "é\u202e\x00",
        "../../etc/passwd",
        "/dev/zero",
        "~",
        "http://a",
        "{}",
        "a/b",
    ),
    *([], [[]], [1, "a", None], [0] * 300, {}, {"kind": "folder"}, {"a": {"b": []}}, {"": None}),
)


class Part(ABC):
    """One kind of input.

    Args:
        scratch: folder for what all cases start from.
    """

    default_count: int

    def __init__(self, scratch: Path) -> None:
        self.scratch = scratch

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
        self._bases = _specifications(scratch / "data", _pipeline())

    def make(self, number: int, folder: Path) -> None:
        chance = random.Random(f"specification {number}")
        values = deepcopy(chance.choice(self._bases))
        if number % 4:
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                values = _mutated_value(values, chance)
            text = yaml.safe_dump(values, allow_unicode=True, sort_keys=False)
        else:
            text = _mutated_text(yaml.safe_dump(values, sort_keys=False), chance)
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
        model = ModelSpecification(id=str(_pipeline()), device="cpu")
        backbone = load(model)
        known = {entry.name: entry for entry in backbone.activations()}
        names = ("up-level1-repeat0-vit-block0-cross-q", "up-level1-repeat1-res-out")
        members = [Candidate("main", name, 50) for name in names]
        noise = torch.Generator().manual_seed(0)
        statistics = {
            entry: Standardiser.fit(
                torch.randn(200, known[entry.activation].channels, generator=noise), max_channels=known_channels
            )
            for entry, known_channels in zip(members, (12, 512), strict=True)
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
        way = number % 4
        if way < 2:
            for _ in range(chance.choice((1, 1, 1, 2, 4))):
                document = _mutated_value(document, chance)
            text = json.dumps(document)
        elif way == 2:
            text = _mutated_text(text, chance)
        else:  # whoever forges the statistics forges their digest too
            blob = _mutated_statistics(blob, chance)
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
        (folder / f"image.{kind}").write_bytes(_mutated_bytes(_encoded(_picture(number), kind), chance))

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
            file.write_bytes(_mutated_bytes(file.read_bytes(), chance))
        else:
            _odd_mask(chance).save(file)

    def use(self, folder: Path) -> None:
        from diffsift.datasets.opening import open_dataset
        from diffsift.specification import Specification

        values = _specifications(folder, _pipeline())[0]
        specification = Specification.parse(values)
        dataset = open_dataset(specification.data, "segmentation")
        dataset.check()


class Models(Part):
    """Pipeline folders with a damaged configuration or weights, or without a file; each is loaded and run."""

    default_count = 100

    def make(self, number: int, folder: Path) -> None:
        chance = random.Random(f"model {number}")
        shutil.copytree(_pipeline(), folder / "model")
        files = sorted(file for file in (folder / "model").rglob("*") if file.is_file())
        configurations = [file for file in files if file.suffix == ".json"]
        way = number % 5
        if way < 3:
            file = chance.choice([file for file in configurations if "config" in file.name or "index" in file.name])
            try:
                values = _mutated_value(json.loads(file.read_text(encoding="utf-8")), chance)
            except ValueError:
                values = None
            file.write_text(json.dumps(values), encoding="utf-8", errors="surrogatepass")
        elif way == 3:
            file = chance.choice(files)
            file.write_bytes(_mutated_bytes(file.read_bytes(), chance))
        else:
            chance.choice(files).unlink()

    def use(self, folder: Path) -> None:
        import torch

        from diffsift.backbones import ModelSpecification, load

        backbone = load(ModelSpecification(id=str(folder / "model"), device="cpu"))
        wanted = {50: [entry for entry in backbone.activations() if entry.name == "up-level1-repeat1-res-out"]}
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


def _pipeline() -> Path:
    from diffsift.demo import PIPELINE

    return PIPELINE


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
        lambda: mask.astype(np.int32) - 1,
        lambda: mask.astype(np.float32) + chance.choice((0.0, 0.5, np.nan)),
        lambda: np.stack([mask] * chance.choice((3, 4)), axis=2),
        lambda: mask > 0,
        lambda: mask[: chance.randint(1, SIZE), : chance.randint(1, SIZE)],
        lambda: np.full_like(mask, chance.randint(0, 255)),
    )
    array = chance.choice(makers)()
    if array.dtype == np.float32:  # PNG holds no floats
        return Image.fromarray((np.nan_to_num(array, nan=255) * 100).clip(0, 65535).astype(np.uint16))
    return Image.fromarray(array)


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


def _mutated_value(tree: Any, chance: random.Random) -> Any:
    """A tree in which one place is replaced, removed, doubled, renamed or wrapped; `tree` is changed."""
    places = list(_places(tree))
    if not places:
        return chance.choice(NASTY)
    holder, key = chance.choice(places)
    way = chance.randrange(6)
    if way < 3:
        holder[key] = deepcopy(chance.choice(NASTY))
    elif way == 3:
        del holder[key]
    elif way == 4:
        holder[key] = [holder[key]] if chance.random() < 0.5 else {"kind": holder[key]}
    elif isinstance(holder, dict):
        holder[f"{key}{chance.choice(('s', '', '.', 'é', 'x' * 3000))}"] = holder.pop(key)
    else:
        holder.append(deepcopy(holder[key]))
    return tree


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Every list or mapping in a tree with each of its keys."""
    if not isinstance(tree, dict | list):
        return []
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    inside = [place for key in keys for place in _places(tree[key])]
    return [(tree, key) for key in keys] + inside


_PIECES = (
    "\n",
    "  ",
    "\t",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    '"',
    "'",
    "&a ",
    "*a",
    "!!",
    "!!timestamp ",
    "<<: ",
    "|",
    "%",
    "\x00",
    "é",
)


def _mutated_text(text: str, chance: random.Random) -> str:
    """A text with characters removed, doubled or put in, or cut short."""
    for _ in range(chance.choice((1, 2, 5, 20))):
        place = chance.randrange(len(text) + 1)
        way = chance.randrange(5)
        if way == 0:
            text = text[:place] + text[place + chance.randint(1, 20) :]
        elif way == 1:
            text = text[:place] + chance.choice(_PIECES) * chance.choice((1, 1, 3, 200)) + text[place:]
        elif way == 2:
            text = text[:place] + text[place : place + 40] * 2 + text[place + 40 :]
        elif way == 3:
            text = text[:place] + chr(chance.randrange(1, 0xD7FF)) + text[place + 1 :]
        elif chance.random() < 0.3:
            text = text[:place]
    return text


def _mutated_bytes(content: bytes, chance: random.Random) -> bytes:
    """A file with flipped bits, foreign bytes, a zeroed stretch, or cut short."""
    changed = bytearray(content)
    way = chance.randrange(5)
    if way == 0:
        return bytes(changed[: chance.randrange(len(changed))])
    for _ in range(chance.choice((1, 3, 20))):
        place = chance.randrange(len(changed))
        if way == 1:
            changed[place] ^= 1 << chance.randrange(8)
        elif way == 2:
            changed[place : place + 4] = chance.randbytes(4)
        elif way == 3:
            changed[place : place + 200] = bytes(200)
        else:  # where formats keep sizes and types
            changed[chance.randrange(min(200, len(changed)))] = chance.choice((0, 1, 127, 255))
    return bytes(changed)


def _mutated_statistics(blob: bytes, chance: random.Random) -> bytes:
    """Statistics whose bytes, shapes, types, names or numbers are others."""
    import torch
    from safetensors.torch import load, save

    if chance.random() < 0.4:
        return _mutated_bytes(blob, chance)
    tensors = load(blob)
    name = chance.choice(sorted(tensors))
    tensor = tensors[name]
    makers: tuple[Callable[[], torch.Tensor], ...] = (
        lambda: tensor[:1],
        lambda: tensor[:-1],
        lambda: torch.cat([tensor, tensor]),
        lambda: tensor[None],
        tensor.flatten,
        lambda: torch.full_like(tensor, chance.choice((float("nan"), float("inf"), 0.0, -1.0, 1e38))),
        lambda: tensor.to(chance.choice((torch.float64, torch.float16, torch.int64))),
        lambda: torch.zeros(0),
        lambda: torch.tensor(1.0),
    )
    tensors[chance.choice((name, name, name, "9.mean"))] = chance.choice(makers)().contiguous()
    if chance.random() < 0.2:
        del tensors[name]
    return save(tensors)


def _encoded(pixels: np.ndarray, kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()
