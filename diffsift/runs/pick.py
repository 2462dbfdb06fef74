"""Another point of a study's front: the best selection that costs no more than asked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from diffsift import __version__
from diffsift.backbones import Activation
from diffsift.errors import StudyError
from diffsift.search import pareto_front
from diffsift.search.space import operations_per_image
from diffsift.spaces import Selection
from diffsift.stored_study import stored_specification
from diffsift.tracking import Cost, Ledger, TrialRecord, open_database
from diffsift.workspace import Workspace

from .prepare import Prepared, Say, prepare
from .select import refuse_other_content

SEALED = "picked from the study's front; not confirmed: the test split stays sealed"


@dataclass(frozen=True)
class Pick:
    """A selection taken from a study's front, and the file it was written to."""

    record: TrialRecord
    file: Path


def finished_selections(study: str, place: Workspace, storage: str | None = None) -> tuple[TrialRecord, ...]:
    """Every selection that a study has scored, with its costs; no model is loaded.

    Raises:
        StudyError: there is no such study, or it has not scored any.
    """
    specification = stored_specification(study, place, storage)
    with Ledger(open_database(storage or specification.study.storage or place.study_url)) as ledger:
        row = ledger.study(study)
        evaluations = ledger.evaluations(study)
    if row is None or not evaluations:
        raise StudyError(f"study {study!r} must have scored a selection, but has not: resume it.")
    draws = specification.noise_draws
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
            draws=draws,
        )
        for number, entry in enumerate(evaluations)
    )


def front_of(study: str, *, workspace: str | Path | None = None, storage: str | None = None) -> tuple[TrialRecord, ...]:
    """The study's front in score and all costs that are known, cheapest first.

    Raises:
        StudyError: there is no such study, or it has not scored any selection.
    """
    records = finished_selections(study, Workspace.at(workspace), storage)
    return pareto_front(records, _known_costs(records))


def pick(
    study: str,
    *,
    channels: int | None = None,
    passes: int | None = None,
    operations: float | None = None,
    out: str | Path = "picked.json",
    workspace: str | Path | None = None,
    storage: str | None = None,
    progress: bool = True,
    say: Say = print,
) -> Pick:
    """Write the selection with the best validation score that costs no more than asked.

    The test split is not opened. Statistics come from the bank; what was removed from it is extracted again.

    Args:
        study: name.
        channels: most channels of the fused feature.
        passes: most runs of a model per image.
        operations: most operations per image, as a share of a whole pass's.
        out: the selection file to write; its tensors go beside it.
        workspace: folder that holds the study.
        storage: SQLAlchemy URL of the study database, where it is another.
        progress: show progress bars.
        say: where lines about the course of things go.

    Raises:
        StudyError: there is no such study, nothing fits, or the data or model changed.
    """
    place = Workspace.at(workspace)
    bounds: dict[Cost, float | None] = {"channels": channels, "passes": passes, "operations": operations}
    asked: dict[Cost, float] = {name: bound for name, bound in bounds.items() if bound is not None}
    chosen = _best_within(study, finished_selections(study, place, storage), asked)
    specification = stored_specification(study, place, storage)
    prepared = prepare(specification, place, progress, say)
    with Ledger(open_database(storage or specification.study.storage or place.study_url)) as ledger:
        refuse_other_content(ledger, prepared)
    _fill(prepared, chosen.selection)
    file = Path(out)
    metric = prepared.objective.metric
    about = {
        "diffsift": __version__,
        "study": study,
        "task": specification.task.kind,
        "protocol": str(prepared.objective.protocol),
        "validation_score": {"metric": metric.name, "value": metric.sign * chosen.score},
        "verdict": SEALED,
    }
    prepared.save_selection(file, chosen.selection, about)
    return Pick(chosen, file)


def _best_within(study: str, records: tuple[TrialRecord, ...], asked: Mapping[Cost, float]) -> TrialRecord:
    fitting = [record for record in records if all(record.cost(name) <= bound + 1e-9 for name, bound in asked.items())]
    if not fitting:
        bounds = " and ".join(f"{bound:g} {name}" for name, bound in asked.items())
        smallest = " and ".join(f"{min(r.cost(name) for r in records):.4g} {name}" for name in asked)
        raise StudyError(
            f"a finished selection of study {study!r} must be within {bounds}, but none is: the smallest there is has "
            f"{smallest}{'' if len(asked) == 1 else ', each by itself'}. Raise the bound, or search with that limit."
        )
    return max(fitting, key=lambda record: (record.score, -record.number))


def _fill(prepared: Prepared, selection: Selection) -> None:
    """Have the bank hold a selection's candidates."""
    for source in prepared.sources.values():
        wanted: dict[int, list[Activation]] = {}
        for candidate in selection.candidates:
            if candidate.backbone == source.name:
                wanted.setdefault(candidate.timestep, []).append(source.activations[candidate.activation])
        if wanted:
            prepared.bank.fill(prepared.backbone(source.name), wanted)


def _known_costs(records: tuple[TrialRecord, ...]) -> tuple[Cost, ...]:
    counted = all(record.operations is not None for record in records)
    return ("channels", "passes", "operations") if counted else ("channels", "passes")


def print_front(study: str, *, workspace: str | Path | None = None, storage: str | None = None) -> None:
    """The front as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"{study}: what no other selection beats in score and cost (scores on validation)")
    for column in ("score", "channels", "passes", "operations"):
        table.add_column(column, justify="right")
    table.add_column("selection", overflow="fold")
    for record in front_of(study, workspace=workspace, storage=storage):
        share = "" if record.operations is None else f"{record.operations:.2f}"
        cells = (f"{record.score:.4f}", str(record.channels), str(record.passes), share)
        table.add_row(*cells, str(record.selection))
    Console().print(table)
