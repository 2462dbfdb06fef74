"""Plain records that the search, the ledger, the loggers and the report exchange."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from diffsift.common.data_summary import DataSummary
from diffsift.errors import StudyError
from diffsift.spaces import Cost, Selection, passes_per_image


@dataclass(frozen=True)
class Evaluation:
    """A selection's score on the bank.

    Attributes:
        selection: what was scored.
        score: over all folds; higher is better.
        fold_scores: in each fold.
        channels: of the fused feature.
        seconds: that scoring took.
    """

    selection: Selection
    score: float
    fold_scores: tuple[float, ...]
    channels: int
    seconds: float

    def columns(self) -> dict[str, Any]:
        """As columns of the ledger.

        Raises:
            StudyError: a score is not finite.
        """
        if not all(math.isfinite(value) for value in (self.score, *self.fold_scores)):
            raise StudyError(
                f"scores must be finite, but {self.selection} got {self.score} with folds {list(self.fold_scores)}."
            )
        return {
            "score": float(self.score),
            "fold_scores": [float(value) for value in self.fold_scores],
            "channels": int(self.channels),
            "seconds": float(self.seconds),
        }


@dataclass(frozen=True)
class TrialRecord:
    """A finished trial.

    Attributes:
        uid: unique over all studies; names the trial in loggers.
        number: in the study, from 0.
        selection: what was proposed.
        score: on held-out images; higher is better.
        fold_scores: in each fold.
        channels: of the fused feature.
        seconds: that scoring took.
        proposed_by: the sampler's stage, or the sampler.
        operations: per image, as a share of a whole pass's; None where they are not known.
        noise_draws: noise draws of the backbones that run several times per image; all others run once.
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
    noise_draws: Mapping[str, int] = field(default_factory=dict, hash=False)

    @property
    def passes(self) -> int:
        """How often a backbone runs per image."""
        return passes_per_image(self.selection.candidates, self.noise_draws)

    def cost(self, name: Cost) -> float:
        """What the selection costs per image.

        Args:
            name: of the cost.

        Returns:
            Channels of the fused feature, passes, or operations in whole passes.

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
    """What the filters decided about one activation, and why.

    Attributes:
        name: of the activation.
        kind: such as ``cross-q``.
        stage: of the network: in, down, mid or up.
        level: of resolution within the stage; None where there are no levels.
        depth: position in the order of execution.
        channels: of the activation.
        stride: image pixels per position of the activation.
        kept: the decision.
        reason: of the decision.
        backbone: that the activation belongs to.
    """

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

    Attributes:
        name: of the row.
        selection: that was scored.
        score: by the task's metric.
        low: lower end of the score's 95 % bootstrap interval over images.
        high: upper end.
        channels: of the fused feature.
        passes: of backbones per image.
        gain: by how much the selection found is better than this row, positive for errors too; None in its own row.
        gain_low: lower end of the gain's paired 95 % interval.
        gain_high: upper end.
        note: what else there is to say.
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
class Reranked:
    """A selection of the shortlist, scored by the slow probe that decides among them.

    Attributes:
        selection: what was scored.
        trial: number of its trial.
        fast_score: by the search's probe, on held-out images; higher is better.
        slow_score: by the slow probe, on the same images; higher is better.
        taken: whether it became the selection found.
    """

    selection: Selection
    trial: int
    fast_score: float
    slow_score: float
    taken: bool


@dataclass(frozen=True)
class SelectionFrequency:
    """How often an activation is chosen when the held-out images are resampled.

    Attributes:
        backbone: that the activation belongs to.
        activation: its name.
        share: of the bootstrap resamples whose best selection contains it, 0 to 1.
    """

    backbone: str
    activation: str
    share: float


@dataclass(frozen=True)
class Verdict:
    """What a final table says.

    Attributes:
        headline: the score of the selection found, with its interval.
        recommendation: one sentence: what to use.
        evidence: the comparisons with the other rows, a sentence each.
    """

    headline: str
    recommendation: str
    evidence: tuple[str, ...] = ()

    def __str__(self) -> str:
        return " ".join([self.headline, self.recommendation, *self.evidence])

    def to_json(self) -> dict[str, Any]:
        """As JSON."""
        return {**asdict(self), "evidence": list(self.evidence)}

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | str) -> Verdict:
        """The inverse of `to_json`; the text that older versions stored becomes headline and evidence.

        Args:
            stored: from the ledger: an object, or a text of an older version.

        Returns:
            The verdict.
        """
        if isinstance(stored, str):
            headline, _, rest = stored.partition(". ")
            return cls(f"{headline.rstrip('.')}.", "See the report.", (rest,) if rest else ())
        return cls(stored["headline"], stored["recommendation"], tuple(stored["evidence"]))


@dataclass(frozen=True)
class Outcome:
    """Everything a finished search says: what the report shows, MLflow logs and the ledger keeps.

    Attributes:
        study: name.
        task: kind.
        metric: name, in its own direction.
        protocol: how the scores came about, in words.
        model: what the features come from, in words.
        data: what the search was done on, in words.
        data_summaries: what each data set holds.
        decisions: of the filters.
        pool_size: candidates.
        trials: all finished ones, in order.
        table: the final table.
        found: the selection found.
        verdict: what the table says.
        warnings: what the user should know.
        credits: whom to name where images are shown.
        class_names: empty where there are none.
        maximised: name of the signed score that trials have, minus the metric where lower is better; empty: the metric.
        measures: further numbers on the test split, by row of the table and name.
        front: the trials that no other beats in score and in all of `front_costs`.
        front_costs: what the score is set against.
        reranked: the shortlist that `rerank_probe` decided among; empty where the best by the fast probe was taken.
        rerank_probe: name of the slow probe.
        protocol_fields: how the scores came about, by field; two studies compare where these are equal.
        noise_seed: of the noise added to images.
        model_id: hub id or folder of the main model.
        stability: how often activations are selected on resampled images, most frequent first.
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
    verdict: Verdict
    warnings: tuple[str, ...] = ()
    credits: tuple[str, ...] = ()
    class_names: tuple[str, ...] = field(default=())
    maximised: str = ""
    measures: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    front: tuple[TrialRecord, ...] = ()
    front_costs: tuple[Cost, ...] = ("channels",)
    reranked: tuple[Reranked, ...] = ()
    rerank_probe: str = ""
    stability: tuple[SelectionFrequency, ...] = ()
    protocol_fields: Mapping[str, Any] = field(default_factory=dict)
    noise_seed: int = 0
    model_id: str = ""
    data_summaries: tuple[DataSummary, ...] = ()

    def to_json(self, selection_file: str, results: str = "") -> dict[str, Any]:
        """What the ledger keeps of it.

        Args:
            selection_file: path of the file that the selection found is written to.
            results: SHA-256 of the file that `StudyResults.save` wrote.

        Returns:
            Values that JSON can hold.
        """
        return {
            "selection": self.found.to_json(),
            "verdict": self.verdict.to_json(),
            "file": selection_file,
            "results": results,
            "model": self.model_id,
            "stability": [asdict(entry) for entry in self.stability],
            "metric": self.metric,
            "protocol": {**self.protocol_fields, "noise_seed": self.noise_seed},
            "table": [
                {"name": row.name, "score": row.score, "low": row.low, "high": row.high, "channels": row.channels}
                for row in self.table
            ],
        }
