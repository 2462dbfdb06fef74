"""The workspace: one folder that holds bank, databases and artifacts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from diffsift.errors import StudyError, without_passwords

from .files import write_atomically

ENVIRONMENT_VARIABLE = "DIFFSIFT_WORKSPACE"
STORAGE_VARIABLE = "DIFFSIFT_STORAGE"
"""Environment variable with the URL of the study database: a place for a password that nothing writes down."""


def sqlite_url(file: Path) -> str:
    """The SQLAlchemy URL of an SQLite file, whatever characters are in its path.

    Args:
        file: an absolute path.

    Returns:
        A URL such as ``sqlite:////home/me/.diffsift/studies.db``, in which ``%``, ``?`` and the like are escaped.
    """
    from sqlalchemy.engine import URL

    return URL.create("sqlite", database=str(file)).render_as_string(hide_password=False)


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
        return sqlite_url(self.folder / "studies.db")

    @property
    def mlflow_url(self) -> str:
        """SQLAlchemy URL of MLflow's database."""
        return sqlite_url(self.folder / "mlflow.db")

    @property
    def properties(self) -> Path:
        """Measured properties of models."""
        return self.folder / "properties"

    @property
    def weight_digests(self) -> Path:
        """Remembered digests of weights."""
        return self.folder / "weights.json"

    def report(self, study: str) -> Path:
        """The report that older versions kept of a finished study, beside no `results`.

        Args:
            study: name of the study.

        Returns:
            Path of the HTML file, which need not exist.
        """
        return self.folder / "reports" / f"{study}.html"

    def results(self, study: str) -> Path:
        """What the final test of a study found, from which `diffsift report` writes the report again.

        Args:
            study: name of the study.

        Returns:
            Path of the file, which need not exist.
        """
        return self.folder / "results" / f"{study}.npz"

    def shared(self, study: str) -> Path:
        """What other workers of a study start from.

        Args:
            study: name of the study.

        Returns:
            Path of the safetensors file, which need not exist.
        """
        return self.folder / "shared" / f"{study}.safetensors"

    def remember_storage(self, study: str, url: str | None) -> None:
        """Remember which database holds a study, for the commands that name only the study.

        Args:
            study: name of the study.
            url: SQLAlchemy URL, whose password is not written; None: the database in this folder.
        """
        note = self._storage_note(study)
        if url is None:
            note.unlink(missing_ok=True)
        elif self.storage_of(study) != without_passwords(url):
            note.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(note, f"{without_passwords(url)}\n")

    def storage_of(self, study: str) -> str | None:
        """The URL that `remember_storage` wrote, without a password.

        Args:
            study: name of the study.

        Returns:
            An SQLAlchemy URL; None where the study is in this folder's database, or not known.
        """
        try:
            return self._storage_note(study).read_text(encoding="utf-8").strip() or None
        except (OSError, UnicodeDecodeError):
            return None

    def storages(self) -> list[str]:
        """The URLs of all other databases that hold studies of this workspace, each once."""
        names = sorted(note.stem for note in (self.folder / "storages").glob("*.txt"))
        return list(dict.fromkeys(url for name in names if (url := self.storage_of(name))))

    @property
    def has_database(self) -> bool:
        """Whether there is a study database in this folder."""
        return (self.folder / "studies.db").is_file()

    def no_studies(self) -> StudyError:
        """The error about a workspace in which no study can be found."""
        return StudyError(f"{self.folder} holds no studies: run a search first, or name the workspace (--workspace).")

    def _storage_note(self, study: str) -> Path:
        return self.folder / "storages" / f"{study}.txt"

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
