"""The last step: the rows of the final table, decided on validation data, then the test split."""

from __future__ import annotations

from dataclasses import dataclass

from diffsift.backbones import Activation, Backbone, LatentControl, PixelControl, with_random_weights
from diffsift.objectives import TestResult
from diffsift.preparation import Prepared, Say
from diffsift.search import Row, SearchStudy, confirm
from diffsift.search.confirmation import FOUND, decide_weights, on_backbone, settle, verdict
from diffsift.spaces import Candidate, Selection, catalogue
from diffsift.tracking import FinalRow, Ledger


@dataclass(frozen=True)
class Finish:
    """The final table and what it says."""

    table: tuple[FinalRow, ...]
    test: TestResult
    found: Selection
    weights_note: str
    verdict: str


def finish(prepared: Prepared, study: SearchStudy, ledger: Ledger, progress: bool, say: Say) -> Finish:
    """Decide the rows on validation data, extract what they need, and open the test split."""
    probe = prepared.probe
    found, weights_note = decide_weights(probe, study.best().selection)
    say(f"weights     {weights_note}")
    backbones: list[Backbone] = [prepared.backbone]
    rows = [
        *_control_rows(prepared, found, backbones),
        *_rule_rows(prepared),
        Row("best single activation", tuple(Selection.of([candidate]) for candidate in study.space.pool)),
        _everything_row(prepared, study),
        Row(FOUND, (found,)),
    ]
    settled = settle(rows, probe)
    activations = [(backbone, {a.name: a for a in catalogue(backbone)}) for backbone in backbones]
    table, result = confirm(
        prepared.specification.study.name,
        settled,
        prepared.objective,
        prepared.bank,
        probe,
        activations,
        ledger,
        noise_seed=prepared.specification.model.noise_seed,
        batch_size=prepared.specification.model.batch_size,
        progress=progress,
    )
    return Finish(tuple(table), result, found, weights_note, verdict(table))


def _control_rows(prepared: Prepared, found: Selection, backbones: list[Backbone]) -> list[Row]:
    """Raw pixels, VAE latents, and the found selection on the network with random weights; extracted when missing."""
    rows = []
    for name, control in (
        ("raw pixels", PixelControl(prepared.backbone)),
        ("VAE latents", LatentControl(prepared.backbone)),
    ):
        backbones.append(control)
        prepared.bank.fill(control, {0: control.declared})
        rows.append(Row(name, (Selection.of([Candidate(control.name, control.declared[0].name, 0)]),)))
    random = with_random_weights(prepared.backbone)
    backbones.append(random)
    wanted: dict[int, list[Activation]] = {}
    for candidate in found.candidates:
        wanted.setdefault(candidate.timestep, []).append(prepared.activations[candidate.activation])
    prepared.bank.fill(random, wanted)
    same = on_backbone(found, random.name)
    rows.append(Row("random weights", (same,), "the selection found, on the same network before training"))
    return rows


def _rule_rows(prepared: Prepared) -> list[Row]:
    rows = []
    for rule, names in prepared.rules.items():
        alternatives = prepared.at_each_timestep(names)
        if alternatives:
            rows.append(Row(rule, tuple(alternatives), "at its best timestep on validation"))
    return rows


def _everything_row(prepared: Prepared, study: SearchStudy) -> Row:
    by_timestep: dict[int, list[Candidate]] = {}
    for candidate in study.space.pool:
        by_timestep.setdefault(candidate.timestep, []).append(candidate)
    return Row(
        "all kept, one timestep",
        tuple(Selection.of(members) for members in by_timestep.values()),
        "every kept activation, at the best timestep on validation",
    )
