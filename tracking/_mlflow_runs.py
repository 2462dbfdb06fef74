"""The runs of studies in an MLflow store: how they are marked, found, and told from those of another study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy.exc import SQLAlchemyError

from diffsift.errors import StudyError

from ._mlflow_store import (
    database_url,
    existing_experiment,
    open_client,
    quiet,
    require_can_be_made,
    store_error,
)
from ._sqlite import sqlite_file

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

UID, STUDY, STUDY_UID, ROLE = "diffsift.trial_uid", "diffsift.study", "diffsift.study_uid", "diffsift.role"
PARENT = "mlflow.parentRunId"
_PAGE = 200  # of runs: a server should answer within the seconds that a request may take


def search_runs(client: MlflowClient, experiment: str, filter_string: str) -> list[Run]:
    """All active runs that a filter in MLflow's language lets through."""
    runs: list[Run] = []
    token: str | None = ""
    while token is not None:
        page = client.search_runs([experiment], filter_string, max_results=_PAGE, page_token=token or None)
        runs.extend(page)
        token = page.token or None
    return runs


def study_runs(client: MlflowClient, experiment: str, study: str) -> list[Run]:
    """The parent runs of studies of a name; several where they were made in several databases."""
    # Names are compared here, since they may hold any quote.
    runs = search_runs(client, experiment, f"tags.`{ROLE}` = 'study'")
    return [run for run in runs if run.data.tags.get(STUDY) == study]


def trial_runs(client: MlflowClient, experiment: str, uid: str, parent: str) -> list[Run]:
    """The child runs of a study; those of a parent run that was deleted are given to the present one."""
    if not uid:
        return search_runs(client, experiment, f"tags.`{PARENT}` = '{parent}' and tags.`{ROLE}` = 'trial'")
    children = search_runs(client, experiment, f"tags.`{ROLE}` = 'trial' and tags.`{UID}` LIKE '{uid}-%'")
    for run in children:
        if run.data.tags.get(PARENT) != parent:
            client.set_tag(run.info.run_id, PARENT, parent)
    return children


def may_be_of(run: Run, uid: str) -> bool:
    """Whether a parent run is of the study of this uid; older versions did not write any."""
    return not uid or run.data.tags.get(STUDY_UID, "") in ("", uid)


def require_store(store_uri: str, artifacts: Path, study: str, uid: str) -> None:
    """Refuse a store that cannot be used for a study, before anything long is done.

    Args:
        store_uri: as `MlflowLogger` gets it.
        artifacts: as `MlflowLogger` gets it.
        study: name of the study.
        uid: of the study; empty: it is new.

    Raises:
        StudyError: the store cannot be reached or written, its experiment is in the trash, or it holds another study of
            this name. In the workspace's own store that is a study whose database was moved away; it is left alone.
    """
    url = database_url(store_uri)
    file = None if url is None else sqlite_file(url)
    if file is not None and not file.exists():
        require_can_be_made(file)
        return
    from mlflow.exceptions import MlflowException

    client = open_client(store_uri, artifacts)
    try:
        with quiet():
            experiment = existing_experiment(client)
            found = [] if experiment is None else study_runs(client, experiment, study)
    except (MlflowException, SQLAlchemyError, OSError) as error:
        raise store_error(store_uri, error) from error
    is_own = file is not None and file.resolve().parent == artifacts.resolve().parent
    if found and not is_own and not (uid and any(may_be_of(run, uid) for run in found)):
        raise StudyError(
            f"MLflow store {store_uri} must hold no other study {study!r}, but has one that was made in another study "
            f"database (run {found[0].info.run_id}): give another name (study.name), or delete that run."
        )
