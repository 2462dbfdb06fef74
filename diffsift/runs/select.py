"""The main job, top to bottom: specification, backbone, pool, bank, search, confirmation, files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from diffsift import __version__
from diffsift.backbones import ModelSpecification, differences, resolve_device, resolve_dtype
from diffsift.bank import similarity
from diffsift.datasets import Dataset
from diffsift.errors import SpecificationError, StudyError
from diffsift.evaluation import FOUND, stability
from diffsift.objectives import TestResult
from diffsift.search import SearchSpace, SearchStudy, front_costs, pareto_front
from diffsift.search.warm_start import earlier_bests, require_warm_starts
from diffsift.spaces import Candidate, Selection
from diffsift.specification import Specification
from diffsift.stored_study import CONTENT, stored_specification
from diffsift.tracking import (
    ActivationDecision,
    Eliminated,
    Ledger,
    MlflowLog,
    Outcome,
    TrialRecord,
    open_database,
    write_report,
)
from diffsift.workspace import Workspace

from .cost import joint_words, prices
from .final_evaluation import finish
from .pictures import report_pictures
from .prepare import OLDER, PAPER, Prepared, Say, prepare, search_space
from .workers import helpers, refuse_workers


@dataclass(frozen=True)
class Result:
    """What a finished search hands back: its outcome and the files it wrote."""

    outcome: Outcome
    selection_file: Path
    report_file: Path


def select(
    specification: Specification | Mapping[str, Any],
    *,
    dataset: Dataset | None = None,
    workspace: str | Path | None = None,
    out: str | Path = "selection.json",
    report: str | Path | None = None,
    progress: bool = True,
    say: Say = print,
) -> Result:
    """Choose features: run the whole search that a specification describes, or go on with it where it stopped.

    Args:
        specification: or a nested mapping of its fields.
        dataset: data from Python, such as `MappedDataset`, in the place of `data` in the specification.
        workspace: folder for bank, databases and artifacts; default: ``$DIFFSIFT_WORKSPACE`` or ``./.diffsift``.
        out: the selection file to write; its tensors go beside it.
        report: the report to write; default: ``report.html`` beside the selection.
        progress: show progress bars.
        say: where lines about the course of things go.

    Returns:
        The outcome with the final table, and the paths of the files.

    Raises:
        DiffsiftError: the specification, model, data or database is not what it must be; raised before long work.
        KeyboardInterrupt: nothing finished is lost; `resume` goes on.
    """
    specification = _with_fixed_dtype(Specification.of(specification, dataset))
    place = Workspace.at(workspace)
    selection_file = Path(out)
    report_file = Path(report) if report else selection_file.with_name("report.html")
    refuse_workers(specification)
    with _open_ledger(specification, place) as ledger, ledger.exclusive(specification.study.name):
        _refuse_other_identity(ledger, specification)
        _refuse_fewer_trials(ledger, specification)
        require_warm_starts(ledger, specification.study.warm_start)
        prepared = prepare(specification, place, progress, say)
        refuse_other_content(ledger, prepared)
        study, log, records = _search(prepared, place, ledger, progress, say)
        chosen_shares = stability(records, prepared.probe, prepared.bank.development.held_out_groups)
        end = finish(prepared, study, ledger, progress, say)
        reopened = _reopened(ledger, specification.study.name)
        for warning in reopened:
            say(f"warning     {warning}")
        outcome = Outcome(
            study=specification.study.name,
            task=specification.task.kind,
            metric=prepared.objective.metric.name,
            maximised=prepared.objective.metric.maximised,
            protocol=str(prepared.objective.protocol),
            model=_model_words(specification, end.found),
            data="; ".join(map(_data_words, specification.data_sets.values())),
            decisions=_recorded(prepared),
            pool_size=len(study.space.pool),
            trials=tuple(records),
            table=end.table,
            found=end.found,
            verdict=end.verdict,
            warnings=(*prepared.warnings, end.weights_note, *reopened),
            credits=prepared.objective.credits,
            class_names=prepared.objective.class_names,
            measures=end.test.measures,
            confirmed=end.confirmed,
            confirm_probe=end.confirm_probe,
            stability=chosen_shares,
            front=pareto_front(records, front_costs(specification.study)),
            front_costs=front_costs(specification.study),
        )
        _write(prepared, outcome, end.test, selection_file, report_file)
        if log is not None:
            log.finish(outcome, [selection_file, selection_file.with_suffix(".safetensors"), report_file])
        ledger.record_outcome(
            specification.study.name,
            {
                "selection": end.found.to_json(),
                "verdict": end.verdict,
                "file": str(selection_file),
                "model": specification.model.id,
                "stability": [asdict(entry) for entry in chosen_shares],
                "metric": prepared.objective.metric.name,
                "protocol": {**prepared.objective.protocol.to_json(), "noise_seed": specification.model.noise_seed},
                "table": [
                    {"name": row.name, "score": row.score, "low": row.low, "high": row.high, "channels": row.channels}
                    for row in end.table
                ],
            },
        )
    return Result(outcome, selection_file, report_file)


def resume(
    study: str,
    *,
    workspace: str | Path | None = None,
    storage: str | None = None,
    trials: int | None = None,
    timeout: float | None = None,
    workers: int | None = None,
    **options: Any,
) -> Result:
    """Go on with a study by name; `trials` is the new total. Other `options` are those of `select`.

    Raises:
        StudyError: there is no such study in the database.
    """
    place = Workspace.at(workspace)
    specification = stored_specification(study, place, storage)
    specification = specification.with_runtime(trials=trials, timeout=timeout, workers=workers, storage=storage)
    return select(specification, workspace=place.folder, **options)


def _search(
    prepared: Prepared, place: Workspace, ledger: Ledger, progress: bool, say: Say
) -> tuple[SearchStudy, MlflowLog | None, list[TrialRecord]]:
    specification, bank = prepared.specification, prepared.bank
    if specification.variants:
        say(f"joint       {joint_words(prices(prepared))}")
    extracted = sum(
        bank.fill(prepared.backbone(source.name), prepared.wanted(source)) for source in prepared.sources.values()
    )
    pool = _checked_pool(prepared, say)
    say(
        f"bank        {bank.size / 1e6:.0f} MB, {len(pool)} candidates at {bank.development.locations} locations of "
        f"{len(bank.development.samples)} images ({'all there already' if not extracted else f'{extracted} extracted'})"
    )
    space = search_space(specification, bank, pool, prepared.operations())
    name = specification.study.name
    bank.share(place.shared(name), pool)  # before others can see the study: workers may join from then on
    if ledger.study(name) is None:
        shares = prepared.operations()
        frozen = [[entry.backbone, entry.activation, entry.timestep, shares.get(entry)] for entry in pool]
        identity = {**specification.identity(), CONTENT: _content(prepared)}
        ledger.create_study(name, identity, specification.model_dump(mode="json"), frozen)
        ledger.record_decisions(name, _recorded(prepared))
    else:
        ledger.set_runtime(name, specification.model_dump(mode="json"))
    earlier, notes = earlier_bests(ledger, specification.study.warm_start, space, _recorded(prepared))
    for note in notes:
        prepared.warnings.append(note)
        say(f"warm start  {note}")
    # The model as it is given: what a rule chooses in dozens of variants would take the place of the search.
    as_given = [source for name, source in prepared.sources.items() if name not in specification.variants]
    warm = [selection for rule in (PAPER, OLDER) for selection in prepared.by_rule(rule, as_given)]
    if specification.study.sampler == "sift" and "elimination" not in specification.study.skip:
        warm = [*_left_by_elimination(prepared, space, ledger, say), *warm]
    study = SearchStudy(
        specification.study.storage or place.study_url,
        specification.study,
        space,
        ledger,
        warm_starts=[*earlier, *(selection for selection in warm if set(selection.candidates) <= set(pool))],
        similarity=similarity(bank, pool),
    )
    failed = study.reclaim()
    if failed:
        say(f"resumed     {failed} trial that a stopped process left running was marked as failed")
    log = _open_log(prepared, place, study)
    try:
        with helpers(specification, place, say):
            study.run(
                prepared.probe,
                trials=specification.study.trials,
                timeout=specification.study.timeout,
                log=log,
                progress=progress,
                company=specification.study.workers > 1,
            )
    except KeyboardInterrupt:
        if log is not None:
            log.interrupt()
        raise
    if log is not None:
        log.flush()
    records = study.records()
    best = study.best()
    distinct = len({record.selection for record in records})
    error = prepared.probe.sampling_error(best.selection)
    sampled = "" if error is None else f" (sampled locations: standard error {error:.4f})"
    say(f"search      {distinct} distinct selections, best on validation {best.score:.4f}{sampled}: {best.selection}")
    return study, log, records


def _left_by_elimination(prepared: Prepared, space: SearchSpace, ledger: Ledger, say: Say) -> list[Selection]:
    """What backward elimination leaves of the pool, within the limits; nothing where the probe fits nothing.

    It is done once in a study. The sets that it solves on labels are no trials: the ledger counts them beside those.
    """
    name, most = prepared.specification.study.name, space.limits.activations
    known = ledger.elimination(name)
    if known is None:
        found = prepared.probe.eliminate(space.pool, most)
        if found is None or not found.solves:
            return []
        left = space.repaired(dict.fromkeys(found.survivors[:most], 1.0))
        ledger.record_elimination(name, left, found.solves)
        known = Eliminated(left, found.solves)
    note = f"{known.solves} sets solved on labels, beside the trials; what is left: {known.selection}"
    say(f"elimination {note}")
    prepared.warnings.append(f"backward elimination: {note}")
    return [known.selection]


def _checked_pool(prepared: Prepared, say: Say) -> list[Candidate]:
    for candidate, reason in sorted(prepared.bank.rejected.items()):
        warning = f"{candidate} was dropped: {reason}"
        prepared.warnings.append(warning)
        say(f"warning     {warning}")
    pool = prepared.pool()
    if not pool:
        raise SpecificationError("the pool must hold at least one candidate, but all have values that are not finite.")
    return pool


def _open_log(prepared: Prepared, place: Workspace, study: SearchStudy) -> MlflowLog | None:
    tracking = prepared.specification.tracking
    if not tracking.mlflow:
        return None
    uri = tracking.uri or place.mlflow_url
    log = MlflowLog(uri, place.artifacts, prepared.specification.study.name, child_runs=tracking.child_runs)
    log.start(prepared.specification.model_dump(mode="json"), _data_input(prepared))
    log.repair(study.records())
    return log


def _write(prepared: Prepared, outcome: Outcome, result: TestResult, selection_file: Path, report_file: Path) -> None:
    row = next(row for row in outcome.table if row.name == FOUND)
    about = {
        "diffsift": __version__,
        "study": outcome.study,
        "task": outcome.task,
        "protocol": outcome.protocol,
        "test_score": {"metric": outcome.metric, "value": row.score, "low": row.low, "high": row.high},
        "verdict": outcome.verdict,
    }
    prepared.save_selection(selection_file, outcome.found, about)
    pictures = report_pictures(prepared.shelf, outcome, result, prepared.specification)
    write_report(outcome, pictures, report_file)


def _with_fixed_dtype(specification: Specification) -> Specification:
    """With ``dtype: auto`` resolved, so that a study that is resumed on another device keeps its precision."""

    def fixed(model: ModelSpecification) -> ModelSpecification:
        dtype = str(resolve_dtype(model.dtype, resolve_device(model.device))).removeprefix("torch.")
        return model.model_copy(update={"dtype": dtype})

    further = {name: fixed(model) for name, model in specification.further_models.items()}
    return specification.model_copy(update={"model": fixed(specification.model), "further_models": further})


def _open_ledger(specification: Specification, place: Workspace) -> Ledger:
    place.make()
    return Ledger(open_database(specification.study.storage or place.study_url))


def _content(prepared: Prepared) -> dict[str, str]:
    """Digests of what lies behind the names in a specification: weights and images may change under the same path."""
    models = {source.name: source.identity for source in prepared.sources.values()}
    parts = {"model": models, "data": prepared.bank.development.identity}
    return {name: _digest(identity) for name, identity in parts.items()}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def _refuse_other_identity(ledger: Ledger, specification: Specification, content: dict[str, str] | None = None) -> None:
    """Refuse a study of this name made with another specification, or, once it is known, with other content."""
    row = ledger.study(specification.study.name)
    if row is not None:
        known = content or row.identity[CONTENT]
        ledger.check_identity(specification.study.name, {**specification.identity(), CONTENT: known})


def _refuse_fewer_trials(ledger: Ledger, specification: Specification) -> None:
    """Refuse a total below what is there: whoever gives it takes it for what is to be added."""
    name, asked = specification.study.name, specification.study.trials
    there = 0 if ledger.study(name) is None else ledger.evaluated(name)
    if asked < there:
        raise StudyError(
            f"trials must be at least {there}, the distinct selections that study {name!r} has evaluated, but got "
            f"{asked}: it is the total, not what is added."
        )


def refuse_other_content(ledger: Ledger, prepared: Prepared) -> None:
    """Refuse a study of this name whose model or data have changed under the same names.

    Raises:
        StudyError: what lies behind a name is not what the study was made with.
    """
    _refuse_other_identity(ledger, prepared.specification, _content(prepared))


def _reopened(ledger: Ledger, study: str) -> list[str]:
    times = len(ledger.openings(study))
    if times == 1:
        return []
    warning = (
        f"the test split was opened {times} times in this study: what was chosen after a look at it scores too well"
    )
    return [warning]


def _recorded(prepared: Prepared) -> tuple[ActivationDecision, ...]:
    return tuple(
        ActivationDecision(
            name=entry.name,
            kind=entry.kind,
            stage=entry.stage,
            level=entry.level,
            depth=entry.depth,
            channels=entry.channels,
            stride=entry.stride,
            kept=decision.kept,
            reason=decision.reason,
            backbone=source.name,
        )
        for source in prepared.sources.values()
        for decision in source.decisions
        for entry in [decision.activation]
    )


def _data_input(prepared: Prepared) -> dict[str, Any]:
    """The development set as MLflow names a data set: by name, digest and where it comes from."""
    identity = prepared.bank.development.identity
    data = prepared.specification.data_sets.values()
    return {
        "name": " + ".join(entry.kind for entry in data),
        "digest": _digest(identity),
        "source": " + ".join(map(_data_place, data)),
        "context": "development",
        "images": len(prepared.bank.development.samples),
    }


def _model_words(specification: Specification, found: Selection) -> str:
    """The models of a study, and what variants the selection found is of."""
    models = " + ".join(model.id for model in (specification.model, *specification.further_models.values()))
    used = {candidate.backbone for candidate in found.candidates}
    variants = {name: model for name, model in specification.variants.items() if name in used}
    words = [f"{name}: {differences(model, specification.model)}" for name, model in variants.items()]
    return "; ".join([models, *words])


def _data_words(data: Any) -> str:
    if data.kind == "digit-scenes":
        return f"digit scenes (built in): {data.train} training, {data.validation} validation, {data.test} test scenes"
    if data.kind == "python":
        return f"a {type(data.dataset).__name__} from Python"
    if data.kind == "folder":
        return f"images {data.images}, labels {data.labels}"
    return f"{data.kind} in {_data_place(data)}"


def _data_place(data: Any) -> str:
    """The folder or file that data come from; its kind where they are generated."""
    return str(next((value for _, value in data if isinstance(value, Path)), data.kind))


__all__ = ["Result", "refuse_other_content", "resume", "select"]
