"""What may be chosen: the filters', timesteps' and limits' part of the specification."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Rules = Literal["auto", "structural", "measured", "none"]


class FilterSpecification(BaseModel):
    """Which activations enter the pool."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    rules: Rules = Field(
        default="auto",
        description="structural: the paper's rules generalised; measured: by properties measured without labels; "
        "auto: structural for U-Nets with cross-attention, measured for all else; none: keep everything",
    )
    attention_maps: bool = Field(
        default=False, description="try attention maps too; a self-attention map is as wide as its grid"
    )
    keep: tuple[str, ...] = Field(
        default=(), description="keep only names that match one of these patterns (up-*-cross-q)"
    )
    drop: tuple[str, ...] = Field(default=(), description="drop names that match one of these patterns")


class LimitsSpecification(BaseModel):
    """How large a selection may be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    activations: int = Field(default=4, ge=1, le=64, description="most candidates in a selection")
    channels: int | None = Field(
        default=None, ge=1, description="most channels of the fused feature; default: no limit"
    )
    passes: int | None = Field(
        default=None,
        ge=1,
        description="most runs of a model per image, one a noise draw for each distinct pair of model and timestep; "
        "default: no limit",
    )
    operations: float | None = Field(
        default=None,
        gt=0,
        description="most operations per image, as a share of a whole pass's multiply-adds and summed over passes, "
        "each of which ends at its deepest activation; default: no limit",
    )
