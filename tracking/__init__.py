"""What is remembered: ledger, MLflow, report, packaged extractor.

The names are loaded when they are first used: some need SQLAlchemy or numpy, which the command line's help does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ._sqlite import tune_sqlite
    from .claims import Claim, Claims
    from .ledger import Eliminated, Evaluation, Ledger, Opening, StudyRow, open_database
    from .mlflow_log import MlflowLog, serve
    from .records import ActivationDecision, ChosenShare, Confirmed, Cost, FinalRow, Outcome, TrialRecord
    from .report import ActivationPicture, PredictionPicture, ReportPictures, write_report

__all__ = [
    "ActivationDecision",
    "ActivationPicture",
    "ChosenShare",
    "Claim",
    "Claims",
    "Confirmed",
    "Cost",
    "Eliminated",
    "Evaluation",
    "FinalRow",
    "Ledger",
    "MlflowLog",
    "Opening",
    "Outcome",
    "PredictionPicture",
    "ReportPictures",
    "StudyRow",
    "TrialRecord",
    "open_database",
    "serve",
    "tune_sqlite",
    "write_report",
]

_HOMES = {
    "ActivationDecision": "records",
    "ActivationPicture": "report",
    "ChosenShare": "records",
    "Claim": "claims",
    "Claims": "claims",
    "Confirmed": "records",
    "Cost": "records",
    "Eliminated": "ledger",
    "Evaluation": "ledger",
    "FinalRow": "records",
    "Ledger": "ledger",
    "MlflowLog": "mlflow_log",
    "Opening": "ledger",
    "Outcome": "records",
    "PredictionPicture": "report",
    "ReportPictures": "report",
    "StudyRow": "ledger",
    "TrialRecord": "records",
    "open_database": "ledger",
    "serve": "mlflow_log",
    "tune_sqlite": "_sqlite",
    "write_report": "report",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value  # the next access does not come here again
    return value
