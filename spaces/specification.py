"""The part of the specification about filters and limits."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from .registry import FILTERS

Rules = Literal["auto", "structural", "measured", "none"]


class FilterSpecification(BaseModel):
    """Which activations may be chosen. The fields are documented in ``docs/specification.md``."""

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
    further: tuple[str, ...] = Field(default=(), description="names of registered filters, applied after the rules")

    @field_validator("further")
    @classmethod
    def _are_registered(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in FILTERS:
                raise ValueError(
                    f"must be names of filters, {', '.join(FILTERS.names())} (register_filter, or an entry point of "
                    "the group diffsift.filters, adds others)"
                )
        return names


class LimitsSpecification(BaseModel):
    """How large a selection may be. The fields are documented in ``docs/specification.md``."""

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
