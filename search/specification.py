"""The study's part of the specification."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

Objective = Literal["score", "channels", "passes", "operations"]

Stage = Literal[
    "elimination",
    "warm start",
    "spread",
    "drawn",
    "add",
    "swap",
    "drop",
    "retime",
    "retime all",
    "reweight",
    "single",
    "restart",
]
"""What the sampler sift does, as ``proposed_by`` names it in trials; elimination comes before them."""


def _score_first(objectives: tuple[Objective, ...]) -> tuple[Objective, ...]:
    if not objectives or objectives[0] != "score" or len(set(objectives)) < len(objectives):
        raise ValueError("must begin with score and name each objective once")
    return objectives


class StudySpecification(BaseModel):
    """How the search goes. `storage`, `trials`, `timeout`, `workers` and `rerank` may change on resume."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="letters, digits, dot, dash, underscore"
    )
    storage: str | None = Field(
        default=None, description="SQLAlchemy URL of the study database; default: SQLite in the workspace"
    )
    trials: int = Field(default=300, ge=1, le=1_000_000, description="distinct selections to evaluate")
    timeout: float | None = Field(default=None, gt=0, description="seconds after which no new trial starts")
    workers: int = Field(default=1, ge=1, le=1024, description="processes that evaluate selections, on this machine")
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of the search")
    sampler: Literal["sift", "tpe", "nsga2", "cmaes", "random"] = Field(
        default="sift", description="sift: ours; tpe, nsga2, cmaes, random: Optuna's own"
    )
    objectives: Annotated[tuple[Objective, ...], AfterValidator(_score_first)] = Field(
        default=("score",),
        description="what the search is for: score, which is maximised and decides which selection is the best; then, "
        "minimised, any of channels, passes, operations",
    )
    warm_start: tuple[str, ...] = Field(
        default=(),
        description="studies of the same database whose best selections are tried first; needs the sampler sift",
    )
    skip: tuple[Stage, ...] = Field(default=(), description="stages that the sampler sift leaves out")
    rerank: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="how many of the best that differ are scored by the slow probe, which then decides; 1: none, the "
        "best by the fast probe is the one found",
    )
    rerank_probe: str = Field(
        default="reference", description="the slow probe: reference (the task's first), mlp, logistic, linear, exact"
    )

    @model_validator(mode="after")
    def _warm_starts_are_used(self) -> Self:
        if self.warm_start and self.sampler != "sift":
            raise ValueError(f"warm_start needs the sampler sift, but it is {self.sampler}")
        if self.skip and self.sampler != "sift":
            raise ValueError(f"skip needs the sampler sift, but it is {self.sampler}")
        if self.warm_start and "warm start" in self.skip:
            raise ValueError("warm_start must be empty where skip leaves warm starts out")
        if self.name in self.warm_start:
            raise ValueError("warm_start must name other studies than this one")
        if self.sampler == "cmaes" and len(self.objectives) > 1:
            raise ValueError(
                f"objectives must be [score] with the sampler cmaes, which has one objective, but got "
                f"{list(self.objectives)}"
            )
        return self
