"""The data set's part of the specification: one model for each `data.kind`, which opens the data set it describes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    SerializeAsAny,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_core import CoreSchema, InitErrorDetails

from diffsift.errors import SpecificationError

from .registry import DATASETS

if TYPE_CHECKING:  # readers are imported when a data set is opened: a specification is judged without them
    from ._base import Dataset

PngUnit = Annotated[
    float | None,
    Field(gt=0, description="metres per grey level of a PNG; null: 16-bit PNGs in millimetres"),
]

DepthLimit = Annotated[
    float | None,
    Field(gt=0, description="largest valid depth in metres; larger ones are unknown; null: no limit"),
]

Exif = Annotated[
    Literal["turn", "ignore"],
    Field(description="turn: images are turned upright by their EXIF orientation, labels never; ignore: neither is"),
]

AllowAbsentClasses = Annotated[
    bool, Field(description="whether a class may be absent from train or test, and so be left out of the score")
]

Channel = Annotated[int, Field(ge=0, le=255)]

Palette = Annotated[
    tuple[tuple[Channel, Channel, Channel], ...] | None,
    Field(description="for masks in colour: [red, green, blue] of each class by id; a further one is ignored"),
]


class DataKind(BaseModel, ABC):
    """The fields of one `data.kind`, and how its data set is opened.

    A kind of your own is a subclass with a `kind`, its fields and `open`, made known by `register_dataset` or an entry
    point of the group ``diffsift.datasets``. When a specification is read, the class that is registered under
    `data.kind` validates the other fields; when a search begins, `open` is called once.

    Attributes:
        kind: the name under which the class is registered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str

    @property
    def origin(self) -> str:
        """The folder or file that the data come from; their kind where they have none."""
        return str(next((value for _, value in self if isinstance(value, Path)), self.kind))

    def describe(self) -> str:
        """Describe the data.

        Returns:
            A few words, for reports.
        """
        return f"{self.kind} in {self.origin}"

    @abstractmethod
    def open(self, task: str) -> Dataset:
        """Make the data set; nothing is read yet.

        Args:
            task: `task.kind` of the search; matters where the same data have answers to several tasks.

        Returns:
            The data set; where its `task` is another one, `open_dataset` refuses it.

        Raises:
            SpecificationError: the fields contradict each other, or lack what only Python can give.
            DataError: a list that names the classes cannot be read.
        """


class RenderedScenesSpecification(DataKind):
    """The built-in data: rendered scenes, drawn from a seed."""

    kind: Literal["rendered-scenes"] = "rendered-scenes"
    train: int = Field(default=300, ge=1, le=1_000_000, description="training scenes; for pairs, pictures")
    validation: int = Field(
        default=300, ge=0, le=1_000_000, description="validation scenes; 0: cross-validate over training scenes"
    )
    test: int = Field(default=400, ge=1, le=1_000_000, description="test scenes, sealed until the search has ended")
    seed: int = Field(default=0, ge=0, description="seed of the scenes")
    size: int = Field(default=64, ge=16, le=256, description="edge of the square pictures in pixels")
    difficulty: Literal["easy", "medium", "hard"] = Field(
        default="medium", description="number of solids, how much they hide of each other, contrast of textures"
    )

    def describe(self) -> str:
        counts = f"{self.train} training, {self.validation} validation, {self.test} test scenes"
        return f"rendered scenes (built in), {self.difficulty}, {self.size} px: {counts}"

    def open(self, task: str) -> Dataset:
        from ._rendered_scenes import RenderedScenes

        return RenderedScenes(
            self.train, self.validation, self.test, self.seed, self.size, difficulty=self.difficulty, task=task
        )


class FolderSpecification(DataKind):
    """A folder of images and a folder of masks with the same stems."""

    kind: Literal["folder"]
    images: Path = Field(description="folder of images")
    labels: Path = Field(description="folder of masks (PNG or TIFF): one class id, or colour of palette, per pixel")
    classes: Annotated[int, Field(ge=2, le=255)] | tuple[str, ...] = Field(
        description="number of classes, or their names in order of id"
    )
    ignore: int = Field(default=255, ge=0, le=65535, description="label value that does not count")
    label_suffix: str = Field(default="", description="end of a mask's stem behind the image's stem, such as _mask")
    palette: Palette = None
    exif: Exif = "turn"
    allow_absent_classes: AllowAbsentClasses = False
    group_separator: str | None = Field(
        default=None, min_length=1, description="the part of a stem before the last separator is the image's group"
    )
    prompts: Path | None = Field(default=None, description="YAML or JSON file: a prompt for each image, by stem")
    split_file: Path | None = Field(
        default=None, description="YAML or JSON file: stems by train, validation (optional), test"
    )
    fractions: tuple[float, float, float] = Field(
        default=(0.6, 0.0, 0.4), description="fractions of train, validation and test; used without a split file"
    )
    seed: int = Field(default=0, ge=0, description="seed of the split by fractions")

    def describe(self) -> str:
        return f"images {self.images}, labels {self.labels}"

    def open(self, task: str) -> Dataset:
        from ._folder import SegmentationFiles, SegmentationFolder
        from ._splits import FileSplit, SeedSplit

        split = FileSplit(self.split_file) if self.split_file else SeedSplit(self.fractions, self.seed)
        return SegmentationFolder(
            SegmentationFiles(
                self.images, self.labels, self.prompts, self.label_suffix, palette=self.palette, exif=self.exif
            ),
            self.classes,
            split,
            ignore=self.ignore,
            group_separator=self.group_separator,
            allow_absent_classes=self.allow_absent_classes,
        )

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> FolderSpecification:
        train, validation, test = self.fractions
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6 or not train or not test:
            raise ValueError(
                "fractions must be those of train, validation and test and sum to 1, with train and test above 0, "
                f"but got {[train, validation, test]}"
            )
        return self


class ListSpecification(DataKind):
    """Images and answers listed in a CSV or JSON file: columns image, label and split, optionally group and prompt."""

    kind: Literal["list"]
    file: Path = Field(description="CSV with a header, or JSON list of mappings; paths in it are relative to it")
    answers: Literal["segmentation", "depth", "normals", "classification"] = Field(
        description="content of the column label: masks, depth or normals files, or class names (ids if classes is a "
        "number)"
    )
    classes: Annotated[int, Field(ge=2, le=255)] | tuple[str, ...] | None = Field(
        default=None, description="number or names of classes; default for classification: all names in the list"
    )
    ignore: int = Field(default=255, ge=0, le=65535, description="mask value that does not count")
    palette: Palette = None
    png_unit: PngUnit = None
    depth_limit: DepthLimit = None
    exif: Exif = "turn"
    allow_absent_classes: AllowAbsentClasses = False

    def open(self, task: str) -> Dataset:
        from ._list import ListReading, image_list

        reading = ListReading(self.palette, self.depth_limit, self.exif, self.allow_absent_classes)
        return image_list(self.file, self.answers, self.classes, self.ignore, self.png_unit, reading)


class PythonSpecification(DataKind):
    """A data set that exists in Python alone, such as `MappedDataset`: handed over, never written down."""

    kind: Literal["python"]
    dataset: Any = Field(
        default=None, exclude=True, repr=False, description="the object; select and resume take it as an argument"
    )

    def describe(self) -> str:
        return f"a {type(self.dataset).__name__} from Python"

    def open(self, task: str) -> Dataset:
        if self.dataset is None:
            raise SpecificationError(
                "data.kind python needs the data set itself: call diffsift.select or diffsift.resume from Python "
                "with dataset=..."
            )
        dataset: Dataset = self.dataset
        return dataset

    @field_validator("dataset")
    @classmethod
    def _is_a_dataset(cls, dataset: Any) -> Any:
        from ._base import Dataset

        if dataset is not None and not isinstance(dataset, Dataset):
            raise ValueError("must be a diffsift.MappedDataset or another diffsift.datasets.Dataset")
        return dataset


_REMOVED = {
    "digit-scenes": (
        "is 'digit-scenes', the built-in data of an older version, which this one does not draw. Search anew with "
        "rendered-scenes; to go on with an old study, install the version that made it: its trials, table and report "
        "can be read with this one (diffsift status, compare, report)"
    )
}
"""Kinds that there were, and how to go on."""


def _of_its_kind(value: Any) -> DataKind:
    """The fields of a data set, validated by the class that is registered under their `kind`.

    Errors are those of a union with the discriminator `kind`; it is none because kinds can be registered later.
    """
    if isinstance(value, DataKind):
        return value
    if not isinstance(value, dict):
        raise ValueError("must be a mapping of fields with a kind")
    kind, about = value.get("kind"), {"discriminator": "'kind'"}
    if isinstance(kind, str) and kind in DATASETS:
        return DATASETS[kind].model_validate(value)
    if isinstance(kind, str) and kind in _REMOVED:
        raise ValueError(f"kind {_REMOVED[kind]}")
    if "kind" not in value:
        error = InitErrorDetails(type="union_tag_not_found", ctx=about, input=value)
    else:
        known = ", ".join(f"'{name}'" for name in sorted(DATASETS.names()))
        about |= {"tag": str(kind), "expected_tags": known}
        error = InitErrorDetails(type="union_tag_invalid", ctx=about, input=value)
    raise ValidationError.from_exception_data("data", [error])


class _AnyKind:
    """The JSON schema of `DataSpecification`: one alternative for each kind."""

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"anyOf": [DATASETS[kind].model_json_schema() for kind in DATASETS.names()]}


DataSpecification = Annotated[SerializeAsAny[DataKind], PlainValidator(_of_its_kind), _AnyKind]
"""The fields of any registered kind; `kind` says which."""
