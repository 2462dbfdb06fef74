"""The tracking part of the specification."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class TrackingSpecification(BaseModel):
    """Where trials are shown. All of it may change on resume."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mlflow: bool = Field(default=True, description="write trials to MLflow")
    uri: str | None = Field(default=None, description="MLflow store URI; default: SQLite in the workspace")
    child_runs: int = Field(
        default=100, ge=0, description="trials with a run of their own; beyond, only those that improve"
    )
    loggers: tuple[str, ...] = Field(
        default=(), description="further loggers by name, from packages with entry points of the group diffsift.loggers"
    )
