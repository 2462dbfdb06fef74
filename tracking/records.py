"""Plain records that pass between the search, the ledger, MLflow and the report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from diffsift.errors import StudyError
from diffsift.spaces import Selection, passes_per_image

Cost = Literal["channels", "passes", "operations"]
"""What a selection costs besides its score: channels of the fused feature; per image, passes and operations."""


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial. `uid` is unique over all studies: it names the trial in MLflow.

    `operations` are those per image as a share of a whole pass's; None where they are not known. `draws` are the noise
    draws of backbones that run several times; all others run once.
    """

    uid: str
    number: int
    selection: Selection
    score: float
    fold_scores: tuple[float, ...]
    channels: int
    seconds: float
    proposed_by: str
    operations: float | None = None
    draws: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def passes(self) -> int:
        """How often a backbone runs per image."""
        return passes_per_image(self.selection.candidates, self.draws)

    def cost(self, name: Cost) -> float:
        """What the selection costs per image.

        Raises:
            StudyError: its operations are not known.
        """
        if name == "operations":
            if self.operations is None:
                raise StudyError(
                    f"the operations of {self.selection} must be known, but this study did not count them."
                )
            return self.operations
        return float(self.channels if name == "channels" else self.passes)


@dataclass(frozen=True)
class ActivationDecision:
    """What the filters decided about one activation, and why."""

    name: str
    kind: str
    stage: str
    level: int | None
    depth: int
    channels: int
    stride: int
    kept: bool
    reason: str
    backbone: str = "main"


@dataclass(frozen=True)
class FinalRow:
    """One row of the final table, scored on the sealed test split.

    `low` and `high` bound the score's 95 % bootstrap interval over images; `gain`, `gain_low`, `gain_high` are how much
    better found is than this row, above 0 for errors too, with its paired interval (None in the row of found itself).
    """

    name: str
    selection: Selection
    score: float
    low: float
    high: float
    channels: int
    passes: int
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    note: str = ""


@dataclass(frozen=True)
class Confirmed:
    """A selection of the shortlist: its scores by the fast and by the slow probe, and whether it was taken for found.

    Both scores are on held-out images and the higher the better.
    """

    selection: Selection
    trial: int
    score: float
    confirmed: float
    taken: bool


@dataclass(frozen=True)
class ChosenShare:
    """The share of bootstrap resamples of the held-out images whose best selection holds an activation."""

    backbone: str
    activation: str
    share: float


@dataclass(frozen=True)
class Outcome:
    """Everything a finished search says: what the report shows and MLflow stores.

    `maximised` names the signed score that trials have (minus the metric where lower is better; empty: the metric).
    `measures` are further numbers on the test split, by row of the table and name. `front` are the trials that no other
    beats in score and in all of `front_costs`. `confirmed` is the shortlist that was scored by `confirm_probe`, empty
    where the best by the fast probe was taken. `stability` is in order of share.
    """

    study: str
    task: str
    metric: str
    protocol: str
    model: str
    data: str
    decisions: tuple[ActivationDecision, ...]
    pool_size: int
    trials: tuple[TrialRecord, ...]
    table: tuple[FinalRow, ...]
    found: Selection
    verdict: str
    warnings: tuple[str, ...] = ()
    credits: tuple[str, ...] = ()
    class_names: tuple[str, ...] = field(default=())
    maximised: str = ""
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    front: tuple[TrialRecord, ...] = ()
    front_costs: tuple[Cost, ...] = ("channels",)
    confirmed: tuple[Confirmed, ...] = ()
    confirm_probe: str = ""
    stability: tuple[ChosenShare, ...] = ()
