from ._creation import creating
from ._database import database_error, readable
from ._retry import AT_START, retried
from ._sqlite import tune_sqlite
from ._study_rows import Eliminated, Opening, StudyRow
from .claims import Claim, ClaimResult, Claims, ClaimStatus
from .ledger import Ledger, open_database
from .logger import LOGGERS, Logger, Loggers, make_loggers, register_logger, require_loggers, require_stores
from .mlflow_log import MlflowLogger, serve
from .records import (
    ActivationDecision,
    Evaluation,
    FinalRow,
    Outcome,
    Reranked,
    SelectionFrequency,
    TrialRecord,
    Verdict,
)
from .report import ActivationPicture, PredictionPicture, ReportPictures, write_report
from .results import StudyResults

__all__ = [
    "AT_START",
    "LOGGERS",
    "ActivationDecision",
    "ActivationPicture",
    "Claim",
    "ClaimResult",
    "ClaimStatus",
    "Claims",
    "Eliminated",
    "Evaluation",
    "FinalRow",
    "Ledger",
    "Logger",
    "Loggers",
    "MlflowLogger",
    "Opening",
    "Outcome",
    "PredictionPicture",
    "ReportPictures",
    "Reranked",
    "SelectionFrequency",
    "StudyResults",
    "StudyRow",
    "TrialRecord",
    "Verdict",
    "creating",
    "database_error",
    "make_loggers",
    "open_database",
    "readable",
    "register_logger",
    "require_loggers",
    "require_stores",
    "retried",
    "serve",
    "tune_sqlite",
    "write_report",
]
