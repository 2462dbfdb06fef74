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
