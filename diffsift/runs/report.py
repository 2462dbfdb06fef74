"""The report of a finished study, written from the results that its workspace keeps: no test split is opened."""

from __future__ import annotations

from pathlib import Path

from diffsift.common.files import write_atomically
from diffsift.common.workspace import Workspace
from diffsift.errors import StudyError
from diffsift.study_store import StudyStore
from diffsift.tracking import StudyResults, write_report

from .outputs import OutputFiles


def report_again(
    study: str,
    *,
    out: str | Path | None = None,
    force: bool = False,
    workspace: str | Path | None = None,
    storage: str | None = None,
) -> Path:
    """Write the report of a finished study again.

    Args:
        study: name.
        out: file to write; default: ``report-STUDY.html`` in the current folder.
        force: overwrite a file that is not a report of this study.
        workspace: folder that holds the study, which may be read-only; default: ``$DIFFSIFT_WORKSPACE`` or
            ``./.diffsift``.
        storage: SQLAlchemy URL of the study database; default: where the workspace remembers the study.

    Returns:
        The file that was written.

    Raises:
        StudyError: there is no such study, it has not ended, its results were changed, or the file must not or cannot
            be written.
    """
    with StudyStore.existing(workspace, storage, study=study, reads_only=True) as store:
        store.row(study)
        recorded = store.ledger.outcome(study) or {}
    files = OutputFiles.of(study, None, out)
    files.refuse_overwriting_report(study, force=force)
    if recorded.get("results"):
        results = StudyResults.load(store.workspace.results(study), recorded["results"])
        write_report(results.outcome, results.pictures, files.report)
    else:
        _copy(store.workspace, study, files.report)
    return files.report


def _copy(workspace: Workspace, study: str, report: Path) -> None:
    """Copy the report that an older version kept."""
    stored = workspace.report(study)
    if not stored.is_file():
        raise StudyError(
            f"study {study!r} must have ended before it has a report, but has not: 'diffsift resume {study}' ends it."
        )
    try:
        report.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(report, stored.read_bytes())
    except OSError as error:
        raise StudyError(f"the report {report} cannot be written: {error.strerror or error}.") from error
