"""The task's and the probe's part of the specification."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    field_validator,
    model_serializer,
)

from .registry import OBJECTIVES, PROBES


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Task(_Part):
    kind: str
    folds: int = Field(
        default=3,
        ge=2,
        le=20,
        description="cross-validation folds over images; used if the data has no validation split",
    )


class TaskSpecification(_Task):
    """Semantic segmentation, the default task."""

    kind: Literal["segmentation"] = Field(
        default="segmentation", description="semantic segmentation, scored by mean IoU"
    )


class DepthSpecification(_Task):
    """Depth, or any positive number per pixel, by ridge regression."""

    kind: Literal["depth"]
    score: Literal["rmse", "abs-rel", "delta1", "delta2", "delta3"] = Field(
        default="rmse", description="the metric to optimise, a mean over images; all of them are reported"
    )
    alignment: Literal["none", "scale-and-shift"] = Field(
        default="none",
        description="none: scale-aware; scale-and-shift: scale and shift are first fit to each image's true depth",
    )


class NormalsSpecification(_Task):
    """Surface normals, a unit vector per pixel, by ridge regression."""

    kind: Literal["normals"]
    score: Literal["mean-angle", "median-angle", "rmse-angle", "within-11.25", "within-22.5", "within-30"] = Field(
        default="mean-angle",
        description="the metric to optimise, a mean over images: error in degrees, or the share of pixels whose error "
        "is below 11.25, 22.5 or 30 degrees; all of them are reported",
    )


class ClassificationSpecification(_Task):
    """A class per image, from features pooled over a regular grid: the mean, or the spread of attention maps."""

    kind: Literal["classification"]
    score: Literal["accuracy", "balanced-accuracy"] = Field(default="accuracy", description="the metric to optimise")


class CorrespondenceSpecification(_Part):
    """Keypoints matched in another image, zero-shot, by the nearest neighbour in cosine similarity."""

    kind: Literal["correspondence"]
    resolution: int = Field(default=16, ge=2, le=128, description="target locations per edge of the image")
    threshold: float = Field(default=0.1, gt=0, le=1, description="threshold of the PCK that is optimised")
    thresholds: tuple[float, ...] = Field(
        default=(0.05, 0.1, 0.15), min_length=1, description="thresholds that are reported"
    )
    normalise: Literal["image", "box"] = Field(
        default="image", description="a threshold is a fraction of the longer edge of the image or of the box"
    )
    average: Literal["point", "image"] = Field(
        default="point", description="mean over all keypoints (point) or over pairs of images (image)"
    )


class OtherTaskSpecification(_Task):
    """A task registered by the user; see `register_objective`."""

    kind: str
    options: dict[str, Any] = Field(default={}, description="options of the objective, which defines them")

    @field_validator("kind")
    @classmethod
    def _is_registered(cls, kind: str) -> str:
        if kind not in OBJECTIVES:
            raise ValueError(
                f"must be one of {', '.join(OBJECTIVES.names())} (register_objective, or an entry point of the group "
                "diffsift.objectives, adds others)"
            )
        return kind


_TASKS: dict[str, type[BaseModel]] = {
    "segmentation": TaskSpecification,
    "depth": DepthSpecification,
    "normals": NormalsSpecification,
    "classification": ClassificationSpecification,
    "correspondence": CorrespondenceSpecification,
}


def task_model(kind: str) -> type[BaseModel]:
    """The model of a task's fields.

    Args:
        kind: name of the task, built-in or registered.

    Returns:
        A pydantic model; that of registered tasks where the kind is not ours.
    """
    return _TASKS.get(kind, OtherTaskSpecification)


def _task_tag(value: Any) -> str:
    kind = value.get("kind", "segmentation") if isinstance(value, dict) else getattr(value, "kind", "segmentation")
    return kind if isinstance(kind, str) and kind in _TASKS else OTHER_TASK


OTHER_TASK = "registered-task"
AnyTaskSpecification = Annotated[
    Annotated[TaskSpecification, Tag("segmentation")]
    | Annotated[DepthSpecification, Tag("depth")]
    | Annotated[NormalsSpecification, Tag("normals")]
    | Annotated[ClassificationSpecification, Tag("classification")]
    | Annotated[CorrespondenceSpecification, Tag("correspondence")]
    | Annotated[OtherTaskSpecification, Tag(OTHER_TASK)],
    Discriminator(_task_tag),
]


class ProbeSpecification(_Part):
    """The head that scores a selection."""

    kind: str = Field(
        default="ridge",
        description="`ridge`: closed-form ridge regression, on one-hot classes, values or normals; `knn`: nearest "
        "neighbours; or a registered probe",
    )
    regularisation: float | Literal["auto"] = Field(
        default=1e-4,
        description="ridge penalty, relative to blocks of unit trace; `auto`: the value from 1e-6 to 1e-1 with the "
        "lowest error in cross-validation within the training images",
    )
    balance: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="0: locations weigh as all pixels would; 1: all locations weigh the same",
    )
    neighbours: int = Field(default=10, ge=1, description="`knn`: number of nearest exemplars that are averaged")
    exemplars: int = Field(
        default=2048, ge=1, le=100_000, description="`knn`: largest number of locations that serve as exemplars"
    )
    options: dict[str, Any] = Field(default={}, description="options of a registered probe, which defines them")

    @field_validator("kind")
    @classmethod
    def _is_registered(cls, kind: str) -> str:
        if kind not in PROBES:
            raise ValueError(
                f"must be one of {', '.join(PROBES.names())} (register_probe, or an entry point of the group "
                "diffsift.probes, adds others)"
            )
        return kind

    @field_validator("regularisation", mode="before")
    @classmethod
    def _is_a_penalty(cls, value: Any) -> Any:
        if value != "auto" and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
            raise ValueError("must be a number above 0, or auto")
        return value

    @model_serializer(mode="wrap")
    def _without_empty_options(self, serialise: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        """Studies that were made before there were options have none in their identity."""
        values = serialise(self)
        if not values.get("options"):
            values.pop("options", None)
        return values

    def __str__(self) -> str:
        """How the probe is fitted, for protocols."""
        if self.kind not in ("ridge", "knn"):
            options = ", ".join(f"{name} {value}" for name, value in sorted(self.options.items()))
            return f"{self.kind} probe{f' ({options})' if options else ''}, balance {self.balance:g}"
        if self.kind == "knn":
            return f"{self.neighbours} nearest of {self.exemplars} neighbours, balance {self.balance:g}"
        if self.regularisation == "auto":
            return f"ridge penalty chosen within the images that are fit on, balance {self.balance:g}"
        return f"ridge penalty {self.regularisation:g}, balance {self.balance:g}"
