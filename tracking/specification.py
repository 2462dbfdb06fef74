"""The tracking part of the specification."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_serializer

from diffsift.errors import without_passwords


class TrackingSpecification(BaseModel):
    """Where trials are logged. All fields may change on resume."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mlflow: bool = Field(default=True, description="write trials to MLflow")
    uri: str | None = Field(
        default=None,
        repr=False,
        description="MLflow store: address of a server, or SQLAlchemy URL of a database other than `study.storage`, "
        "better without a password; default: SQLite in the workspace",
    )
    child_runs: int = Field(
        default=100,
        ge=0,
        description="the first trials, up to this number, get a run each; later trials only if they improve the score",
    )
    loggers: tuple[str, ...] = Field(
        default=(), description="further loggers by name, from packages with entry points of the group diffsift.loggers"
    )

    @field_serializer("uri", when_used="json")
    def _without_password(self, uri: str | None) -> str | None:
        """What is written anywhere (databases, MLflow, files) holds no password."""
        return None if uri is None else without_passwords(uri)
