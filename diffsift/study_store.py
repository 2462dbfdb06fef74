"""Where studies lie: one object that resolves a database's URL once and opens what is kept of a study."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from diffsift.common.reporting import LoggingReporter, Reporter
from diffsift.common.workspace import STORAGE_VARIABLE, Workspace
from diffsift.errors import StudyError, did_you_mean

if TYPE_CHECKING:
    from diffsift.bank import Bank, DevelopmentSet
    from diffsift.common.context import RunContext
    from diffsift.specification import Specification
    from diffsift.tracking import Ledger, StudyRow

CONTENT = "content"
"""Where a study's identity holds the digests of its models and data."""


class StudyStore:
    """The studies of a workspace, or of the database that a URL names.

    Use it as a context manager: on leaving, its connections are closed.

    Args:
        workspace: folder of bank, databases and artifacts; default: ``$DIFFSIFT_WORKSPACE`` or ``./.diffsift``.
        storage: SQLAlchemy URL of the study database; default: ``$DIFFSIFT_STORAGE``, or SQLite in the workspace.
        reporter: told that the database's server does not answer; default: warnings to the logger ``diffsift``.
        reads_only: nothing is written, so that the workspace may be read-only.

    Attributes:
        workspace: the resolved folder.
        storage: URL of a study database elsewhere; None: the one in the workspace.
        url: of the study database.
    """

    def __init__(
        self,
        workspace: str | Path | Workspace | None = None,
        storage: str | None = None,
        reporter: Reporter | None = None,
        *,
        reads_only: bool = False,
    ) -> None:
        self.workspace = workspace if isinstance(workspace, Workspace) else Workspace.at(workspace)
        self.storage = storage or os.environ.get(STORAGE_VARIABLE) or None
        self.url = self.storage or self.workspace.study_url
        self._reporter, self._reads_only = reporter or LoggingReporter(), reads_only

    @classmethod
    def existing(
        cls,
        workspace: str | Path | Workspace | None = None,
        storage: str | None = None,
        reporter: Reporter | None = None,
        *,
        study: str = "",
        reads_only: bool = False,
    ) -> Self:
        """A store that must exist already: where the URL leads, else where the workspace remembers the study.

        Args:
            workspace: see `StudyStore`.
            storage: see `StudyStore`.
            reporter: see `StudyStore`.
            study: the study that is asked for; empty: any.
            reads_only: see `StudyStore`.

        Raises:
            StudyError: no URL is given or remembered, and the workspace holds no study database.
        """
        store = cls(workspace, storage, reporter, reads_only=reads_only)
        if store.storage is not None:
            return store
        place = store.workspace
        remembered = place.storage_of(study) if study else None
        if remembered is None and not place.has_database:
            elsewhere = place.storages()
            if len(elsewhere) != 1:
                raise place.no_studies()
            remembered = elsewhere[0]
        return store if remembered is None else cls(place, remembered, reporter, reads_only=reads_only)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        if "ledger" in vars(self):
            self.ledger.__exit__(*exception)

    @cached_property
    def ledger(self) -> Ledger:
        """The ledger, opened when it is first asked for; the workspace is made where it is missing.

        Raises:
            StudyError: the database cannot be opened, or not written where that is needed.
        """
        from diffsift.tracking import Ledger, open_database

        if not self._reads_only:
            self.workspace.make()
        engine = open_database(self.url, reads_only=self._reads_only)
        return Ledger(engine, self._reporter.warning)

    def row(self, study: str) -> StudyRow:
        """The study as it was made.

        Raises:
            StudyError: there is no such study; the closest names are offered.
        """
        row = self.ledger.study(study)
        if row is None:
            known = [entry.name for entry in self.ledger.studies()]
            where = self.storage or self.workspace.folder
            raise StudyError(f"no study is named {study!r} in {where}{did_you_mean(study, known)}")
        return row

    def specification(self, study: str) -> Specification:
        """A study's specification, with the runtime fields of its last run.

        Raises:
            StudyError: there is no such study.
        """
        from diffsift.renamed_fields import renamed
        from diffsift.specification import Specification

        row = self.row(study)
        identity = {part: value for part, value in row.identity.items() if part != CONTENT}
        values = _with_what_was_allowed(_merged(identity, row.runtime))
        values["study"] = {**values["study"], "storage": self.storage}  # where it was found, whatever it says itself
        return Specification.parse(renamed(values)[0], source=f"study {study}")

    def bank(self, development: DevelopmentSet, specification: Specification, context: RunContext) -> Bank:
        """The bank of a study's development set."""
        from diffsift.bank import Bank

        return Bank(self.workspace.bank, development, specification.bank, context, study=specification.study.name)

    def shared_bank(self, specification: Specification, context: RunContext) -> Bank:
        """The bank that the leader of a study shares with its workers: neither images nor models are needed.

        Raises:
            BankError: what the leader wrote cannot be used.
        """
        from diffsift.bank import Bank

        shared = self.workspace.shared(specification.study.name)
        return Bank.reopened(shared, self.workspace.bank, specification.bank, context)

    def refuse_other_identity(
        self,
        specification: Specification,
        content: Mapping[str, str] | None = None,
        *,
        earlier_model: str | None = None,
    ) -> None:
        """Refuse a study of this name that was made with another specification or, once it is known, other content.

        Args:
            specification: as it is asked for now.
            content: digests of models and data; None where they are not known yet.
            earlier_model: the digest that an earlier version made of the same models, which is taken for the same.

        Raises:
            StudyError: fields differ; all are named.
        """
        from diffsift.specification import with_stored_paths

        name = specification.study.name
        row = self.ledger.study(name)
        if row is not None:
            known = dict(content or row.identity[CONTENT])
            if earlier_model is not None and row.identity[CONTENT]["model"] == earlier_model:
                known["model"] = earlier_model
            identity = with_stored_paths(specification.identity(), row.identity)
            self.ledger.check_identity(name, {**identity, CONTENT: known})

    def uid(self, study: str) -> str:
        """The uid of a study in Optuna; empty for one that is new.

        Raises:
            StudyError: the database holds an Optuna study of this name that diffsift did not make.
        """
        if self.storage is None and not self.workspace.has_database:
            return ""
        from diffsift.search import study_uid

        found = study_uid(self.url, study)
        if found is not None and self.ledger.study(study) is None:
            raise StudyError(
                f"{self.url} must hold no Optuna study {study!r} that diffsift did not make, but does: give another "
                "name (study.name), or name another database (study.storage)."
            )
        return found or ""

    def refuse_fewer_trials(self, specification: Specification) -> None:
        """Refuse a total below what is there: whoever gives it takes it for what is to be added.

        Raises:
            StudyError: the study has evaluated more selections than are asked for.
        """
        name, asked = specification.study.name, specification.study.trials
        there = 0 if self.ledger.study(name) is None else self.ledger.evaluated(name)
        if asked < there:
            raise StudyError(
                f"trials must be at least {there}, the distinct selections that study {name!r} has evaluated, but got "
                f"{asked}: it is the total, not what is added."
            )

    def create_or_update(self, specification: Specification, content: Mapping[str, str], pool: Sequence[Any]) -> bool:
        """Record a study where it is new, and the runtime fields of this run where it is not.

        Args:
            specification: of the study.
            content: digests of models and data.
            pool: the frozen pool, as JSON.

        Returns:
            Whether the study is new.
        """
        name, runtime = specification.study.name, specification.model_dump(mode="json")
        self.workspace.remember_storage(name, self.storage)
        if self.ledger.study(name) is None:
            identity = {**specification.identity(), CONTENT: dict(content)}
            self.ledger.create_study(name, identity, runtime, pool)
            return True
        self.ledger.set_runtime(name, runtime)
        return False


def _with_what_was_allowed(values: dict[str, Any]) -> dict[str, Any]:
    """A stored specification in which classes may be absent where its version did not ask."""
    from diffsift.datasets import DATASETS

    for data in (values["data"], *values.get("further_data", {}).values()):
        kind = data.get("kind")
        if kind in DATASETS and "allow_absent_classes" in DATASETS[kind].model_fields:
            data.setdefault("allow_absent_classes", True)
    return values


def _merged(identity: dict[str, Any], runtime: dict[str, Any]) -> dict[str, Any]:
    """The stored specification: the identity's fields win over those of the last run."""
    merged = dict(runtime)
    for key, value in identity.items():
        merged[key] = _merged(value, runtime.get(key) or {}) if isinstance(value, dict) else value
    return merged
