"""The last step of a search: rerank, decide the rows on validation data, open the test split, and say what it means."""

from __future__ import annotations

from dataclasses import dataclass

from diffsift.evaluation import FinalTest, best_alternatives, decide_weights, verdict_on
from diffsift.objectives import SplitResults
from diffsift.objectives.reference import ReferenceProbeFactory, reference_kinds
from diffsift.search import TrialStore, rerank, shortlist
from diffsift.spaces import Selection
from diffsift.study_store import StudyStore
from diffsift.tracking import FinalRow, Reranked, Verdict

from .prepare import Prepared


@dataclass(frozen=True)
class FinalEvaluation:
    """What the last step found.

    Attributes:
        table: the final table.
        test: what was measured on the test split.
        found: the selection found, with the weights decided on.
        weights_note: how the weights were decided, in words.
        verdict: what the table says.
        reranked: the shortlist with its scores by the slow probe; empty where there was no reranking.
        rerank_probe: name of the slow probe.
    """

    table: tuple[FinalRow, ...]
    test: SplitResults
    found: Selection
    weights_note: str
    verdict: Verdict
    reranked: tuple[Reranked, ...] = ()
    rerank_probe: str = ""


def evaluate(prepared: Prepared, study: TrialStore, store: StudyStore) -> FinalEvaluation:
    """Decide the rows on validation data, extract what they need, and open the test split.

    Args:
        prepared: models, data and bank of the study.
        study: with all its trials.
        store: whose ledger records the opening.

    Returns:
        The final table with what led to it, and the verdict.
    """
    context, probe = prepared.context, prepared.probe
    reranked, slow = _reranked(prepared, study)
    best = next((entry.selection for entry in reranked if entry.taken), None) or study.best().selection
    found, weights_note = decide_weights(probe, best)
    context.reporter.info("weights", weights_note)
    rows = prepared.baselines.rows(study.space.pool, found)
    context.reporter.info(
        "baselines",
        f"choosing the best of each kind on validation data, among {len(study.space.pool)} single candidates",
    )
    final = FinalTest(
        objective=prepared.objective,
        bank=prepared.bank,
        probe=probe,
        backbones=prepared.backbones,
        ledger=store.ledger,
        noise_draws=prepared.baselines.noise_draws(),
    )
    table, test = final.run(study.name, rows, best_alternatives(rows, probe), context)
    return FinalEvaluation(table, test, found, weights_note, verdict_on(table, reranked, slow), reranked, slow)


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
