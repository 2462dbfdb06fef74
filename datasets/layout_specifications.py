"""The data set's part of the specification for published layouts and other data sets under one folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from ._published import DDPM_SETS
from .specification import AllowAbsentClasses, DataKind, DepthLimit, Exif, PngUnit

if TYPE_CHECKING:
    from ._base import Dataset


class RootedSpecification(DataKind):
    """A data set under one folder."""

    root: Path = Field(description="folder of the data set")


class DividedSpecification(RootedSpecification):
    """A data set under one folder that diffsift divides into splits."""

    fractions: tuple[float, float, float] = Field(
        default=(0.6, 0.0, 0.4),
        description="fractions of train, validation and test; used if the files define no splits",
    )
    seed: int = Field(default=0, ge=0, description="seed of the split by fractions")


class VocSpecification(RootedSpecification):
    """Pascal VOC (21 classes): its train list is searched on, its val list is the sealed test split."""

    kind: Literal["voc"]
    allow_absent_classes: AllowAbsentClasses = False

    def open(self, task: str) -> Dataset:
        from ._layouts import voc

        return voc(self.root, allow_absent_classes=self.allow_absent_classes)


class AdeSpecification(RootedSpecification):
    """ADE20K (scene parsing, 150 classes): training is searched on, validation is the sealed test split."""

    kind: Literal["ade20k"]
    allow_absent_classes: AllowAbsentClasses = False

    def open(self, task: str) -> Dataset:
        from ._layouts import ade20k

        return ade20k(self.root, allow_absent_classes=self.allow_absent_classes)


class CityscapesSpecification(RootedSpecification):
    """Cityscapes (19 training classes): train is searched on, val is the sealed test split; sequences stay together."""

    kind: Literal["cityscapes"]
    allow_absent_classes: AllowAbsentClasses = False

    def open(self, task: str) -> Dataset:
        from ._layouts import cityscapes

        return cityscapes(self.root, allow_absent_classes=self.allow_absent_classes)


class DdpmSegmentationSpecification(RootedSpecification):
    """Horse-21 and its siblings: images in ``train`` and ``test``, each with a ``.npy`` of class ids beside it."""

    kind: Literal["ddpm-segmentation"]
    preset: Literal["horse-21", "cat-15", "bedroom-28", "ffhq-34", "celeba-19", "ade-bedroom-30"] | None = Field(
        default=None, description="a published set; sets the number of class ids and the ignored label"
    )
    classes: Annotated[int, Field(ge=2, le=255)] | tuple[str, ...] | None = Field(
        default=None, description="number of class ids, or their names in order of id; null: those of the preset"
    )
    ignore: Annotated[int, Field(ge=0, le=65535)] | None = Field(
        default=None, description="label value that does not count; null: that of the preset, or 255"
    )
    label_size: Annotated[int, Field(ge=1)] | None = Field(
        default=None,
        description="edge to which labels are resized; null: that of the preset, otherwise no resizing",
    )
    allow_absent_classes: bool | None = Field(
        default=None,
        description="whether a class may be absent from train or test; null: in a preset, whose images are published",
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

    def open(self, task: str) -> Dataset:
        from ._layouts import ddpm_segmentation

        allowed = self.preset is not None if self.allow_absent_classes is None else self.allow_absent_classes
        return ddpm_segmentation(
            self.root,
            self.classes,
            self.ignored,
            preset=self.preset or "",
            label_size=self.label_edge,
            allow_absent_classes=allowed,
        )


class DepthFolderSpecification(DividedSpecification):
    """Images in ``images`` and their depth in ``depth``: 16-bit PNGs in millimetres or ``.npy`` in metres."""

    kind: Literal["depth-folder"]
    png_unit: PngUnit = None
    depth_limit: DepthLimit = None
    exif: Exif = "turn"

    def open(self, task: str) -> Dataset:
        from ._depth_folder import depth_folder

        return depth_folder(self.root, self.fractions, self.seed, self.png_unit, self.depth_limit, self.exif)


class NormalsFolderSpecification(DividedSpecification):
    """Images in ``images`` and their normals in ``normals``: RGB PNGs of (n + 1) / 2 or ``.npy`` of unit vectors."""

    kind: Literal["normals-folder"]
    exif: Exif = "turn"

    def open(self, task: str) -> Dataset:
        from ._normals_folder import normals_folder

        return normals_folder(self.root, self.fractions, self.seed, self.exif)


class ClassFoldersSpecification(DividedSpecification):
    """A folder of images per class, under ``train``, ``val`` and ``test`` or under the root itself."""

    kind: Literal["class-folders"]
    allow_absent_classes: AllowAbsentClasses = False

    def open(self, task: str) -> Dataset:
        from ._class_folders import class_folders

        return class_folders(self.root, self.fractions, self.seed, allow_absent_classes=self.allow_absent_classes)


class SpairSpecification(RootedSpecification):
    """SPair-71k: keypoint pairs of one category or all."""

    kind: Literal["spair"]
    size: Literal["large", "small"] = Field(default="large", description="which lists of pairs, under Layout")
    category: str | None = Field(default=None, description="only pairs of this category, such as cat; null: all")
    category_prompt: bool = Field(
        default=True, description="use the prompt 'a photo of a {category}', as the protocol of DIFT does"
    )

    def open(self, task: str) -> Dataset:
        from ._spair import spair

        return spair(self.root, self.size, self.category, category_prompt=self.category_prompt)
