"""The study's part of the specification."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_serializer, model_validator

from diffsift.errors import without_passwords

from .sampler_registry import SAMPLERS

ObjectiveValue = Literal["score", "channels", "passes", "operations"]
"""What a trial is judged by: its score, or what the selection costs per image."""

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
"""Stages of the sampler ``sift``, as ``proposed_by`` names them in trials; elimination comes before them."""


def _score_first(objectives: tuple[ObjectiveValue, ...]) -> tuple[ObjectiveValue, ...]:
    if not objectives or objectives[0] != "score" or len(set(objectives)) < len(objectives):
        raise ValueError("must begin with score and name each objective once")
    return objectives


def _known_sampler(name: str) -> str:
    if name not in SAMPLERS:
        *names, last = map(repr, SAMPLERS.names())
        raise ValueError(f"must be {', '.join(names)} or {last}")
    return name


class StudySpecification(BaseModel):
    """How the search is run.

    `storage`, `trials`, `timeout`, `workers`, `rerank`, `rerank_probe` and `random_weights` may change when a study is
    resumed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="letters, digits, dot, dash, underscore"
    )
    storage: str | None = Field(
        default=None,
        repr=False,
        description="SQLAlchemy URL of the study database, better without a password; default: `$DIFFSIFT_STORAGE`, or "
        "SQLite in the workspace",
    )
    trials: int = Field(default=300, ge=1, le=1_000_000, description="distinct selections to evaluate")
    timeout: float | None = Field(default=None, gt=0, description="seconds after which no new trial starts")
    workers: int = Field(default=1, ge=1, le=1024, description="processes that evaluate selections, on this machine")
    seed: int = Field(default=0, ge=0, lt=2**31, description="seed of the search")
    sampler: Annotated[str, AfterValidator(_known_sampler)] = Field(
        default="sift",
        description="sift: ours; tpe, nsga2, cmaes, random: Optuna's own; or a sampler of another package",
    )
    objectives: Annotated[tuple[ObjectiveValue, ...], AfterValidator(_score_first)] = Field(
        default=("score",),
        description="what is optimised: score, which is maximised and decides which selection is best; then any of "
        "channels, passes and operations, which are minimised",
    )
    warm_start: tuple[str, ...] = Field(
        default=(),
        description="studies in the same database whose best selections are tried first; needs the sampler sift",
    )
    skip: tuple[Stage, ...] = Field(default=(), description="stages that the sampler sift leaves out")
    rerank: int = Field(
        default=1,
        ge=1,
        le=1000,
        description="how many of the best distinct selections a slow probe reranks; 1: no reranking, the best by the "
        "fast probe is used",
    )
    rerank_probe: str = Field(
        default="reference", description="the slow probe: reference (the task's first), mlp, logistic, linear, exact"
    )

    random_weights: bool = Field(
        default=True,
        description="whether the final table has the selection found on the same network with random weights; a large "
        "model is loaded again for it where memory does not hold both",
    )

    @field_serializer("storage", when_used="json")
    def _without_password(self, storage: str | None) -> str | None:
        """What is written anywhere (databases, MLflow, files) holds no password."""
        return None if storage is None else without_passwords(storage)

    @model_validator(mode="after")
    def _fields_agree(self) -> Self:
        if self.warm_start and self.sampler != "sift":
            raise ValueError(f"warm_start needs the sampler sift, but it is {self.sampler}")
        if self.skip and self.sampler != "sift":
            raise ValueError(f"skip needs the sampler sift, but it is {self.sampler}")
        if self.warm_start and "warm start" in self.skip:
            raise ValueError("warm_start must be empty if skip leaves warm starts out")
        if self.name in self.warm_start:
            raise ValueError("warm_start must name other studies than this one")
        if self.sampler == "cmaes" and len(self.objectives) > 1:
            raise ValueError(
                f"objectives must be [score] with the sampler cmaes, which has one objective, but got "
                f"{list(self.objectives)}"
            )
        return self
