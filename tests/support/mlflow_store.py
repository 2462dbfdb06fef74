"""What an MLflow store holds of a study, read with a plain client."""

from __future__ import annotations

import csv
from pathlib import Path

from mlflow import MlflowClient


def stored_scores(store_uri: str, study: str) -> dict[str, float]:
    """Score by uid of every trial that is wholly in the store: in a finished child run, or in the trials table."""
    client = MlflowClient(tracking_uri=store_uri)
    experiments = [entry.experiment_id for entry in client.search_experiments()]
    runs = [
        run for run in client.search_runs(experiments, max_results=5000) if run.data.tags["diffsift.study"] == study
    ]
    scores: dict[str, float] = {}
    for run in runs:
        if run.data.tags["diffsift.role"] == "trial":
            if run.info.status == "FINISHED":
                scores[run.data.tags["diffsift.trial_uid"]] = float(run.data.metrics["score"])
        elif any(entry.path == "trials.csv" for entry in client.list_artifacts(run.info.run_id)):
            with Path(client.download_artifacts(run.info.run_id, "trials.csv")).open(newline="") as file:
                rows = [row for row in csv.DictReader(file) if row["child_run"] == "no"]
            scores.update((row["uid"], float(row["score"])) for row in rows)
    return scores
