"""How records become MLflow parameters, metrics and tables."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from .records import Outcome, TrialRecord

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

MOST_CHARACTERS = 6000
"""MLflow's limit on a parameter's value; tags may be a little longer."""

_NOT_IN_NAMES = re.compile(r"[^\w./ -]")  # what a metric or parameter may be called on every system


def clip(text: str) -> str:
    return text if len(text) <= MOST_CHARACTERS else text[: MOST_CHARACTERS - 1] + "…"


def field_name(text: str) -> str:
    """`text` as MLflow allows a metric or parameter to be called."""
    return _NOT_IN_NAMES.sub("_", text)[:250]


def trial_parameters(record: TrialRecord) -> dict[str, str]:
    members = record.selection.members
    fields = {
        "number": str(record.number),
        "selection": str(record.selection),
        "activations": ", ".join(candidate.activation for candidate, _ in members),
        "timesteps": ", ".join(str(candidate.timestep) for candidate, _ in members),
        "weights": ", ".join(f"{weight:g}" for _, weight in members),
        "proposed_by": record.proposed_by,
    }
    return {key: clip(value) for key, value in fields.items()}


def trial_metrics(record: TrialRecord) -> dict[str, float]:
    folds = {f"fold_{index}": float(score) for index, score in enumerate(record.fold_scores)}
    return {
        "score": float(record.score),
        **folds,
        "channels": float(record.channels),
        "passes": float(record.passes),
        **({} if record.operations is None else {"operations": record.operations}),
        "seconds": float(record.seconds),
    }


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Nested parameters by dotted path: ``{"limits": {"most": 4}}`` is ``{"limits.most": "4"}``."""
    flat: dict[str, str] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping) and value:
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[field_name(f"{prefix}{key}")] = clip(
                value if isinstance(value, str) else json.dumps(value, default=str)
            )
    return flat


def dataset_input(dataset: Mapping[str, Any]) -> DatasetInput:
    """`dataset` as an MLflow data set: its name, its source (a path or URL), and all its fields as the profile."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    profile = json.dumps(dict(dataset), sort_keys=True, default=str)
    digest = str(dataset.get("digest") or hashlib.sha256(profile.encode()).hexdigest())[:12]
    source = json.dumps({"uri": str(dataset.get("source", dataset["name"]))})
    entity = Dataset(str(dataset["name"])[:500], digest, "local", source, profile=profile)
    return DatasetInput(entity, [InputTag("mlflow.data.context", "selection")])


def trials_table(records: Iterable[TrialRecord], children: Container[str]) -> str:
    """The trials as CSV, by number; `children` are the uids of those that have a child run."""
    rows = [
        {
            "uid": record.uid,
            "number": record.number,
            "score": float(record.score),
            "fold_scores": json.dumps([float(score) for score in record.fold_scores]),
            "channels": record.channels,
            "passes": record.passes,
            "operations": record.operations,
            "seconds": f"{record.seconds:.4f}",
            "proposed_by": record.proposed_by,
            "selection": json.dumps(record.selection.to_json()),
            "child_run": "yes" if record.uid in children else "no",
        }
        for record in sorted(records, key=lambda record: record.number)
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def front_document(outcome: Outcome) -> dict[str, Any]:
    """The Pareto front as the artifact ``front.json`` shows it, cheapest first."""
    points = [
        {
            "trial": record.number,
            "score": float(record.score),
            "channels": record.channels,
            "passes": record.passes,
            "operations": record.operations,
            "selection": record.selection.to_json(),
        }
        for record in outcome.front
    ]
    return {"score_against": list(outcome.front_costs), "points": points}
