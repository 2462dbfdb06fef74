"""Every data set of ours, and the example of one of a user's own, keeps the contract that third parties test with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import ROOT, folder_files, tiny
from support.layouts import MAKERS, rebuilt, write_image

import diffsift
from diffsift import MappedDataset, Specification
from diffsift.datasets import DATASETS, DataKind, Dataset, RenderedScenes, register_dataset
from diffsift.errors import DataError, SpecificationError
from diffsift.testing.dataset import DatasetContract


@pytest.fixture
def custom(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The example as a module; the kind that it registers is known during the test."""
    import importlib.util

    monkeypatch.setattr(DATASETS, "_registered", {})
    spec = importlib.util.spec_from_file_location("custom_dataset", ROOT / "examples" / "custom_dataset.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "custom_dataset", module)  # where pydantic looks for the names in annotations
    spec.loader.exec_module(module)
    return module


class TestSegmentationFolder(DatasetContract):
    def make(self, folder: Path) -> Dataset:
        if not (folder / "images").exists():
            folder_files.write_folders(folder)
        return folder_files.reader(folder)

    def changed(self, folder: Path) -> Dataset:
        Image.fromarray(folder_files.picture(99)).save(folder / "images" / "image3.png")
        return self.make(folder)

    def damaged(self, folder: Path) -> Dataset:
        self.make(folder)
        (folder / "labels" / "image3.png").write_bytes(b"no mask")
        return self.make(folder)


class LayoutContract(DatasetContract):
    """A published layout."""

    layout: str

    def make(self, folder: Path) -> Dataset:
        if any(folder.iterdir()):
            return rebuilt(self.layout, folder)
        MAKERS[self.layout][0](folder)
        # A list of pairs for the test split too, as the contract asks for one.
        if self.layout == "spair":
            _add_test_pairs(folder)
        return rebuilt(self.layout, folder)

    def changed(self, folder: Path) -> Dataset:
        write_image(self._image(folder), 99)
        return self.make(folder)

    def damaged(self, folder: Path) -> Dataset:
        self.make(folder)
        self._image(folder).write_bytes(b"no image")
        return self.make(folder)

    def _image(self, folder: Path) -> Path:
        return next(item.image for item in self.make(folder)._items["train"].values())  # type: ignore[attr-defined]


def _add_test_pairs(folder: Path) -> None:
    annotation = folder / "ImageAnnotation" / "aeroplane" / "2008_01.json"
    for stem in ("2009_01", "2009_02"):
        write_image(folder / "JPEGImages" / "aeroplane" / f"{stem}.jpg", 7)
        annotation.with_name(f"{stem}.json").write_text(annotation.read_text())
    (folder / "Layout" / "large" / "test.txt").write_text("000001-2009_01-2009_02:aeroplane\n")


class TestVoc(LayoutContract):
    layout = "voc"


class TestAde(LayoutContract):
    layout = "ade20k"


class TestCityscapes(LayoutContract):
    layout = "cityscapes"


class TestDdpmSegmentation(LayoutContract):
    layout = "ddpm-segmentation"


class TestDepthFolder(LayoutContract):
    layout = "depth-folder"


class TestNormalsFolder(LayoutContract):
    layout = "normals-folder"


class TestClassFolders(LayoutContract):
    layout = "class-folders"


class TestSpair(LayoutContract):
    layout = "spair"


class TestList(LayoutContract):
    layout = "list"


class TestMapped(DatasetContract):
    def make(self, folder: Path, *, first: int = 0) -> Dataset:
        rng = np.random.default_rng(3)
        pictures = [rng.integers(0, 256, (5, 7, 3), dtype=np.uint8) for _ in range(12)]
        rows = [
            {"image": image, "label": np.eye(5, 7, dtype=np.uint8), "video": n // 2} for n, image in enumerate(pictures)
        ]
        rows[0]["label"] = np.full((5, 7), first, np.uint8)
        return MappedDataset(rows, group="video", classes=2)

    def changed(self, folder: Path) -> Dataset:
        return self.make(folder, first=1)

    def damaged(self, folder: Path) -> Dataset:
        return self.make(folder, first=2)


class RenderedScenesContract(DatasetContract):
    task: str

    def make(self, folder: Path) -> Dataset:
        return RenderedScenes(train=6, validation=4, test=4, size=32, task=self.task)

    def changed(self, folder: Path) -> Dataset:
        return RenderedScenes(train=6, validation=4, test=4, size=32, seed=1, task=self.task)


class TestRenderedScenesForSegmentation(RenderedScenesContract):
    task = "segmentation"


class TestRenderedScenesForDepth(RenderedScenesContract):
    task = "depth"


class TestRenderedScenesForNormals(RenderedScenesContract):
    task = "normals"


class TestRenderedScenesForClassification(RenderedScenesContract):
    task = "classification"


class TestRenderedScenesForCorrespondence(RenderedScenesContract):
    task = "correspondence"


class TestExample(DatasetContract):
    @pytest.fixture(autouse=True)
    def _module(self, custom: Any) -> None:
        self.module = custom

    def make(self, folder: Path) -> Dataset:
        made: Dataset = self.module.Squares(5)
        return made

    def changed(self, folder: Path) -> Dataset:
        made: Dataset = self.module.Squares(6)
        return made


def test_a_registered_kind_is_searched(custom: Any, tiny_pipeline: Path, tmp_path: Path) -> None:
    values = tiny.specification(tiny_pipeline, tmp_path, study={"trials": 4})
    values["data"] = {"kind": "squares", "images": 6}
    assert Specification.parse(values).identity()["data"] == {"kind": "squares", "images": 6}
    files = {"workspace": tmp_path / "workspace", "out": tmp_path / "selection.json"}
    first = diffsift.select(values, **files)
    assert first.outcome.data == "squares in squares"
    assert diffsift.resume("tiny", **files).outcome.found == first.outcome.found


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"images": 1}, "data.images must be at least 2, but got 1"),
        ({"imags": 3}, "data.imags is not a field; did you mean 'images'"),
        ({"kind": "squarez"}, "data.kind must be one of .*squares.* but got 'squarez'"),
    ],
)
def test_fields_of_a_registered_kind_are_checked(custom: Any, fields: dict[str, Any], message: str) -> None:
    values = {"model": {"id": "m"}, "study": {"name": "s"}, "data": {"kind": "squares", **fields}}
    with pytest.raises(SpecificationError, match=message):
        Specification.parse(values)
    del values["data"]
    further = {"other": {"kind": "squares", **fields}}
    with pytest.raises(SpecificationError, match=message.replace("data", r"further_data\.other", 1)):
        Specification.parse({**values, "data": {"kind": "rendered-scenes"}, "further_data": further})


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(SpecificationError, match="'voc' is taken"):
        register_dataset("voc", DataKind)
    assert "voc" in DATASETS


class Careless(Dataset):
    """A data set of a user's own with one thing wrong."""

    task, class_names = "segmentation", ("a", "b")

    def __init__(self, **changes: Any) -> None:
        self.changes = changes
        self.task = changes.pop("task", "segmentation")

    def split(self, name: str) -> Any:
        if name == "validation":
            return []
        fields = {
            "name": name,
            "image": np.zeros((4, 4, 3), np.uint8),
            "label": np.eye(4, dtype=np.uint8),
            "group": name,
        }
        return [diffsift.datasets.Sample(**{**fields, **self.changes})]


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "twice"}, "samples must have different names, but there are two of 'twice'"),
        ({"group": "torn"}, "the data must keep a group in one split, but 'torn' is in train and test"),
        ({"image": np.zeros((4, 4), np.uint8)}, r"the image of train must be uint8 \(height, width, 3\), but is uint8"),
        ({"label": np.eye(4)}, r"the label of train must be uint8 with 2 axes for segmentation, but is float64"),
        ({"label": np.eye(5, dtype=np.uint8)}, r"must be as large as its image \(4 x 4 px\), but is 5 x 5 px"),
        ({"label": np.full((4, 4), 255, np.uint8)}, "must have a pixel that counts, but has none"),
        ({"label": np.full((4, 4), 2, np.uint8)}, "must hold class ids from 0 to 1, but holds 2 to 2"),
        ({"task": "classification", "label": np.array(2)}, "must hold class ids from 0 to 1"),
    ],
)
def test_the_shared_check_refuses_mistakes(changes: dict[str, Any], message: str) -> None:
    Careless().check()
    with pytest.raises(DataError, match=message):
        Careless(**changes).check()
