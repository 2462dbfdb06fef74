"""The last step: the rows of the final table, decided on validation data, then the test split."""

from __future__ import annotations

from dataclasses import dataclass

from diffsift.backbones import (
    Activation,
    LatentControl,
    PixelControl,
    load,
    owner_of,
    resolve_device,
    with_random_weights,
)
from diffsift.evaluation import FOUND, Row, confirm, decide_weights, on_backbones, settle, verdict
from diffsift.objectives import TestResult
from diffsift.objectives.reference import reference_kinds, reference_probe
from diffsift.search import SearchStudy
from diffsift.search.rerank import confirmation_words, confirmed, shortlist
from diffsift.spaces import Candidate, Selection
from diffsift.specification import MAIN
from diffsift.tracking import Confirmed, FinalRow, Ledger

from .prepare import OLDER, PAPER, Prepared, Say


@dataclass(frozen=True)
class Finish:
    """The final table and what it says."""

    table: tuple[FinalRow, ...]
    test: TestResult
    found: Selection
    weights_note: str
    verdict: str
    confirmed: tuple[Confirmed, ...] = ()
    confirm_probe: str = ""


def finish(prepared: Prepared, study: SearchStudy, ledger: Ledger, progress: bool, say: Say) -> Finish:
    """Decide the rows on validation data, extract what they need, and open the test split."""
    probe = prepared.probe
    entries, confirm_probe = _confirmed(prepared, study, progress, say)
    best = next((entry.selection for entry in entries if entry.taken), None) or study.best().selection
    found, weights_note = decide_weights(probe, best)
    say(f"weights     {weights_note}")
    rows = [
        *_control_rows(prepared, found),
        *_rule_rows(prepared),
        Row("best single activation", tuple(Selection.of([candidate]) for candidate in study.space.pool)),
        _everything_row(prepared, study, found),
        Row(FOUND, (found,)),
    ]
    say(f"baselines   the best of each on validation data, among them {len(study.space.pool)} single activations")
    settled = settle(rows, probe)
    table, result = confirm(
        prepared.specification.study.name,
        settled,
        prepared.objective,
        prepared.bank,
        probe,
        prepared.shelf,
        ledger,
        draws=_draws(prepared),
        noise_seed=prepared.specification.model.noise_seed,
        batch_size=prepared.specification.model.batch_size,
        progress=progress,
    )
    said = verdict(table) + confirmation_words(entries, confirm_probe)
    return Finish(tuple(table), result, found, weights_note, said, entries, confirm_probe)


def _confirmed(prepared: Prepared, study: SearchStudy, progress: bool, say: Say) -> tuple[tuple[Confirmed, ...], str]:
    """The shortlist with its scores by the slow probe, and that probe's name; empty where none is asked for."""
    specification = prepared.specification
    if specification.study.confirm == 1:
        return (), ""
    chosen = shortlist(study.records(), specification.study.confirm)
    candidates = {candidate for record in chosen for candidate in record.selection.candidates}
    kind = specification.study.confirm_probe
    kind = reference_kinds(specification.task.kind)[0] if kind == "reference" else kind
    say(f"confirm     {len(chosen)} selections by the {kind} probe on the held-out images")
    slow = reference_probe(
        kind,
        specification.task,
        prepared.objective,
        prepared.bank.development,
        prepared.shelf,
        {candidate: prepared.bank[candidate].standardiser for candidate in candidates},
        noise_seed=specification.model.noise_seed,
        batch_size=specification.model.batch_size,
        seed=specification.study.seed,
        device=resolve_device(specification.model.device),
        progress=progress,
    )
    found = confirmed(chosen, slow)
    for entry in found:
        say(f"            {entry.confirmed:.4f} (fast probe: {entry.score:.4f}) {entry.selection}")
    return found, kind


def _control_rows(prepared: Prepared, found: Selection) -> list[Row]:
    """Raw pixels, VAE latents, and the found selection on networks with random weights; extracted when missing."""
    shelf, bank = prepared.shelf, prepared.bank
    controls = {"raw pixels": ("pixels", PixelControl), "VAE latents": ("latents", LatentControl)}
    rows = []
    for label, (name, control) in controls.items():
        shelf.add(name, lambda control=control: control(prepared.backbone("main")), beside="main")  # type: ignore[misc]
        entry = shelf[name].declared[0]
        bank.fill(shelf[name], {0: [entry]})
        rows.append(Row(label, (Selection.of([Candidate(name, entry.name, 0)]),)))
    used = sorted({candidate.backbone for candidate in found.candidates})
    random = {source: _untrained(source) for source in used}
    for source, name in random.items():
        _shelve_untrained(prepared, source)
        wanted: dict[int, list[Activation]] = {}
        for candidate in found.candidates:
            if candidate.backbone == source:
                entry = prepared.sources[source].activations[candidate.activation]
                wanted.setdefault(candidate.timestep, []).append(entry)
        bank.fill(shelf[name], wanted)
    note = "the selection found, on the same network before training"
    return [*rows, Row("random weights", (on_backbones(found, random),), note)]


def _untrained(source: str) -> str:
    """What a model's network with random weights goes by."""
    return "random" if source == MAIN else f"random-{source}"


def _shelve_untrained(prepared: Prepared, source: str) -> None:
    """Say how the network of a model before training is made; variants of a model share one."""
    shelf, models = prepared.shelf, prepared.specification.models
    owner = owner_of(source, models)
    name = _untrained(owner)
    shelf.add(name, lambda: with_random_weights(prepared.backbone(owner), name=name), beside=owner)
    if owner != source:
        variant = _untrained(source)
        shelf.add(variant, lambda: load(models[source], name=variant, beside=prepared.backbone(name)), beside=name)


def _draws(prepared: Prepared) -> dict[str, int]:
    """Noise draws of all models, and of their networks before training."""
    trained = prepared.specification.noise_draws
    return {**trained, **{_untrained(source): count for source, count in trained.items()}}


def _rule_rows(prepared: Prepared) -> list[Row]:
    rows = []
    for rule in (OLDER, PAPER):
        alternatives = prepared.by_rule(rule, prepared.sources.values())
        if alternatives:
            rows.append(Row(rule, tuple(alternatives), f"at its {_best_place(prepared)} on validation"))
    return rows


def _everything_row(prepared: Prepared, study: SearchStudy, found: Selection) -> Row:
    """All kept activations of the model as it is given, or of a variant that was found, and of all further models."""
    variants = prepared.specification.variants
    used = {candidate.backbone for candidate in found.candidates}
    alternatives = []
    for left_out in ({MAIN, *variants} - {chosen} for chosen in (MAIN, *variants) if chosen in {MAIN, *used}):
        by_timestep: dict[int, list[Candidate]] = {}
        for candidate in study.space.pool:
            if candidate.backbone not in left_out:
                by_timestep.setdefault(candidate.timestep, []).append(candidate)
        alternatives += [Selection.of(members) for members in by_timestep.values()]
    return Row(
        "all kept, one timestep",
        tuple(alternatives),
        f"every kept activation, at the {_best_place(prepared)} on validation",
    )


def _best_place(prepared: Prepared) -> str:
    joint = bool(prepared.specification.variants)
    return "best timestep and variant of the model" if joint else "best timestep"
