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
        "auto: structural for U-Nets with cross-attention, measured for everything else; none: keep everything",
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

    activations: int = Field(default=4, ge=1, le=64, description="largest number of candidates in a selection")
    channels: int | None = Field(
        default=None, ge=1, description="largest number of channels of the fused feature; default: no limit"
    )
    passes: int | None = Field(
        default=None,
        ge=1,
        description="largest number of passes per image; each distinct pair of model and timestep costs noise_seeds "
        "passes; default: no limit",
    )
    operations: float | None = Field(
        default=None,
        gt=0,
        description="largest number of operations per image, as a fraction of a whole pass's multiply-adds, summed "
        "over passes; each pass ends at its deepest activation; default: no limit",
    )
