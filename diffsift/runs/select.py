"""The main job, top to bottom: specification, models, pool, bank, search, final test, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from diffsift import __version__
from diffsift.backbones import resolve_device, resolve_dtype
from diffsift.bank import measured_similarity
from diffsift.common.files import digest
from diffsift.common.reporting import LoggingReporter, Reporter
from diffsift.datasets import Dataset
from diffsift.errors import SpecificationError, StudyError
from diffsift.evaluation import RowName
from diffsift.search import (
    SearchLoop,
    SearchSpace,
    TrialStore,
    earlier_bests,
    require_warm_starts,
)
from diffsift.spaces import Candidate, Selection
from diffsift.specification import Specification
from diffsift.specification_file import load_specification
from diffsift.study_store import StudyStore
from diffsift.tracking import (
    Loggers,
    Outcome,
    StudyResults,
    TrialRecord,
    make_loggers,
    require_loggers,
    require_stores,
    write_report,
)

from .cost import joint_words, prices
from .dtypes import with_dtypes, with_stored_dtypes
from .final_test import final_results
from .outputs import FOUND, OutputFiles
from .prepare import Prepared, prepare
from .workers import refuse_workers, spawned_workers


@dataclass(frozen=True)
class Result:
    """What a finished search hands back.

    Attributes:
        outcome: the final table, the verdict and everything else that was found.
        selection_file: written; its tensors lie beside it.
        report_file: written.
    """

    outcome: Outcome
    selection_file: Path
    report_file: Path


def select(
    specification: Specification | Mapping[str, Any] | str | Path,
    *,
    dataset: Dataset | None = None,
    workspace: str | Path | None = None,
    out: str | Path | None = None,
    report: str | Path | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> Result:
    """Choose features: run the search that a specification describes, or continue it where it stopped.

    Args:
        specification: the specification, a nested mapping of its fields, or the path of a YAML file.
        dataset: data from Python, such as `MappedDataset`, in the place of `data` in the specification.
        workspace: folder for bank, databases and artifacts; default: ``$DIFFSIFT_WORKSPACE`` or ``./.diffsift``.
        out: the selection file to write; its tensors go beside it. Default: ``selection-STUDY.json``.
        report: the report to write. Default: beside the selection, named like it.
        force: replace files of another study.
        reporter: told what is being done. Default: progress bars on standard error, lines to the logger ``diffsift``.

    Returns:
        The outcome with the final table, and the paths of the files.

    Raises:
        DiffsiftError: the specification, model, data or database is not what it must be; raised before long work.
        KeyboardInterrupt: nothing finished is lost; `resume` continues.
    """
    if isinstance(specification, str | Path):
        specification = load_specification(specification)
    specification = Specification.of(specification, dataset)
    name = specification.study.name
    files = OutputFiles.of(name, out, report)
    files.refuse_overwriting(name, FOUND, force=force)
    refuse_workers(specification)
    tracking = specification.tracking
    reporter = reporter or LoggingReporter()
    with StudyStore(workspace, specification.study.storage, reporter) as store:
        require_loggers(tracking, store.url, store.workspace)
        context = specification.context(store.workspace, reporter)
        with store.ledger.exclusive(name):
            store.ledger.require_sound()
            specification = with_stored_dtypes(specification, store)
            store.refuse_other_identity(specification)
            store.refuse_fewer_trials(specification)
            require_warm_starts(store.ledger, specification.study.warm_start)
            require_stores(tracking, name, store.uid(name), store.workspace)
            prepared = prepare(specification, store, context)
            specification = with_dtypes(specification, {name: _dtype_of(prepared, name) for name in prepared.models})
            prepared = replace(prepared, specification=specification)
            store.refuse_other_identity(specification, prepared.content, earlier_model=prepared.earlier_model)
            with _Search(prepared, store) as search:
                search.run()
                results = final_results(prepared, search.study, store, files)
                _write(prepared, results, files)
                search.loggers.finish(results.outcome, files.all)
    return Result(results.outcome, files.selection, files.report)


def resume(
    study: str,
    *,
    workspace: str | Path | None = None,
    storage: str | None = None,
    trials: int | None = None,
    timeout: float | None = None,
    workers: int | None = None,
    dataset: Dataset | None = None,
    out: str | Path | None = None,
    report: str | Path | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
) -> Result:
    """Continue a study by name; finished trials are kept.

    Args:
        study: name.
        workspace: folder that holds the study.
        storage: SQLAlchemy URL of the study database, where it is not in the workspace.
        trials: the new total of distinct selections; default: as before.
        timeout: seconds after which no new trial starts; default: as before.
        workers: processes that evaluate selections; default: as before.
        dataset: the data, where the study was made with data from Python.
        out: see `select`.
        report: see `select`.
        force: see `select`.
        reporter: see `select`.

    Returns:
        As `select`.

    Raises:
        StudyError: there is no such study.
        DiffsiftError: see `select`.
    """
    with StudyStore.existing(workspace, storage, study=study) as store:
        specification = store.specification(study)
        folder = store.workspace.folder
    specification = specification.with_runtime(trials=trials, timeout=timeout, workers=workers)
    return select(
        specification, dataset=dataset, workspace=folder, out=out, report=report, force=force, reporter=reporter
    )


class _Search:
    """A study's search, from the bank to its last trial; inside the ``with`` block its loggers are open."""

    def __init__(self, prepared: Prepared, store: StudyStore) -> None:
        self.prepared, self.store, self.context = prepared, store, prepared.context
        self.specification = prepared.specification
        self.study, self.loop = self._opened()
        self.loggers = self._loggers()

    def __enter__(self) -> _Search:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and issubclass(kind, KeyboardInterrupt):
            self.loggers.interrupt()

    @property
    def records(self) -> list[TrialRecord]:
        """All finished trials."""
        return self.study.records()

    def run(self) -> None:
        """Evaluate selections until the study has as many as it asks for."""
        study = self.specification.study
        with spawned_workers(self.specification, self.store, self.context.reporter):
            self.loop.run(study.trials, timeout=study.timeout, logger=self.loggers, has_peers=study.workers > 1)
        self.loggers.flush()
        best, distinct = self.study.best(), len({record.selection for record in self.records})
        error = self.prepared.probe.sampling_error(best.selection)
        sampled = "" if error is None else f" (sampled locations: standard error {error:.4f})"
        self.context.reporter.info(
            "search",
            f"{distinct} distinct selections, best on held-out images {best.score:.4f}{sampled}: {best.selection}",
        )

    def _opened(self) -> tuple[TrialStore, SearchLoop]:
        """Fill the bank, record the study, and open its trials and its loop."""
        prepared, specification, ledger = self.prepared, self.specification, self.store.ledger
        pool = self._filled()
        space = prepared.space()
        name = specification.study.name
        prepared.bank.publish(self.store.workspace.shared(name), pool)  # before others can see the study and join it
        shares = prepared.operations()
        frozen = [[entry.backbone, entry.activation, entry.timestep, shares.get(entry)] for entry in pool]
        if self.store.create_or_update(specification, prepared.content, frozen):
            ledger.record_decisions(name, prepared.decisions)
        study = TrialStore(self.store.url, specification.study, space, ledger)
        loop = SearchLoop(
            study,
            prepared.probe,
            warm_starts=self._warm_starts(space, pool),
            similarity=measured_similarity(prepared.bank, pool),
            reporter=self.context.reporter,
        )
        failed = study.reclaim()
        if failed:
            self.context.reporter.info("resumed", f"unfinished trials of stopped processes marked as failed: {failed}")
        return study, loop

    def _filled(self) -> list[Candidate]:
        """Extract what the bank lacks; returns the pool."""
        prepared, bank, reporter = self.prepared, self.prepared.bank, self.context.reporter
        if self.specification.variants:
            reporter.info("joint", joint_words(prices(prepared)))
        extracted = prepared.fill()
        for candidate, reason in sorted(bank.rejected.items()):
            warning = f"{candidate} was dropped: {reason}"
            prepared.warnings.append(warning)
            reporter.warning(warning)
        pool = prepared.pool()
        if not pool:
            raise SpecificationError(
                "the pool must hold at least one candidate, but all candidates have values that are not finite."
            )
        reporter.info(
            "bank",
            f"{bank.size / 1e6:.0f} MB, {len(pool)} candidates at {bank.development.locations} locations of "
            f"{len(bank.development.samples)} images "
            f"({f'{extracted} extracted' if extracted else 'all there already'})",
        )
        return pool

    def _warm_starts(self, space: SearchSpace, pool: list[Candidate]) -> list[Selection]:
        """What is tried first: the best of earlier studies, what elimination leaves, what rules choose."""
        prepared, study, reporter = self.prepared, self.specification.study, self.context.reporter
        earlier, notes = earlier_bests(self.store.ledger, study.warm_start, space, prepared.decisions)
        for note in notes:
            prepared.warnings.append(note)
            reporter.info("warm start", note)
        # The model as it is given: what a rule chooses in dozens of variants would take the place of the search.
        as_given = [name for name in prepared.models if name not in self.specification.variants]
        warm = [
            selection
            for rule in (RowName.PAPER, RowName.OLDER)
            for selection in prepared.baselines.by_rule(rule, as_given)
        ]
        if study.sampler == "sift" and "elimination" not in study.skip:
            warm = [*self._left_by_elimination(space), *warm]
        return [*earlier, *(selection for selection in warm if set(selection.candidates) <= set(pool))]

    def _left_by_elimination(self, space: SearchSpace) -> list[Selection]:
        """What backward elimination leaves of the pool, within the limits; nothing where the probe fits nothing.

        It is done once in a study. The sets that it solves on labels are no trials: the ledger counts them beside
        those.
        """
        name, ledger = self.specification.study.name, self.store.ledger
        known = ledger.elimination(name)
        if known is None:
            most = space.limits.activations
            found = self.prepared.probe.eliminate(space.pool, most)
            if found is None or not found.solves:
                return []
            ledger.record_elimination(name, space.repaired(dict.fromkeys(found.survivors[:most], 1.0)), found.solves)
            known = ledger.elimination(name)
            assert known is not None
        note = f"{known.solves} candidate sets fit on labels, in addition to the trials; result: {known.selection}"
        self.context.reporter.info("elimination", note)
        self.prepared.warnings.append(f"backward elimination: {note}")
        return [known.selection]

    def _loggers(self) -> Loggers:
        """The study's loggers, opened and brought up to date with the trials there are."""
        specification, workspace = self.specification, self.store.workspace
        name, uid = specification.study.name, self.study.uid
        made = make_loggers(specification.tracking, name, workspace, self.context.reporter, uid=uid)
        loggers = Loggers(made)
        loggers.start(self.specification.model_dump(mode="json"), _data_input(self.prepared))
        loggers.repair(self.records)
        return loggers


def _write(prepared: Prepared, results: StudyResults, files: OutputFiles) -> None:
    """Write the selection found and the report, which follow from the results."""
    outcome = results.outcome
    row = next(row for row in outcome.table if row.name == RowName.FOUND)
    about = {
        "diffsift": __version__,
        "study": outcome.study,
        "kind": FOUND,
        "task": outcome.task,
        "protocol": outcome.protocol,
        "test_score": {"metric": outcome.metric, "value": row.score, "low": row.low, "high": row.high},
        "verdict": str(outcome.verdict),
    }
    try:
        prepared.save_selection(files.selection, outcome.found, about)
    except OSError as error:
        raise StudyError(
            f"the selection {files.selection} cannot be written: {error.strerror or error}; mend that, then 'diffsift "
            f"resume {outcome.study}' writes it without another test."
        ) from error
    write_report(outcome, results.pictures, files.report)


def _dtype_of(prepared: Prepared, name: str) -> str:
    """The type that a model was loaded in; a registered kind need not tell it."""
    model = prepared.specification.models[name]
    rule = resolve_dtype(model.dtype, resolve_device(model.device))
    return str(prepared.models[name].identity.get("dtype", rule)).removeprefix("torch.")


def _data_input(prepared: Prepared) -> dict[str, Any]:
    """The development set as MLflow names a data set: by name, digest and where it comes from."""
    data = prepared.specification.data_sets.values()
    return {
        "name": " + ".join(entry.kind for entry in data),
        "digest": digest(prepared.bank.development.identity),
        "source": " + ".join(entry.origin for entry in data),
        "context": "development",
        "images": len(prepared.bank.development.samples),
        "holds": [summary.to_json() for summary in prepared.bank.development.summaries],
    }
