"""The study's part of the specification."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

Objective = Literal["score", "channels", "passes", "operations"]


def _score_first(objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
    if not objectives or objectives[0] != "score" or len(set(objectives)) < len(objectives):
        raise ValueError("must begin with score and name each objective once")
    return objectives


class StudySpecification(BaseModel):
    """How the search goes. `storage`, `trials` and `timeout` may change on resume."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="letters, digits, dot, dash, underscore"
    )
    storage: str | None = Field(
        None, description="SQLAlchemy URL of the study database; default: SQLite in the workspace"
    )
    trials: int = Field(300, ge=1, le=1_000_000, description="distinct selections to evaluate")
    timeout: float | None = Field(None, gt=0, description="seconds after which no new trial starts")
    seed: int = Field(0, ge=0, lt=2**31, description="seed of the search")
    sampler: Literal["sift", "tpe", "nsga2", "random"] = Field(
        "sift", description="sift: ours, greedy with local moves; tpe, nsga2, random: Optuna's own"
    )
    objectives: Annotated[tuple[Objective, ...], AfterValidator(_score_first)] = Field(
        ("score",),
        description="what the search is for: score, which is maximised and decides which selection is the best; then, "
        "minimised, any of channels, passes, operations",
    )
