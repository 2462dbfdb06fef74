"""What one study has tried: its Optuna study and its part of the ledger, which lie in the same database."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import optuna
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage, get_storage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from diffsift.common.reporting import LOGGER
from diffsift.errors import StudyError
from diffsift.spaces import Selection
from diffsift.tracking import (
    AT_START,
    Claims,
    Evaluation,
    Ledger,
    TrialRecord,
    creating,
    database_error,
    readable,
    retried,
    tune_sqlite,
)

from .space import SearchSpace
from .specification import StudySpecification

ATTRIBUTE = "diffsift"
"""The one user attribute of a trial: its selection, and who proposed it."""

DATABASE_ERRORS = (SQLAlchemyError, StorageInternalError)

Result = TypeVar("Result")


class TrialStore:
    """The trials of one study.

    Optuna holds the trials, the ledger the scores of their selections. A selection is scored once, however often it is
    proposed: all its trials have the same score. A trial is written whole, in one transaction, after its score is in
    the ledger; so a process that is killed leaves at most a score without a trial, which `SearchLoop` completes.

    The study is created in Optuna where it is missing; in the ledger it must exist.

    Args:
        url: SQLAlchemy URL of the study database.
        specification: of the study.
        space: pool and limits.
        ledger: in the same database.

    Raises:
        StudyError: the database cannot be opened, or is damaged.
    """

    def __init__(self, url: str, specification: StudySpecification, space: SearchSpace, ledger: Ledger) -> None:
        self.specification, self.space, self._ledger = specification, space, ledger
        self._database = open_storage(url)
        self._storage = get_storage(self._database)
        self._study = self._retried(self._opened)
        self._uid = str(self._study.user_attrs["uid"])
        self._study_id = self._retried(lambda: self._storage.get_study_id_from_name(specification.name))

    @property
    def name(self) -> str:
        """The study's name."""
        return self.specification.name

    @property
    def uid(self) -> str:
        """What the uids of the study's trials begin with, unlike those of any other study."""
        return self._uid

    @property
    def directions(self) -> list[StudyDirection]:
        """Whether each of the study's objective values is maximised or minimised."""
        return self._study.directions

    def reclaim(self) -> int:
        """Mark trials as failed that are left running, by ledgers of schema 1 or other users of the Optuna study.

        Trials of `SearchLoop` are not in the database while they run. Only the leader of a study may call this.

        Returns:
            How many trials were marked.
        """
        left = self._trials(TrialState.RUNNING)
        for trial in left:
            self._study.tell(trial.number, state=TrialState.FAIL)
        return len(left)

    def finished_trials(self) -> list[FrozenTrial]:
        """All finished trials in order, as Optuna holds them; not to be changed."""
        return self._trials(TrialState.COMPLETE)

    def records(self) -> list[TrialRecord]:
        """All finished trials in order, as Optuna and the ledger hold them.

        Raises:
            StudyError: the ledger lacks the score of a trial.
        """
        evaluations = {evaluation.selection: evaluation for evaluation in self.evaluations()}
        return [self.record(trial, evaluations.get(selection_of(trial))) for trial in self.finished_trials()]

    def best(self) -> TrialRecord:
        """The finished trial with the highest score; of equals the first.

        Raises:
            StudyError: no trial is finished.
        """
        records = self.records()
        if not records:
            raise StudyError(f"study {self.name!r} must have a finished trial, but has none: resume it.")
        return max(records, key=lambda record: record.score)

    def write(self, trial: FrozenTrial) -> FrozenTrial:
        """Write a finished trial to the database, whole or not at all.

        Args:
            trial: with its parameters, values and user attributes; its number is ignored.

        Returns:
            The trial with the number that it got.
        """
        tries = 0

        def write() -> FrozenTrial:
            nonlocal tries
            tries += 1
            if tries > 1:  # the connection may have been cut after the server had written the trial
                written = [other for other in self.finished_trials() if _is_same(other, trial)]
                if written:
                    return written[0]
            # Its parameters in one go, not each by itself before the next is looked up.
            with self._database.scoped_session.no_autoflush:
                identifier = self._storage.create_new_trial(self._study_id, template_trial=trial)
            return self._storage.get_trial(identifier)

        return self._retried(write)

    def values(self, evaluation: Evaluation) -> list[float]:
        """The study's objective values of a selection, in the order of `study.objectives`.

        Args:
            evaluation: the selection with its score.

        Returns:
            One value for each objective: the score (higher is better) or a cost per image.

        Raises:
            StudyError: operations are one of them and not known.
        """
        known = {
            "score": evaluation.score,
            "channels": evaluation.channels,
            "passes": self.space.passes(evaluation.selection),
            "operations": self.space.operations(evaluation.selection),
        }
        values = [known[name] for name in self.specification.objectives]
        if None in values:
            raise StudyError("study.objectives must leave out operations, because those of this pool are not known.")
        return [float(value) for value in values if value is not None]

    def record(self, trial: FrozenTrial, evaluation: Evaluation | None) -> TrialRecord:
        """A finished trial together with what the ledger holds of its selection.

        Args:
            trial: from Optuna.
            evaluation: from the ledger; None where the ledger has none.

        Returns:
            The trial as loggers and the report get it.

        Raises:
            StudyError: the ledger has no score of it, or others than Optuna.
        """
        if evaluation is None or not trial.values:
            raise StudyError(
                f"trial {trial.number} of study {self.name!r} must have its score in the ledger, but has none: the "
                "database was changed by something else than diffsift."
            )
        expected = self.values(evaluation)
        if trial.values[0] != expected[0] or not np.allclose(trial.values, expected, rtol=1e-9, atol=0):
            raise StudyError(
                f"trial {trial.number} of study {self.name!r} must have the same values in Optuna's tables and in the "
                f"ledger, but has {trial.values} and {expected}: the database is damaged or was changed by something "
                "else than diffsift. Restore it from a copy, or start the study anew under another name."
            )
        return TrialRecord(
            uid=f"{self._uid}-{trial.number}",
            number=trial.number,
            selection=evaluation.selection,
            score=float(trial.values[0]),
            fold_scores=tuple(evaluation.fold_scores),
            channels=evaluation.channels,
            seconds=evaluation.seconds,
            proposed_by=proposer_of(trial),
            operations=self.space.operations(evaluation.selection),
            noise_draws=self.space.noise_draws,
        )

    def evaluation(self, selection: Selection) -> Evaluation:
        """A selection's score, from the ledger.

        Args:
            selection: one that was scored in this study.

        Returns:
            The score with fold scores, channels and the seconds that it took.

        Raises:
            StudyError: the ledger has none.
        """
        evaluation = self._ledger.evaluation(self.name, selection)
        if evaluation is None:
            raise StudyError(
                f"the score of {selection} in study {self.name!r} must be in the ledger, but is not: the database was "
                "changed by something else than diffsift."
            )
        return evaluation

    def evaluations(self) -> list[Evaluation]:
        """All scores in the ledger, those without a trial too."""
        return self._ledger.evaluations(self.name)

    def evaluated(self) -> int:
        """How many selections have a score in the ledger."""
        return self._ledger.evaluated(self.name)

    def claims(self) -> Claims:
        """The selections that this process evaluates, for a ``with`` block; see `diffsift.tracking.Claims`."""
        return self._ledger.claims(self.name)

    def _opened(self) -> optuna.Study:
        names = self.specification.objectives
        study = optuna.create_study(
            storage=self._storage,
            study_name=self.name,
            directions=["maximize" if name == "score" else "minimize" for name in names],
            load_if_exists=True,
        )
        if "uid" not in study.user_attrs:
            study.set_user_attr("uid", uuid.uuid4().hex[:12])
        return study

    def _trials(self, state: TrialState) -> list[FrozenTrial]:
        return self._retried(lambda: self._study.get_trials(deepcopy=False, states=(state,)))

    def _retried(self, action: Callable[[], Result]) -> Result:
        """Do something with Optuna's tables, again where the connection to the server was lost."""
        with readable(self._database.engine.url):
            return retried(action, self._ledger.notify, between=self._database.scoped_session.remove)


def selection_of(trial: FrozenTrial) -> Selection:
    """The selection of a finished trial."""
    return Selection.from_json(trial.user_attrs[ATTRIBUTE]["selection"])


def proposer_of(trial: FrozenTrial) -> str:
    """Who proposed a finished trial: a stage of the sampler ``sift``, the name of another sampler, or "resumed"."""
    return str(trial.user_attrs[ATTRIBUTE]["proposed_by"])


def attribute(selection: Selection, proposed_by: str) -> dict[str, object]:
    """The user attribute that `selection_of` and `proposer_of` read."""
    return {"selection": selection.to_json(), "proposed_by": proposed_by}


def _is_same(written: FrozenTrial, trial: FrozenTrial) -> bool:
    """Whether a trial of the database is the one that this process was about to write."""
    return (written.datetime_start, written.user_attrs) == (trial.datetime_start, trial.user_attrs)


def open_storage(url: str) -> RDBStorage:
    """Optuna's storage on a database that the ledger shares; SQLite gets a write-ahead log and normal sync.

    Args:
        url: SQLAlchemy URL of the study database.

    Returns:
        The storage, with Optuna's tables in it.

    Raises:
        StudyError: the database cannot be opened.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    options = {"connect_args": {"timeout": 30}} if url.startswith("sqlite") else {"pool_pre_ping": True}
    parsed = make_url(url)

    def opened() -> RDBStorage:
        with readable(parsed), creating(parsed):
            return RDBStorage(url, engine_kwargs=options)

    try:
        storage = retried(opened, LOGGER.warning, patience=AT_START)
    except (SQLAlchemyError, StorageInternalError, RuntimeError) as error:
        raise database_error(parsed, error) from error
    tune_sqlite(storage.engine)
    return storage


def study_uid(url: str, study: str) -> str | None:
    """The uid of an Optuna study, without opening it as one of ours.

    Args:
        url: SQLAlchemy URL of the study database.
        study: name of the study.

    Returns:
        See `TrialStore.uid`; empty for a study that diffsift did not make; None where there is no study of that name.

    Raises:
        StudyError: the database cannot be opened.
    """
    storage = open_storage(url)
    try:
        return str(storage.get_study_user_attrs(storage.get_study_id_from_name(study)).get("uid", ""))
    except KeyError:
        return None
    finally:
        storage.engine.dispose()
