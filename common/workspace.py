"""The workspace: one folder that holds bank, databases and artifacts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from diffsift.errors import StudyError

ENVIRONMENT_VARIABLE = "DIFFSIFT_WORKSPACE"


@dataclass(frozen=True)
class Workspace:
    """Where things lie. The selection is not here: it is a file the user keeps.

    Attributes:
        folder: an absolute path; the folder need not exist yet.
    """

    folder: Path

    @classmethod
    def at(cls, folder: str | Path | None = None) -> Workspace:
        """The given folder, else the one `ENVIRONMENT_VARIABLE` names, else ``./.diffsift``.

        Args:
            folder: a path, which may start with ``~``; None or empty: as above.

        Returns:
            The workspace, with an absolute path; nothing is made.
        """
        return cls(Path(folder or os.environ.get(ENVIRONMENT_VARIABLE) or ".diffsift").expanduser().resolve())

    @property
    def bank(self) -> Path:
        """Folder of the bank."""
        return self.folder / "bank"

    @property
    def artifacts(self) -> Path:
        """Folder of MLflow's artifacts."""
        return self.folder / "mlartifacts"

    @property
    def study_url(self) -> str:
        """SQLAlchemy URL of the study database, which Optuna and the ledger share."""
        return f"sqlite:///{self.folder / 'studies.db'}"

    @property
    def mlflow_url(self) -> str:
        """SQLAlchemy URL of MLflow's database."""
        return f"sqlite:///{self.folder / 'mlflow.db'}"

    @property
    def properties(self) -> Path:
        """Measured properties of models."""
        return self.folder / "properties"

    @property
    def weight_digests(self) -> Path:
        """Remembered digests of weights."""
        return self.folder / "weights.json"

    def report(self, study: str) -> Path:
        """The report of a finished study, which `diffsift report` copies.

        Args:
            study: name of the study.

        Returns:
            Path of the HTML file, which need not exist.
        """
        return self.folder / "reports" / f"{study}.html"

    def shared(self, study: str) -> Path:
        """What other workers of a study start from.

        Args:
            study: name of the study.

        Returns:
            Path of the safetensors file, which need not exist.
        """
        return self.folder / "shared" / f"{study}.safetensors"

    def require_studies(self, storage: str | None) -> None:
        """Refuse a workspace without studies.

        Args:
            storage: SQLAlchemy URL of a study database elsewhere; None: the one in this folder.

        Raises:
            StudyError: no `storage` is named, and the folder holds no study database.
        """
        if storage is None and not (self.folder / "studies.db").is_file():
            raise StudyError(
                f"{self.folder} holds no studies: run a search first, or name the workspace (--workspace)."
            )

    def make(self) -> None:
        """Make the folder.

        Raises:
            StudyError: it cannot be made.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StudyError(
                f"the workspace {self.folder} cannot be made ({error.strerror}): name another with --workspace or "
                f"${ENVIRONMENT_VARIABLE}."
            ) from error
