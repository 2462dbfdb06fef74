"""Data sets from Python: PyTorch's, those that look as Hugging Face's do, and plain rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import tiny

import diffsift
from diffsift import MappedDataset, Specification
from diffsift.datasets import IGNORE
from diffsift.errors import DataError, SpecificationError, StudyError

HEIGHT, WIDTH = 5, 7


def picture(number: int) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def mask(number: int) -> np.ndarray:
    values = np.random.default_rng(100 + number).integers(0, 3, (HEIGHT, WIDTH))
    values[0, 0] = 255
    return values


def rows(count: int = 10, **columns: Callable[[int], Any]) -> list[dict[str, Any]]:
    made = {"image": picture, "label": mask, **columns}
    return [{name: make(number) for name, make in made.items()} for number in range(count)]


class TorchRows(torch.utils.data.Dataset[Any]):
    """As torchvision's data sets: (image with channels first, mask)."""

    def __init__(self, as_tuple: bool) -> None:
        self.as_tuple = as_tuple

    def __len__(self) -> int:
        return 10

    def __getitem__(self, index: int) -> Any:
        pair = torch.from_numpy(picture(index)).permute(2, 0, 1), torch.from_numpy(mask(index))
        return pair if self.as_tuple else {"image": pair[0], "label": pair[1]}


class HuggingFaceRows:
    """What a Hugging Face data set shows: rows as dictionaries, and features that declare class names."""

    def __init__(self, count: int, names: list[str]) -> None:
        self.count, self.features = count, {"image": object(), "label": SimpleNamespace(names=names)}

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"image": Image.fromarray(picture(index)), "label": index % len(self.features["label"].names)}


def segmentation(data: Any, **options: Any) -> MappedDataset:
    return MappedDataset(data, **{"classes": 3, **options})


def contents(data: MappedDataset) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    splits = [data.split(name) for name in ("train", "validation", "test")]
    return {sample.name: (sample.image, sample.label) for split in splits for sample in split}


@pytest.mark.parametrize(
    ("data", "options"),
    [
        (rows(), {}),
        (TorchRows(as_tuple=False), {}),
        (TorchRows(as_tuple=True), {"image": 0, "label": 1}),
        (rows(image=lambda n: Image.fromarray(picture(n)), label=lambda n: Image.fromarray(mask(n).astype("u1"))), {}),
        (rows(image=lambda n: picture(n) / np.float32(255), label=lambda n: mask(n)[None].astype(np.uint8)), {}),
        (rows(image=lambda n: torch.from_numpy(picture(n)).permute(2, 0, 1) / 255), {}),
        (rows(image=lambda n: picture(n).tolist(), label=lambda n: mask(n).tolist()), {}),
    ],
    ids=["arrays", "torch", "torch tuples", "pictures", "floats", "float tensors", "lists"],
)
def test_images_and_masks_come_out_as_they_went_in(data: Any, options: dict[str, Any]) -> None:
    dataset = segmentation(data, **options)
    dataset.check()
    found = contents(dataset)
    assert sorted(map(int, found)) == list(range(10))
    for name, (image, label) in found.items():
        assert np.array_equal(image, picture(int(name)))
        assert label.dtype == np.uint8
        assert np.array_equal(label, mask(int(name)))
        assert label[0, 0] == IGNORE
    assert dataset.identity() == segmentation(rows()).identity(), "identity is the content, however it is packed"


def test_files_named_in_rows_are_read(tmp_path: Path) -> None:
    for number in range(4):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
        Image.fromarray(mask(number).astype(np.uint8)).save(tmp_path / f"m{number}.png")
    named = rows(4, image=lambda n: tmp_path / f"{n}.png", label=lambda n: str(tmp_path / f"m{n}.png"))
    assert segmentation(named).identity() == segmentation(rows(4)).identity()


def test_identity_changes_with_content_names_and_splits() -> None:
    base = segmentation(rows()).identity()
    assert segmentation(rows()).identity() == base
    others = [
        segmentation(rows(image=lambda n: picture(n) if n else picture(n) // 2)),
        segmentation(rows(label=lambda n: mask(n) if n else np.ones((HEIGHT, WIDTH), int))),
        segmentation(rows(group=lambda n: "xy"[n % 2]), group="group"),
        segmentation(rows(prompt=str), prompt="prompt"),
        segmentation(rows(), classes=["a", "b", "c"]),
        segmentation(rows(), seed=1),
        segmentation(rows(9)),
    ]
    assert len({str(entry.identity()) for entry in others} | {str(base)}) == len(others) + 1


def test_groups_stay_in_one_split() -> None:
    data = segmentation(rows(30, video=lambda n: n % 6), group="video", fractions=(0.5, 0.2, 0.3))
    homes = [set(data.split(split).groups) for split in ("train", "validation", "test")]  # type: ignore[arg-type]
    assert sum(map(len, homes)) == len(set.union(*homes)) == 6
    assert homes[0] == {sample.group for sample in data.split("train")}
    assert all(homes)


def test_groups_stay_in_one_fold() -> None:
    from diffsift.bank import BankSpecification
    from diffsift.bank.development import development_set

    data = segmentation(rows(30, video=lambda n: n % 6), group="video")
    found = development_set(data, BankSpecification(pixels_per_image=4), folds=2)
    for video in set(data.split("train").groups):
        members = [index for index, group in enumerate(data.split("train").groups) if group == video]
        assert len(members) == 5
        assert len(set(found.fold[members])) == 1


def test_a_split_column_and_a_mapping_of_splits_give_the_same_images() -> None:
    where = ["train"] * 5 + ["validation"] * 2 + ["test"] * 3
    column = segmentation(rows(split=where.__getitem__, prompt=lambda n: f"scene {n}"), split="split", prompt="prompt")
    every = rows()
    mapping = segmentation({"test": every[7:], "train": every[:5], "validation": every[5:7]})
    for split in ("train", "validation", "test"):
        one, other = column.split(split), mapping.split(split)  # type: ignore[arg-type]
        assert len(one) == where.count(split)
        assert all(np.array_equal(a.image, b.image) for a, b in zip(one, other, strict=True))
    assert mapping.split("test")[2].name == "test/2"
    assert column.split("validation")[0].prompt == "scene 5"


def test_declared_class_names_are_taken_over() -> None:
    data = MappedDataset(
        {"train": HuggingFaceRows(6, ["cat", "dog"]), "test": HuggingFaceRows(4, ["cat", "dog"])},
        task="classification",
    )
    data.check()
    assert data.class_names == ("cat", "dog")
    assert [int(sample.label) for sample in data.split("train")] == [0, 1] * 3
    assert data.split("train")[0].label.dtype == np.int64


@pytest.mark.parametrize(
    ("label", "classes", "names"),
    [
        (lambda n: ("dog", "cat")[n % 2], None, ("cat", "dog")),
        (lambda n: ("dog", "cat")[n % 2], ["cat", "dog"], ("cat", "dog")),
        (lambda n: torch.tensor(1 - n % 2), 2, ("class 0", "class 1")),
        (lambda n: np.int64(1 - n % 2), None, ("class 0", "class 1")),
        (lambda n: n % 2 == 0, None, ("class 0", "class 1")),
    ],
)
def test_classes_by_name_and_by_id(label: Callable[[int], Any], classes: Any, names: tuple[str, ...]) -> None:
    data = MappedDataset(rows(label=label), task="classification", classes=classes)
    data.check()
    assert data.class_names == names
    for sample in data.split("train"):
        assert int(sample.label) == 1 - int(sample.name) % 2


def test_depth_is_masked_counted_and_said() -> None:
    def depth(number: int) -> np.ndarray:
        values = np.full((HEIGHT, WIDTH), 2.5)
        values[0, :4] = 0, np.nan, -1, np.inf
        return values

    data = MappedDataset(rows(label=depth), task="depth")
    data.check()
    label = data.split("train")[0].label
    assert label.dtype == np.float32
    assert np.isnan(label[0, :4]).all()
    assert np.isfinite(label).sum() == HEIGHT * WIDTH - 4
    train = len(data.split("train"))
    assert data.notes()[0].startswith(
        f"{4 * train} of {HEIGHT * WIDTH * train} depth values (11.4%) of the train split"
    )
    whole = MappedDataset(rows(label=lambda n: np.full((HEIGHT, WIDTH), 1500, np.uint16)), task="depth")
    with pytest.raises(DataError, match="label of row 0 must hold metres as floating-point numbers, but holds uint16"):
        whole.check()
    scaled = MappedDataset(
        rows(label=lambda n: np.full((HEIGHT, WIDTH), 1500, np.uint16)), task="depth", depth_unit=0.001
    )
    assert np.allclose(scaled.split("test")[0].label, 1.5)


def test_a_row_that_changes_is_refused() -> None:
    class Random(TorchRows):
        draws = 0

        def __getitem__(self, index: int) -> Any:
            self.draws += 1
            return {"image": picture(self.draws), "label": mask(index)}

    data = segmentation(Random(as_tuple=False))
    data.check()
    with pytest.raises(DataError, match=r"row \d must be the same each time it is read, but has changed"):
        data.split("train")[0]


MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "no such column": (
        {"image": "imge"},
        r"row 0 must have the column 'imge' \(image\), but has not; did you mean 'im",
    ),
    "size": (
        {"rows": {"label": lambda n: np.zeros((2, 3), int)}},
        "label of row 0 must be as large .* is 3 x 2 px",
    ),
    "class": ({"classes": 2}, "label of row 0 must hold values from 0 to 1 .* but holds 2"),
    "float mask": ({"rows": {"label": lambda n: mask(n) / 255}}, "class ids as whole numbers, but holds float64"),
    "axes": (
        {"rows": {"label": lambda n: np.zeros((2, 3, 4), int)}},
        r"one value per pixel, but .* \(2, 3, 4\)",
    ),
    "ignored": ({"rows": {"label": lambda n: np.full((HEIGHT, WIDTH), 255)}}, "must have a pixel that counts"),
    "normalised": ({"rows": {"image": lambda n: picture(n) / 100.0 - 1}}, "leave normalisation out"),
    "not a number": ({"rows": {"image": lambda n: picture(n) * np.nan}}, "0 to 1, but holds float64 from nan"),
    "16 bits": ({"rows": {"image": lambda n: picture(n).astype(np.uint16) * 9}}, "from 0 to 255"),
    "channels": ({"rows": {"image": lambda n: np.zeros((5, 7, 2), np.uint8)}}, r"1, 3 or 4 channels, .* \(5, 7, 2\)"),
    "not an image": ({"rows": {"image": lambda n: None}}, "image of row 0 must be a picture, .* but is a NoneType"),
    "ragged": ({"rows": {"image": lambda n: [[1, 2], [3]]}}, "cannot be understood as an array"),
    "no group": ({"rows": {"g": lambda n: None}, "group": "g"}, "row 0 must have a group in the column 'g'"),
    "split": (
        {"rows": {"s": lambda n: "val"}, "split": "s"},
        "split of row 0 must be train, .* but is 'val'",
    ),
    "torn": (
        {"rows": {"s": lambda n: ("train", "test")[n % 2], "g": lambda n: "g"}, "split": "s", "group": "g"},
        "must keep a group in one split, but 'g' is in train and test",
    ),
    "class id": ({"task": "classification", "rows": {"label": lambda n: n}}, "label of row 3 must be one of 3 classes"),
    "class name": (
        {"task": "classification", "classes": ["cat", "dog"], "rows": {"label": lambda n: "dgo"}},
        "but is 'dgo'; did you mean 'dog'",
    ),
    "class list": ({"task": "classification", "rows": {"label": mask}}, "must be a class: its name, or its id"),
    "untaught": (
        {
            "task": "classification",
            "split": "s",
            "rows": {"label": lambda n: n % 3, "s": lambda n: "test" if n % 3 == 2 else "train"},
        },
        r"every class must have a training image, but 2 has one in test alone \(row 2\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_rows_are_told(mistake: str) -> None:
    options, message = MISTAKES[mistake]
    options = dict(options)
    with pytest.raises(DataError, match=message):
        segmentation(rows(**options.pop("rows", {})), **options).check()


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield from rows()


@pytest.mark.unchecked
@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        (Stream(), {}, "must have a length and rows by position, but Stream has not"),
        ({"train": rows(), "val": rows()}, {}, "data has the split 'val'"),
        ({"train": rows(), "validation": rows()}, {}, "train and test, but has train, validation"),
        (rows(), {"task": "correspondence"}, "task must be one of segmentation, depth, normals, classification"),
        (rows(), {"classes": None}, "classes must be given for segmentation"),
        (rows(), {"classes": 1}, "2 to 255 classes, but got 1"),
        (rows(), {"task": "depth"}, "classes must be left out for depth"),
        (rows(), {"task": "normals"}, "classes must be left out for normals"),
        (rows(), {"fractions": (1.0, 0.0, 0.0)}, "fractions"),
        ({"train": rows(), "test": rows()}, {"split": "s"}, "data must be rows where a split column is named"),
    ],
)
def test_mistakes_in_arguments_are_told(data: Any, options: dict[str, Any], message: str) -> None:
    with pytest.raises(SpecificationError, match=message):
        segmentation(data, **options)


def test_no_rows_and_columns_of_tuples_are_told() -> None:
    with pytest.raises(DataError, match="at least one row"):
        segmentation([]).check()
    with pytest.raises(DataError, match=r"must have the column 'image' .* rows are of type tuple, .* such as image=0"):
        segmentation(TorchRows(as_tuple=True)).check()


def test_a_search_takes_a_data_set_from_python(tiny_pipeline: Path, tmp_path: Path) -> None:
    values = tiny.specification(tiny_pipeline, tmp_path)
    del values["data"]
    values["study"] = {**values["study"], "trials": 6}
    data = segmentation(rows(12, video=lambda n: n // 2), group="video")
    files = {"workspace": tmp_path / "workspace", "out": tmp_path / "selection.json"}
    first = diffsift.select(values, dataset=data, **files)
    assert "a MappedDataset from Python" in first.report_file.read_text()
    name = values["study"]["name"]
    again = diffsift.resume(name, dataset=segmentation(rows(12, video=lambda n: n // 2), group="video"), **files)
    assert again.outcome.found == first.outcome.found
    with pytest.raises(StudyError, match="data"):
        diffsift.resume(name, dataset=segmentation(rows(12)), **files)
    with pytest.raises(SpecificationError, match=r"call diffsift.select or diffsift.resume from Python with dataset="):
        diffsift.resume(name, **files)


def test_data_are_named_once(tiny_pipeline: Path, tmp_path: Path) -> None:
    values = tiny.specification(tiny_pipeline, tmp_path)
    data = segmentation(rows())
    with pytest.raises(SpecificationError, match=r"data must be left out, .* but is 'folder'"):
        diffsift.select(values, dataset=data)
    with pytest.raises(SpecificationError, match=r"data must be left out, .* but is 'folder'"):
        diffsift.select(Specification.parse(values), dataset=data)
    values["data"] = {"kind": "python"}
    specification = Specification.of(Specification.parse(values), data)
    assert specification.data.kind == "python"
    assert specification.data.dataset is data
    assert specification.identity()["data"] == {"kind": "python"}
    values["data"] = {"kind": "python", "dataset": "no data set"}
    with pytest.raises(SpecificationError, match=r"must be a diffsift.MappedDataset"):
        Specification.parse(values)


def test_other_processes_cannot_have_data_from_python(tiny_pipeline: Path, tmp_path: Path) -> None:
    values = tiny.specification(tiny_pipeline, tmp_path, study={"workers": 2})
    del values["data"]
    with pytest.raises(SpecificationError, match=r"study.workers must be 1 with data from Python, but got 2"):
        diffsift.select(values, dataset=segmentation(rows(12)), workspace=tmp_path)
