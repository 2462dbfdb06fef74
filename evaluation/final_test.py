"""Confirmation: the found selection beside what one would use without a search, on the sealed test split.

The rows are chosen and their alternatives decided on validation data, then frozen; only then is the test split opened,
once, and every row scored on it with the same images in every bootstrap draw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from diffsift.backbones import BackboneCache
from diffsift.bank import Bank
from diffsift.objectives import Contender, Objective, Probe, TestResult
from diffsift.spaces import Candidate, Selection, passes_per_image
from diffsift.tracking import FinalRow, Ledger

FOUND = "selection found"


@dataclass(frozen=True)
class Row:
    """A contender before the test split is opened: alternatives, of which the best on validation data is taken."""

    name: str
    alternatives: tuple[Selection, ...]
    note: str = ""


def decide_weights(probe: Probe, found: Selection) -> tuple[Selection, str]:
    """The found selection, at equal weights where its weights gain nothing that can be told from noise.

    In a ridge probe a weight only rescales one block's penalty, so weights often matter little; the gain is the paired
    difference over held-out images, or groups of them.
    """
    equal = Selection.of(found.candidates)
    if equal == found:
        return found, "equal weights, as found"
    gain = probe.metric.gain(probe.held_out(found), probe.held_out(equal), groups=probe.groups)
    measured = f"{gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}] over equal weights on validation"
    if gain.low > 0:
        return found, f"weights kept: {measured}"
    return equal, f"equal weights returned: the weights found gain {measured}"


def settle(rows: Sequence[Row], probe: Probe) -> list[tuple[Row, Selection]]:
    """Each row with its best alternative on validation data; ties go to the first."""
    settled = []
    for row in rows:
        best = max(row.alternatives, key=lambda selection: probe.score(selection).value)
        settled.append((row, best))
    return settled


def confirm(
    study: str,
    rows: Sequence[tuple[Row, Selection]],
    objective: Objective,
    bank: Bank,
    probe: Probe,
    shelf: BackboneCache,
    ledger: Ledger,
    *,
    draws: Mapping[str, int],
    noise_seed: int,
    batch_size: int,
    progress: bool,
) -> tuple[list[FinalRow], TestResult]:
    """Open the test split and score all rows on it; the one named `FOUND` is compared with every other.

    `draws` are the noise draws that a backbone's features are averaged over, 1 for one not named.
    """
    contenders = [_contender(row.name, selection, bank, probe) for row, selection in rows]
    ledger.open_test_split(study, [row.name for row, _ in rows])
    result = objective.test(contenders, shelf, noise_seed=noise_seed, batch_size=batch_size, progress=progress)
    metric, groups = objective.metric, result.groups
    found = result.results[FOUND]
    table = []
    for row, selection in rows:
        results = result.results[row.name]
        interval = metric.interval(results, groups=groups)
        final = FinalRow(
            name=row.name,
            selection=selection,
            score=metric.value(results),
            low=interval.low,
            high=interval.high,
            channels=sum(bank[candidate].standardiser.channels for candidate in selection.candidates),
            passes=0 if _is_input(selection) else passes_per_image(selection.candidates, draws),
            note=row.note,
        )
        if row.name != FOUND:
            gain = metric.gain(found, results, groups=groups)
            final = replace(final, gain=gain.difference, gain_low=gain.low, gain_high=gain.high)
        table.append(final)
    return table, result


def verdict(table: Sequence[FinalRow]) -> str:
    """What the final table says, in words; "use the other" is a valid answer."""
    found = next(row for row in table if row.name == FOUND)
    others = [row for row in table if row.name != FOUND]
    better = [row for row in others if row.gain_low is not None and row.gain_low > 0]
    worse = [row for row in others if row.gain_high is not None and row.gain_high < 0]
    unclear = [row for row in others if row not in better and row not in worse]
    head = f"The selection found scores {found.score:.3f} [{found.low:.3f}, {found.high:.3f}] on the sealed test split."
    parts = [head]
    if worse:
        best = min(worse, key=_gain)
        beside = f", nor than {_listed([row.name for row in worse if row is not best])}" if len(worse) > 1 else ""
        parts.append(
            f"It is not better than {best.name} ({_difference(best)}, {best.channels} channels against "
            f"{found.channels}){beside}: use {best.name} unless its size matters."
        )
    if better:
        closest = min(better, key=_gain)
        names = _listed([row.name for row in better])
        parts.append(f"It is better than {names}; the closest of them is {closest.name} ({_difference(closest)}).")
    for row in unclear:
        advice = (
            f": use {row.name}, which is smaller"
            if row.channels < found.channels
            else ", and the selection found is no larger"
        )
        parts.append(
            f"It is not shown to be better than {row.name} ({_difference(row)}, {row.channels} channels against "
            f"{found.channels}){advice}."
        )
    return " ".join(parts)


def _contender(name: str, selection: Selection, bank: Bank, probe: Probe) -> Contender:
    standardisers = {candidate: bank[candidate].standardiser for candidate in selection.candidates}
    return Contender(name, selection, probe.fit(selection), standardisers)


def _is_input(selection: Selection) -> bool:
    """Pixels and latents need no pass of the denoiser."""
    return all(candidate.backbone in ("pixels", "latents") for candidate in selection.candidates)


def _difference(row: FinalRow) -> str:
    return f"{row.gain:+.3f} [{row.gain_low:+.3f}, {row.gain_high:+.3f}]"


def _gain(row: FinalRow) -> float:
    return row.gain or 0.0


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def on_backbones(selection: Selection, names: Mapping[str, str]) -> Selection:
    """The same selection with other backbones' names."""
    return Selection.of(
        {
            Candidate(names[entry.backbone], entry.activation, entry.timestep): weight
            for entry, weight in selection.members
        }
    )
