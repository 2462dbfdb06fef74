"""The report of a finished study, taken from the workspace: nothing is computed and no test split opened."""

from __future__ import annotations

from pathlib import Path

from diffsift.errors import StudyError
from diffsift.study_store import StudyStore

from .outputs import OutputFiles


def copy_report(
    study: str,
    *,
    out: str | Path | None = None,
    force: bool = False,
    workspace: str | Path | None = None,
    storage: str | None = None,
) -> Path:
    """Copy the report that the workspace keeps of a study.

    Args:
        study: name.
        out: file to write; default: ``report-STUDY.html`` in the current folder.
        force: overwrite a file that is not a report of this study.
        workspace: folder that holds the study; default: ``$DIFFSIFT_WORKSPACE`` or ``./.diffsift``.
        storage: SQLAlchemy URL of the study database; default: SQLite in the workspace.

    Returns:
        The file that was written.

    Raises:
        StudyError: there is no such study, it has no report yet, or the file must not or cannot be written.
    """
    with StudyStore.existing(workspace, storage) as store:
        store.row(study)
    stored = store.workspace.report(study)
    if not stored.is_file():
        raise StudyError(
            f"study {study!r} must have a report in {stored.parent}, but has none: 'diffsift resume {study}' ends the "
            "study and writes it."
        )
    files = OutputFiles.of(study, None, out)
    files.refuse_overwriting_report(study, force=force)
    files.copy_report(stored)
    return files.report
