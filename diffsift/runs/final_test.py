"""The last step of a search: rerank, decide the rows on validation data, open the test split, and say what it means."""

from __future__ import annotations

from dataclasses import dataclass

from diffsift.backbones import differences
from diffsift.common.files import digest
from diffsift.datasets import FEW_IMAGES
from diffsift.errors import StudyError
from diffsift.evaluation import (
    FinalTest,
    RowName,
    best_alternatives,
    decide_weights,
    selection_stability,
    verdict_on,
)
from diffsift.objectives import SplitResults
from diffsift.objectives.reference import ReferenceProbeFactory, reference_kinds
from diffsift.search import TrialStore, front_costs, pareto_front, rerank, shortlist
from diffsift.spaces import Selection
from diffsift.specification import Specification
from diffsift.study_store import StudyStore
from diffsift.tracking import FinalRow, Outcome, Reranked, StudyResults, Verdict

from .outputs import OutputFiles
from .pictures import report_pictures
from .prepare import Prepared

_TEXT_BYTES = 2_000_000
"""Of a report and the results without pictures, with room to spare."""


def final_results(prepared: Prepared, study: TrialStore, store: StudyStore, files: OutputFiles) -> StudyResults:
    """The results of a study: those that it has, where no trial is new since, or else those of opening the test split.

    Args:
        prepared: models, data and bank of the study.
        study: with all its trials.
        store: whose ledger records the opening and the outcome, and whose workspace keeps the results.
        files: that will be written afterwards: the test split is opened only while there is room for them.

    Returns:
        The outcome with the pictures of the report. They are stored, so that nothing that follows needs another test.

    Raises:
        StudyError: the results cannot be written; the test split stays closed.
    """
    tested = _tested(prepared, study)
    known = _stored(prepared, store, tested)
    if known is not None:
        prepared.context.reporter.info("final test", "no trial is new since the last one: the test split stays closed")
        return known
    chosen, kept = _chosen(prepared, study), store.workspace.results(study.name)
    with files.room(kept, _room_needed(prepared, chosen.found)):
        table, test = _tested_rows(prepared, study, store, chosen.found)
        prepared.warnings.extend([chosen.weights_note, *_reopened(prepared, store)])
        outcome = _outcome(prepared, study, chosen, table, test)
        pictures = report_pictures(prepared.backbones, outcome, test, prepared.context)
    results = StudyResults(outcome, pictures, tested)
    try:
        sha256 = results.save(kept)
    except OSError as error:
        raise StudyError(f"the results {kept} cannot be written: {error.strerror or error}.") from error
    store.ledger.record_outcome(study.name, outcome.to_json(str(files.selection), sha256))
    return results


@dataclass(frozen=True)
class _Chosen:
    """What validation data decided: the selection found, how its weights came about, and the shortlist it is from."""

    found: Selection
    weights_note: str
    reranked: tuple[Reranked, ...]
    rerank_probe: str


def _chosen(prepared: Prepared, study: TrialStore) -> _Chosen:
    reranked, slow = _reranked(prepared, study)
    best = next((entry.selection for entry in reranked if entry.taken), None) or study.best().selection
    found, weights_note = decide_weights(prepared.probe, best)
    prepared.context.reporter.info("weights", weights_note)
    return _Chosen(found, weights_note, reranked, slow)


def _tested(prepared: Prepared, study: TrialStore) -> str:
    """Names what a final test follows from: the scored selections, and how one of them is chosen."""
    asked = prepared.specification.study
    scored = sorted((entry.selection.key, entry.score) for entry in study.evaluations())
    return digest([scored, asked.rerank, asked.rerank_probe if asked.rerank > 1 else ""], 64)


def _stored(prepared: Prepared, store: StudyStore, tested: str) -> StudyResults | None:
    """The results of an earlier run, where they are of these trials."""
    name = prepared.specification.study.name
    recorded = store.ledger.outcome(name) or {}
    if not recorded.get("results"):
        return None
    try:
        known = StudyResults.load(store.workspace.results(name), recorded["results"])
    except StudyError as error:
        prepared.context.reporter.warning(f"{error} The study is tested again.")
        return None
    return known if known.tested == tested else None


def _room_needed(prepared: Prepared, found: Selection) -> int:
    """Bytes of selection, report and results, at most; pictures are counted as if they could not be compressed."""
    entries = prepared.bank.standardisers(found.candidates).values()
    tensors = sum(4 * entry.raw_channels * (2 + entry.channels) for entry in entries)
    # A photograph of three bytes a pixel with two maps of numbers, eight of them and one more.
    samples = prepared.bank.development.samples
    pixels = max(samples[index].image[..., 0].size for index in range(min(8, len(samples))))
    return _TEXT_BYTES + tensors + 9 * pixels * (3 + 2 * 8)


def _tested_rows(
    prepared: Prepared, study: TrialStore, store: StudyStore, found: Selection
) -> tuple[tuple[FinalRow, ...], SplitResults]:
    """Decide the rows on validation data, extract what they need, and open the test split."""
    pool = study.space.pool
    rows = prepared.baselines.rows(pool, found)
    prepared.context.reporter.info(
        "baselines", f"choosing the best of each kind on held-out images, among {len(pool)} single candidates"
    )
    final = FinalTest(
        objective=prepared.objective,
        bank=prepared.bank,
        probe=prepared.probe,
        backbones=prepared.backbones,
        ledger=store.ledger,
        noise_draws=prepared.baselines.noise_draws(),
    )
    return final.run(study.name, rows, best_alternatives(rows, prepared.probe), prepared.context)


def _reranked(prepared: Prepared, study: TrialStore) -> tuple[tuple[Reranked, ...], str]:
    """The shortlist with its scores by the slow probe, and that probe's name; empty where none is asked for."""
    specification, context = prepared.specification, prepared.context
    if specification.study.rerank == 1:
        return (), ""
    chosen = shortlist(study.records(), specification.study.rerank)
    candidates = {candidate for record in chosen for candidate in record.selection.candidates}
    kind = specification.study.rerank_probe
    kind = reference_kinds(specification.task.kind)[0] if kind == "reference" else kind
    context.reporter.info("rerank", f"{len(chosen)} selections by the {kind} probe on the held-out images")
    factory = ReferenceProbeFactory(
        prepared.objective,
        prepared.bank.development,
        prepared.backbones,
        prepared.bank.standardisers(candidates),
        context,
    )
    found = rerank(chosen, factory.make(kind))
    for entry in found:
        context.reporter.info("", f"{entry.slow_score:.4f} (fast probe: {entry.fast_score:.4f}) {entry.selection}")
    return found, kind


def _reopened(prepared: Prepared, store: StudyStore) -> list[str]:
    """A warning where the test split was opened before."""
    times = len(store.ledger.openings(prepared.specification.study.name))
    if times == 1:
        return []
    note = f"the test split was opened {times} times in this study: choices made after seeing its scores look too good"
    prepared.context.reporter.warning(note)
    return [note]


def _outcome(
    prepared: Prepared, study: TrialStore, chosen: _Chosen, table: tuple[FinalRow, ...], test: SplitResults
) -> Outcome:
    specification, objective, records = prepared.specification, prepared.objective, study.records()
    return Outcome(
        study=specification.study.name,
        task=specification.task.kind,
        metric=objective.metric.name,
        maximised=objective.metric.maximised,
        protocol=str(objective.protocol),
        protocol_fields=objective.protocol.to_json(),
        noise_seed=specification.model.noise_seed,
        model=_model_words(specification, chosen.found),
        model_id=specification.model.id,
        data="; ".join(data.describe() for data in specification.data_sets.values()),
        data_summaries=prepared.bank.development.summaries,
        decisions=prepared.decisions,
        pool_size=len(study.space.pool),
        trials=tuple(records),
        table=table,
        found=chosen.found,
        verdict=_verdict(prepared, chosen, table, test),
        warnings=tuple(prepared.warnings),
        credits=objective.credits,
        class_names=objective.class_names,
        measures=test.measures,
        reranked=chosen.reranked,
        rerank_probe=chosen.rerank_probe,
        stability=selection_stability(records, prepared.probe, prepared.bank.development.held_out_groups),
        front=pareto_front(records, front_costs(specification.study)),
        front_costs=front_costs(specification.study),
    )


def _verdict(prepared: Prepared, chosen: _Chosen, table: tuple[FinalRow, ...], test: SplitResults) -> Verdict:
    """What the table says, or where test images are too few to say anything, the scores on held-out images."""
    independent = len(set(test.groups)) if test.groups else len(test.results[RowName.FOUND])
    if independent >= FEW_IMAGES:
        return verdict_on(table, chosen.reranked, chosen.rerank_probe)
    held_out = {row.name: prepared.probe.score(row.selection).value for row in table}
    return verdict_on(table, chosen.reranked, chosen.rerank_probe, few_images=independent, held_out=held_out)


def _model_words(specification: Specification, found: Selection) -> str:
    """The models of a study, and what variants the selection found is of."""
    models = " + ".join(model.id for model in (specification.model, *specification.further_models.values()))
    used = {candidate.backbone for candidate in found.candidates}
    variants = {name: model for name, model in specification.variants.items() if name in used}
    words = [f"{name}: {differences(model, specification.model)}" for name, model in variants.items()]
    return "; ".join([models, *words])
