"""The model's part of the specification."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field


class ModelSpecification(BaseModel):
    """Which pipeline to take features from, and how to run it. `device` and `batch_size` may change on resume."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str = Field(
        description="hub id (stable-diffusion-v1-5/stable-diffusion-v1-5) or folder of a diffusers pipeline"
    )
    revision: str | None = Field(None, description="branch, tag or commit on the hub")
    variant: str | None = Field(None, description="file variant on the hub, such as fp16")
    dtype: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="auto: float16 on a GPU, float32 on a CPU"
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    image_size: tuple[Annotated[int, Field(ge=8)], Annotated[int, Field(ge=8)]] | None = Field(
        None, description="[height, width] in px that images are resized to; default: the model's own size"
    )
    resize: Literal["stretch", "pad"] = Field(
        "stretch", description="pad: scale to fit and surround with grey, so that images keep their shape"
    )
    prompt: str = Field("", description="one prompt for all images; empty: no text")
    batch_size: int = Field(16, ge=1, le=1024, description="images that run through the model together")
    noise_seed: int = Field(0, ge=0, lt=2**63, description="seed of the noise added to images")
    noise_seeds: int = Field(1, ge=1, le=64, description="noise draws that features are averaged over; passes multiply")
    noise_shared: bool = Field(False, description="one noise for all images, instead of one for each from its pixels")
    lora: str | None = Field(None, description="LoRA weights to add: hub id, folder or .safetensors file")
    lora_scale: float = Field(1.0, description="how strongly LoRA weights are added")
    offload: bool = Field(
        False, description="keep the denoiser's weights in the CPU's memory, layer by layer on the GPU"
    )
    allow_pickle: bool = Field(False, description="load weights that are not safetensors; they can run code")
