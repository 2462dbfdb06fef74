"""The best selection of a study within bounds on its cost, and the study's Pareto front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffsift import __version__
from diffsift.common.reporting import LoggingReporter, Reporter
from diffsift.errors import StudyError
from diffsift.search import pareto_front
from diffsift.spaces import Cost, activations_by_timestep, operations_per_image
from diffsift.study_store import StudyStore
from diffsift.tracking import TrialRecord

from .outputs import PICKED, OutputFiles

SEALED = "picked from the study's front; not tested: the test split stays sealed"


@dataclass(frozen=True)
class Pick:
    """A selection within bounds.

    Attributes:
        record: its trial, with score and costs.
        file: the selection file that was written.
    """

    record: TrialRecord
    file: Path


def finished_selections(study: str, store: StudyStore) -> tuple[TrialRecord, ...]:
    """Every selection that a study has scored, with its costs; no model is loaded.

    Args:
        study: name.
        store: database of the study.

    Returns:
        Trials in the order in which they were scored.

    Raises:
        StudyError: there is no such study, or it has not scored any.
    """
    draws = store.specification(study).noise_draws
    row, evaluations = store.row(study), store.ledger.evaluations(study)
    if not evaluations:
        raise StudyError(f"study {study!r} must have scored a selection, but has not: resume it.")
    return tuple(
        TrialRecord(
            uid=entry.selection.key,
            number=number,
            selection=entry.selection,
            score=entry.score,
            fold_scores=entry.fold_scores,
            channels=entry.channels,
            seconds=entry.seconds,
            proposed_by="",
            operations=operations_per_image(entry.selection.candidates, row.operations, draws),
            noise_draws=draws,
        )
        for number, entry in enumerate(evaluations)
    )


def front_of(study: str, *, workspace: str | Path | None = None, storage: str | None = None) -> tuple[TrialRecord, ...]:
    """The study's Pareto front in score and all known costs, cheapest first.

    Args:
        study: name.
        workspace: folder that holds the study.
        storage: SQLAlchemy URL of the study database, where it is not in the workspace.

    Returns:
        The trials that no other trial dominates by being as good in all of these and better in one.

    Raises:
        StudyError: there is no such study, or it has not scored any selection.
    """
    with StudyStore.existing(workspace, storage, study=study, reads_only=True) as store:
        records = finished_selections(study, store)
    return pareto_front(records, _known_costs(records))


def pick(
    study: str,
    *,
    channels: int | None = None,
    passes: int | None = None,
    operations: float | None = None,
    out: str | Path | None = None,
    workspace: str | Path | None = None,
    storage: str | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> Pick:
    """Write the selection with the best validation score within bounds on its cost.

    The test split is not opened. Statistics come from the bank; entries that were removed from it are extracted again.

    Args:
        study: name.
        channels: most channels of the fused feature.
        passes: most runs of a model per image.
        operations: most operations per image, as a fraction of a whole pass.
        out: the selection file to write; its tensors go beside it. Default: ``picked-STUDY.json``.
        workspace: folder that holds the study.
        storage: SQLAlchemy URL of the study database, where it is not in the workspace.
        force: replace a file that is not a picked selection of this study.
        reporter: see `select`.

    Returns:
        The selection with its costs, and the file.

    Raises:
        StudyError: there is no such study, nothing fits, or the data or model changed.
    """
    files = OutputFiles.of(study, out or f"picked-{study}.json")
    files.refuse_overwriting(study, PICKED, force=force)
    bounds: dict[Cost, float | None] = {"channels": channels, "passes": passes, "operations": operations}
    given: dict[Cost, float] = {name: bound for name, bound in bounds.items() if bound is not None}
    with StudyStore.existing(workspace, storage, study=study, reads_only=True) as store:
        chosen = _best_within(study, finished_selections(study, store), given)
        specification = store.specification(study)
        from .prepare import prepare

        context = specification.context(store.workspace, reporter or LoggingReporter())
        prepared = prepare(specification, store, context)
        store.refuse_other_identity(specification, prepared.content, earlier_model=prepared.earlier_model)
    for model in prepared.models.values():
        wanted = activations_by_timestep(chosen.selection.candidates, model.name, model.activations)
        if wanted:
            prepared.bank.fill(prepared.backbone(model.name), wanted)
    metric = prepared.objective.metric
    about = {
        "diffsift": __version__,
        "study": study,
        "kind": PICKED,
        "task": specification.task.kind,
        "protocol": str(prepared.objective.protocol),
        "validation_score": {"metric": metric.name, "value": metric.sign * chosen.score},
        "verdict": SEALED,
    }
    prepared.save_selection(files.selection, chosen.selection, about)
    return Pick(chosen, files.selection)


def _best_within(study: str, records: tuple[TrialRecord, ...], bounds: Mapping[Cost, float]) -> TrialRecord:
    fitting = [record for record in records if all(record.cost(name) <= bound + 1e-9 for name, bound in bounds.items())]
    if not fitting:
        words = " and ".join(f"{bound:g} {name}" for name, bound in bounds.items())
        smallest = " and ".join(f"{min(r.cost(name) for r in records):.4g} {name}" for name in bounds)
        raise StudyError(
            f"a finished selection of study {study!r} must be within {words}, but none is: the smallest has "
            f"{smallest}{'' if len(bounds) == 1 else ' (each minimum taken separately)'}. Raise the bound, or search "
            "with that limit."
        )
    return max(fitting, key=lambda record: (record.score, -record.number))


def _known_costs(records: tuple[TrialRecord, ...]) -> tuple[Cost, ...]:
    counted = all(record.operations is not None for record in records)
    return ("channels", "passes", "operations") if counted else ("channels", "passes")
