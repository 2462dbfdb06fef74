"""The study's part of the specification."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class StudySpecification(BaseModel):
    """How the search goes. `storage`, `trials`, `timeout` and `workers` may change on resume."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="letters, digits, dot, dash, underscore"
    )
    storage: str | None = Field(
        None, description="SQLAlchemy URL of the study database; default: SQLite in the workspace"
    )
    trials: int = Field(300, ge=1, le=1_000_000, description="distinct selections to evaluate")
    timeout: float | None = Field(None, gt=0, description="seconds after which no new trial starts")
    workers: int = Field(1, ge=1, le=1024, description="processes that evaluate selections, on this machine")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the search")
    sampler: Literal["sift", "tpe", "nsga2", "random"] = Field(
        "sift", description="sift: ours, greedy with local moves; tpe, nsga2, random: Optuna's own"
    )
