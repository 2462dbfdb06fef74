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
        description="fraction of locations sampled class by class; the rest are sampled uniformly over pixels",
    )
    max_channels: int = Field(
        default=256, ge=1, description="activations with more channels are projected to this number"
    )
    fit_images: int = Field(default=64, ge=1, description="training images on which statistics and projections are fit")
    seed: int = Field(default=0, ge=0, description="seed of the sampled locations and of the choice of fit_images")
    budget_gb: float | None = Field(
        default=None,
        gt=0,
        description="largest disk space of a study's entries, in gigabytes; null: the free disk space",
    )
