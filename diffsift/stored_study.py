"""The specification of a study, read back from its database."""

from __future__ import annotations

from typing import Any

from diffsift.errors import StudyError, did_you_mean
from diffsift.specification import Specification
from diffsift.tracking import Ledger, open_database
from diffsift.workspace import Workspace

CONTENT = "content"
"""Where a study's identity holds the digests of its model and data."""


def stored_specification(study: str, place: Workspace, storage: str | None = None) -> Specification:
    """The specification of a study, with the runtime fields of its last run.

    Raises:
        StudyError: there is no such study in the database.
    """
    place.require_studies(storage)
    with Ledger(open_database(storage or place.study_url)) as ledger:
        row = ledger.study(study)
        known = [entry.name for entry in ledger.studies()]
    if row is None:
        raise StudyError(f"no study is named {study!r} in {storage or place.folder}{did_you_mean(study, known)}")
    identity = {part: value for part, value in row.identity.items() if part != CONTENT}
    return Specification.parse(_merged(identity, row.runtime), source=f"study {study}")


def _merged(identity: dict[str, Any], runtime: dict[str, Any]) -> dict[str, Any]:
    """The stored specification: the identity's fields win over those of the last run."""
    merged = dict(runtime)
    for key, value in identity.items():
        merged[key] = _merged(value, runtime.get(key) or {}) if isinstance(value, dict) else value
    return merged
