"""The bank's part of the specification."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class BankSpecification(BaseModel):
    """How features are sampled and compressed on disk."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    pixels_per_image: int = Field(default=64, ge=1, le=100_000, description="sampled locations per image")
    balance: float = Field(
        default=0.5,
        ge=0.0,
        le=1.0,
        description="share of locations drawn class by class; the rest uniformly over pixels",
    )
    max_channels: int = Field(
        default=256, ge=1, description="activations with more channels are projected to this many"
    )
    fit_images: int = Field(default=64, ge=1, description="training images that statistics and projections are fit on")
    seed: int = Field(default=0, ge=0, description="seed of locations and of the images statistics are fit on")
    budget_gb: float | None = Field(
        default=None,
        gt=0,
        description="most gigabytes that the entries of a study may take; `null`: what the disk holds",
    )
