"""Data sets in the layouts in which they are published, as parts of the specification."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Fractions = Annotated[
    tuple[float, float, float],
    Field(description="train, validation, test shares, where the files say nothing of splits"),
]


class RootedSpecification(BaseModel):
    """A data set under one folder."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    root: Path = Field(description="folder of the data set")


class VocSpecification(RootedSpecification):
    """Pascal VOC (21 classes): its validation list is the test split, as its own test labels are not public."""

    kind: Literal["voc"]


class AdeSpecification(RootedSpecification):
    """ADE20K (scene parsing, 150 classes): its validation folder is the test split."""

    kind: Literal["ade20k"]


class CityscapesSpecification(RootedSpecification):
    """Cityscapes (19 training classes): its validation folder is the test split; frames of a sequence stay together."""

    kind: Literal["cityscapes"]


class DdpmSegmentationSpecification(RootedSpecification):
    """Horse-21 and its siblings: images in ``train`` and ``test``, each with a ``.npy`` of class ids beside it."""

    kind: Literal["ddpm-segmentation"]
    classes: Annotated[int, Field(ge=2, le=255)] | tuple[str, ...] = Field(
        description="number of classes, or their names in order of id"
    )
    ignore: int = Field(255, ge=0, le=65535, description="label value that does not count (Bedroom-28: 0)")


class DepthFolderSpecification(RootedSpecification):
    """Images in ``images`` and their depth in ``depth``: 16-bit PNGs in millimetres or ``.npy`` in metres."""

    kind: Literal["depth-folder"]
    fractions: Fractions = (0.6, 0.0, 0.4)
    seed: int = Field(0, ge=0, description="seed of the split by fractions")


class ClassFoldersSpecification(RootedSpecification):
    """A folder of images per class, under ``train``, ``val`` and ``test`` or under the root itself."""

    kind: Literal["class-folders"]
    fractions: Fractions = (0.6, 0.0, 0.4)
    seed: int = Field(0, ge=0, description="seed of the split by fractions")


class SpairSpecification(RootedSpecification):
    """SPair-71k: keypoint pairs of one category or all."""

    kind: Literal["spair"]
    size: Literal["large", "small"] = Field("large", description="which lists of pairs, under Layout")
    category: str | None = Field(None, description="only pairs of this category, such as cat; null: all")
    category_prompt: bool = Field(
        False, description="tell the model 'a photo of a {category}', which the truth gives away"
    )


class ListSpecification(BaseModel):
    """Images and answers listed in a CSV or JSON file: columns image, label, split and, if wanted, group and prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["list"]
    file: Path = Field(description="CSV with a header, or JSON list of mappings; paths in it are relative to it")
    answers: Literal["segmentation", "depth", "classification"] = Field(
        description="what the column label holds: mask files, depth files or class names"
    )
    classes: Annotated[int, Field(ge=2, le=255)] | tuple[str, ...] | None = Field(
        None, description="number or names of classes; for classification, by default, all names in the list"
    )
    ignore: int = Field(255, ge=0, le=65535, description="mask value that does not count")


LayoutSpecification = (
    VocSpecification
    | AdeSpecification
    | CityscapesSpecification
    | DdpmSegmentationSpecification
    | DepthFolderSpecification
    | ClassFoldersSpecification
    | SpairSpecification
    | ListSpecification
)
