"""The data set's part of the specification: one model for each `data.kind`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ._base import Dataset
from ._layouts import DDPM_SETS

Fractions = Annotated[
    tuple[float, float, float],
    Field(description="train, validation, test shares, where the files say nothing of splits"),
]

PngUnit = Annotated[
    float | None,
    Field(gt=0, description="metres that a grey level of a PNG stands for; null: PNGs have 16 bits, in millimetres"),
]


class _Data(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @property
    def origin(self) -> str:
        """The folder or file that the data come from; their kind where they have none."""
        fields = dict(self)
        return str(next((value for value in fields.values() if isinstance(value, Path)), fields["kind"]))

    def describe(self) -> str:
        """The data in words."""
        return f"{dict(self)['kind']} in {self.origin}"


class DigitScenesSpecification(_Data):
    """The built-in data: digit scenes, generated from a seed."""

    kind: Literal["digit-scenes"] = "digit-scenes"
    train: int = Field(default=300, ge=1, description="training scenes")
    validation: int = Field(default=300, ge=0, description="validation scenes; 0: cross-validate over training scenes")
    test: int = Field(default=400, ge=1, description="test scenes, sealed until the search has ended")
    seed: int = Field(default=0, ge=0, description="seed of the scenes")
    detail: int = Field(default=3, ge=2, le=32, description="background colours per edge; 32 is the hard variant")

    def describe(self) -> str:
        """The data in words."""
        return f"digit scenes (built in): {self.train} training, {self.validation} validation, {self.test} test scenes"


class FolderSpecification(_Data):
    """A folder of images and a folder of label PNGs with the same stems."""

    kind: Literal["folder"]
    images: Path = Field(description="folder of images")
    labels: Path = Field(description="folder of label PNGs: one class id per pixel")
    classes: Annotated[int, Field(ge=2, le=255)] | tuple[str, ...] = Field(
        description="number of classes, or their names in order of id"
    )
    ignore: int = Field(default=255, ge=0, le=65535, description="label value that does not count")
    group_separator: str | None = Field(
        default=None, min_length=1, description="what stands in a stem before its last occurrence is the image's group"
    )
    prompts: Path | None = Field(
        default=None, description="YAML or JSON file: what the model is told of each image, by stem"
    )
    split_file: Path | None = Field(
        default=None, description="YAML or JSON file: stems by train, validation (optional), test"
    )
    fractions: tuple[float, float, float] = Field(
        default=(0.6, 0.0, 0.4), description="train, validation, test shares where no split file is given"
    )
    seed: int = Field(default=0, ge=0, description="seed of the split by fractions")

    def describe(self) -> str:
        """The data in words."""
        return f"images {self.images}, labels {self.labels}"

    @model_validator(mode="after")
    def _fractions_sum_to_one(self) -> FolderSpecification:
        train, validation, test = self.fractions
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6 or not train or not test:
            raise ValueError(
                "fractions must be train, validation and test shares that sum to 1 with train and test above 0, "
                f"but got {[train, validation, test]}"
            )
        return self


class RootedSpecification(_Data):
    """A data set under one folder."""

    kind: str
    root: Path = Field(description="folder of the data set")


class VocSpecification(RootedSpecification):
    """Pascal VOC (21 classes): its train list is searched on, its val list is the sealed test split."""

    kind: Literal["voc"]


class AdeSpecification(RootedSpecification):
    """ADE20K (scene parsing, 150 classes): training is searched on, validation is the sealed test split."""

    kind: Literal["ade20k"]


class CityscapesSpecification(RootedSpecification):
    """Cityscapes (19 training classes): train is searched on, val is the sealed test split; sequences stay together."""

    kind: Literal["cityscapes"]


class DdpmSegmentationSpecification(RootedSpecification):
    """Horse-21 and its siblings: images in ``train`` and ``test``, each with a ``.npy`` of class ids beside it."""

    kind: Literal["ddpm-segmentation"]
    preset: Literal["horse-21", "cat-15", "bedroom-28", "ffhq-34", "celeba-19", "ade-bedroom-30"] | None = Field(
        default=None, description="a published set: its number of class ids and its ignored label"
    )
    classes: Annotated[int, Field(ge=2, le=255)] | tuple[str, ...] | None = Field(
        default=None, description="number of class ids, or their names in order of id; null: those of the preset"
    )
    ignore: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None, description="label value that does not count; null: that of the preset, or 255"
    )

    label_size: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="edge that labels are brought to; null: that of the preset, or as large as their images",
    )

    @model_validator(mode="after")
    def _classes_are_known(self) -> DdpmSegmentationSpecification:
        if self.preset is None and self.classes is None:
            raise ValueError(f"data must have classes, or a preset ({', '.join(DDPM_SETS)}), but has neither")
        if self.preset is not None and self.classes is not None:
            given = self.classes if isinstance(self.classes, int) else len(self.classes)
            if given != DDPM_SETS[self.preset].classes:
                raise ValueError(
                    f"data.classes must be {DDPM_SETS[self.preset].classes} for data.preset {self.preset}, but "
                    f"{given} are given"
                )
        return self

    @property
    def label_edge(self) -> int | None:
        """Edge that labels are brought to."""
        return DDPM_SETS[self.preset].label_size if self.label_size is None and self.preset else self.label_size

    @property
    def ignored(self) -> int:
        """The label value that does not count."""
        if self.ignore is not None:
            return self.ignore
        return 255 if self.preset is None else DDPM_SETS[self.preset].ignore


class DepthFolderSpecification(RootedSpecification):
    """Images in ``images`` and their depth in ``depth``: 16-bit PNGs in millimetres or ``.npy`` in metres."""

    kind: Literal["depth-folder"]
    fractions: Fractions = (0.6, 0.0, 0.4)
    seed: int = Field(default=0, ge=0, description="seed of the split by fractions")
    png_unit: PngUnit = None


class ClassFoldersSpecification(RootedSpecification):
    """A folder of images per class, under ``train``, ``val`` and ``test`` or under the root itself."""

    kind: Literal["class-folders"]
    fractions: Fractions = (0.6, 0.0, 0.4)
    seed: int = Field(default=0, ge=0, description="seed of the split by fractions")


class SpairSpecification(RootedSpecification):
    """SPair-71k: keypoint pairs of one category or all."""

    kind: Literal["spair"]
    size: Literal["large", "small"] = Field(default="large", description="which lists of pairs, under Layout")
    category: str | None = Field(default=None, description="only pairs of this category, such as cat; null: all")
    category_prompt: bool = Field(
        default=True, description="tell the model 'a photo of a {category}', as the protocol of DIFT does"
    )


class ListSpecification(_Data):
    """Images and answers listed in a CSV or JSON file: columns image, label, split and, if wanted, group and prompt."""

    kind: Literal["list"]
    file: Path = Field(description="CSV with a header, or JSON list of mappings; paths in it are relative to it")
    answers: Literal["segmentation", "depth", "classification"] = Field(
        description="what the column label holds: masks, depth files or class names (ids, with a number of classes)"
    )
    classes: Annotated[int, Field(ge=2, le=255)] | tuple[str, ...] | None = Field(
        default=None, description="number or names of classes; for classification, by default, all names in the list"
    )
    ignore: int = Field(default=255, ge=0, le=65535, description="mask value that does not count")
    png_unit: PngUnit = None


class PythonSpecification(_Data):
    """A data set that exists in Python alone, such as `MappedDataset`: handed over, never written down."""

    kind: Literal["python"]
    dataset: Any = Field(
        default=None, exclude=True, repr=False, description="the object; select and resume take it as an argument"
    )

    def describe(self) -> str:
        """The data in words."""
        return f"a {type(self.dataset).__name__} from Python"

    @field_validator("dataset")
    @classmethod
    def _is_a_dataset(cls, dataset: Any) -> Any:
        if dataset is not None and not isinstance(dataset, Dataset):
            raise ValueError("must be a diffsift.MappedDataset or another diffsift.objectives.datasets.Dataset")
        return dataset


LayoutSpecification = (
    VocSpecification
    | AdeSpecification
    | CityscapesSpecification
    | DdpmSegmentationSpecification
    | DepthFolderSpecification
    | ClassFoldersSpecification
    | SpairSpecification
    | ListSpecification
    | PythonSpecification
)


DataSpecification = Annotated[
    DigitScenesSpecification | FolderSpecification | LayoutSpecification, Field(discriminator="kind")
]
