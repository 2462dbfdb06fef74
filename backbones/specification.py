"""The model's part of the specification."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator, model_validator

from .registry import BACKBONES, DIFFUSERS

MOST_VARIANTS = 32
"""Most variants of a model in one search, the model itself included."""

_Edge = Annotated[int, Field(ge=8, le=8192)]
ImageSize = tuple[_Edge, _Edge]
HubIdOrPath = Annotated[str, BeforeValidator(lambda value: str(value) if isinstance(value, PurePath) else value)]
"""Text; a path, as Python code may give it, becomes its text."""

NoiseSeeds = Annotated[int, Field(ge=1, le=64)]

_OF_DIFFUSERS = ("revision", "variant", "lora", "offload", "vae_tiling", "allow_pickle")
"""Fields that only the built-in kind understands."""

_RUN = ("image_size", "resize", "prompt", "batch_size", "noise_seed", "noise_seeds", "noise_shared")
"""Fields about how a pipeline is run, not what is loaded."""


_DEVICES = ("auto", "cpu", "cuda", "mps", "xpu", "hpu", "mtia", "npu", "mlu", "xla")
"""Types of devices that a name may begin with; whether this machine has one is seen when a model is loaded."""


def checked_device(name: str) -> str:
    """The name of a device, as it is given.

    Raises:
        ValueError: it is no name of a device.
    """
    kind, _, number = name.partition(":")
    if kind not in _DEVICES or (":" in name and not number.isdecimal()):
        hint = "; did you mean 'cuda'?" if kind in ("gpu", "GPU", "nvidia") or kind.lower() == "cuda" else ""
        raise ValueError(f"must be auto, cpu, cuda, cuda:1 or mps, but got {name!r}{hint}")
    return name


class ModelSpecification(BaseModel):
    """Which model to take features from, and how to run it. `device` and `batch_size` may change on resume.

    The fields are documented in ``docs/specification.md``.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: HubIdOrPath = Field(
        description="hub id (stable-diffusion-v1-5/stable-diffusion-v1-5) or folder of a diffusers pipeline"
    )
    kind: str = Field(default=DIFFUSERS, description="diffusers, or a registered kind of backbone")
    options: dict[str, Any] = Field(default={}, description="options of a registered kind, which defines them")
    revision: str | None = Field(default=None, description="branch, tag or commit on the hub")
    variant: str | None = Field(default=None, description="file variant on the hub or in the folder, such as fp16")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        default="auto",
        description="auto: bfloat16 where the model was published in it, else float16 on a GPU and float32 on a CPU",
    )
    device: str = Field(default="auto", description="auto, cpu, cuda, cuda:1, mps")
    image_size: ImageSize | None = Field(
        default=None, description="[height, width] in px to which images are resized; default: the model's own size"
    )
    resize: Literal["stretch", "pad"] = Field(
        default="stretch", description="pad: scale to fit and pad with grey, so that images keep their aspect ratio"
    )
    prompt: str = Field(default="", description="one prompt for all images; empty: no text")
    batch_size: int = Field(default=16, ge=1, le=1024, description="images that run through the model together")
    noise_seed: int = Field(default=0, ge=0, lt=2**63, description="seed of the noise added to images")
    noise_seeds: NoiseSeeds = Field(
        default=1, description="noise draws over which features are averaged; each costs a pass"
    )
    noise_shared: bool = Field(
        default=False, description="use the same noise for all images, instead of noise that depends on the image"
    )
    lora: HubIdOrPath | None = Field(
        default=None, description="LoRA weights to add: hub id, folder or .safetensors file"
    )
    lora_scale: float = Field(default=1.0, description="how strongly LoRA weights are added")
    offload: bool = Field(
        default=False,
        description="keep the denoiser's weights in CPU memory and move each layer to the GPU when it runs",
    )
    vae_tiling: bool = Field(
        default=False,
        description="encode large images in overlapping tiles: less memory, and slightly different features",
    )
    allow_pickle: bool = Field(
        default=False, description="load pickled weights where there are no safetensors; they can run code"
    )

    @field_validator("kind")
    @classmethod
    def _is_registered(cls, kind: str) -> str:
        if kind != DIFFUSERS and kind not in BACKBONES:
            raise ValueError(
                f"must be one of {', '.join(BACKBONES.names())} (register_backbone, or an entry point of the group "
                "diffsift.backbones, adds others)"
            )
        return kind

    @model_validator(mode="after")
    def _fits_its_kind(self) -> ModelSpecification:
        foreign = ("options",) if self.kind == DIFFUSERS else _OF_DIFFUSERS
        for field in foreign:
            value = getattr(self, field)
            if value != type(self).model_fields[field].default:
                raise ValueError(f"{field} must be left out with model.kind {self.kind}, but got {value!r}")
        return self

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, name: str) -> str:
        return checked_device(name)

    def loaded(self) -> dict[str, Any]:
        """The fields that decide what is loaded: models that agree in them use the same networks."""
        return self.model_dump(exclude=set(_RUN))


def owner_of(name: str, models: Mapping[str, ModelSpecification]) -> str:
    """The model whose networks another one uses.

    Args:
        name: of a model.
        models: all models of a study, by name.

    Returns:
        The first model that loads the same pipeline; `name` itself where it is the first, or of a registered kind.
    """
    if models[name].kind != DIFFUSERS:
        return name
    return next(other for other, model in models.items() if model.loaded() == models[name].loaded())


def differences(variant: ModelSpecification, given: ModelSpecification) -> str:
    """How a variant of a model is run differently from the model as given, in words.

    Args:
        variant: one of `JointSpecification.variants`.
        given: the model of the specification.

    Returns:
        The differing values, separated by commas, such as ``prompt 'a photo', 512 x 512 px``; empty where there are
        none.
    """
    parts = []
    if variant.prompt != given.prompt:
        parts.append(f"prompt {variant.prompt!r}")
    if variant.image_size is not None and variant.image_size != given.image_size:
        parts.append(f"{variant.image_size[0]} x {variant.image_size[1]} px")
    if variant.noise_seeds != given.noise_seeds:
        parts.append(f"{variant.noise_seeds} noise draw{'' if variant.noise_seeds == 1 else 's'}")
    return ", ".join(parts)


class JointSpecification(BaseModel):
    """Values in addition to the model's own that a search may choose; each combination is a separate backbone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompts: tuple[str, ...] = Field(default=(), description="further prompts, each for all images")
    image_sizes: tuple[ImageSize, ...] = Field(default=(), description="further sizes, [height, width] in px")
    noise_seeds: tuple[NoiseSeeds, ...] = Field(default=(), description="further numbers of noise draws")

    @field_validator("prompts", "image_sizes", "noise_seeds")
    @classmethod
    def _differ(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if len(set(values)) < len(values):
            raise ValueError("must differ from one another")
        return values

    def variants(self, name: str, model: ModelSpecification) -> dict[str, ModelSpecification]:
        """The variants of a model: all combinations of values but the model's own.

        Args:
            name: of the model's backbone.
            model: the model of the specification.

        Returns:
            Models by generated names such as ``main-prompt1-96x96-4noise``.

        Raises:
            ValueError: a value is the model's own, there are too many combinations, or the model is not run by
                diffusers.
        """
        if model.kind != DIFFUSERS and (self.prompts or self.image_sizes or self.noise_seeds):
            raise ValueError(
                f"joint must be left out for model.kind {model.kind}: only diffusers pipelines can be varied"
            )
        for field, single in (("prompts", "prompt"), ("image_sizes", "image_size"), ("noise_seeds", "noise_seeds")):
            own = getattr(model, single)
            if own in getattr(self, field):
                raise ValueError(
                    f"joint.{field} must not hold the value of model.{single}, which is tried anyway, but has {own!r}"
                )
        prompts = [("", model.prompt), *((f"-prompt{number}", text) for number, text in enumerate(self.prompts, 1))]
        sizes = [("", model.image_size), *((f"-{size[0]}x{size[1]}", size) for size in self.image_sizes)]
        draws = [("", model.noise_seeds), *((f"-{count}noise", count) for count in self.noise_seeds)]
        count = len(prompts) * len(sizes) * len(draws)
        if count > MOST_VARIANTS:
            raise ValueError(
                f"joint must make at most {MOST_VARIANTS} combinations with the model's own values, but {len(prompts)} "
                f"prompts x {len(sizes)} image sizes x {len(draws)} numbers of noise draws are {count}: take fewer "
                "values, or vary one field at a time, in separate studies"
            )
        return {
            f"{name}{prompt[0]}{size[0]}{seeds[0]}": model.model_copy(
                update={"prompt": prompt[1], "image_size": size[1], "noise_seeds": seeds[1]}
            )
            for prompt, size, seeds in list(product(prompts, sizes, draws))[1:]
        }
