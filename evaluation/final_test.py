"""The final test: the selection found beside what one would use without a search, on the sealed test split.

The rows are chosen, and the best of their alternatives decided, on validation data. Only then is the test split opened,
once, and every row is scored on it with the same images in every bootstrap resample.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from diffsift.backbones import BackboneCache, BackboneName
from diffsift.bank import Bank
from diffsift.common.context import RunContext
from diffsift.objectives import FittedSelection, Objective, Probe, SplitResults
from diffsift.spaces import Selection, passes_per_image
from diffsift.tracking import FinalRow, Ledger

from .rows import Row, RowName


def best_alternatives(rows: Sequence[Row], probe: Probe) -> dict[RowName, Selection]:
    """Decide each row on validation data.

    Args:
        rows: rows with one or more alternatives.
        probe: the search's own.

    Returns:
        The best alternative of each row; the first among equals.
    """
    return {row.name: max(row.alternatives, key=lambda entry: probe.score(entry).value) for row in rows}


@dataclass(frozen=True)
class FinalTest:
    """Scores the rows of the final table on the sealed test split.

    Attributes:
        objective: the task, whose test split is opened.
        bank: features of every selection of the rows.
        probe: the search's own; it is fitted on the whole development set for each row.
        backbones: the backbones that test images run through, by name.
        ledger: where the opening is recorded.
        noise_draws: how often each backbone runs per image and timestep; 1 for one that is not named.
    """

    objective: Objective
    bank: Bank
    probe: Probe
    backbones: BackboneCache
    ledger: Ledger
    noise_draws: Mapping[str, int]

    def run(
        self, study: str, rows: Sequence[Row], selections: Mapping[RowName, Selection], context: RunContext
    ) -> tuple[tuple[FinalRow, ...], SplitResults]:
        """Open the test split and score every row; the selection found is compared with every other.

        Args:
            study: name under which the opening is recorded.
            rows: in the order of the table.
            selections: the selection to score in each row, as `best_alternatives` decides it.
            context: gives noise seed, batch size and reporter.

        Returns:
            The table, and what was measured on the test split.
        """
        fitted = [self._fitted(row.name, selections[row.name]) for row in rows]
        self.ledger.open_test_split(study, [row.name for row in rows])
        results = self.objective.test(fitted, self.backbones, context)
        return tuple(self._final_row(row, selections[row.name], results) for row in rows), results

    def _fitted(self, name: str, selection: Selection) -> FittedSelection:
        return FittedSelection(
            name, selection, self.probe.fit(selection), self.bank.standardisers(selection.candidates)
        )

    def _final_row(self, row: Row, selection: Selection, results: SplitResults) -> FinalRow:
        metric, groups, own = self.objective.metric, results.groups, results.results[row.name]
        interval = metric.interval(own, groups=groups)
        final = FinalRow(
            name=row.name,
            selection=selection,
            score=metric.value(own),
            low=interval.low,
            high=interval.high,
            channels=sum(entry.channels for entry in self.bank.standardisers(selection.candidates).values()),
            passes=0 if _needs_no_pass(selection) else passes_per_image(selection.candidates, self.noise_draws),
            note=row.note,
        )
        if row.name == RowName.FOUND:
            return final
        gain = metric.gain(results.results[RowName.FOUND], own, groups=groups)
        return replace(final, gain=gain.difference, gain_low=gain.low, gain_high=gain.high)


def _needs_no_pass(selection: Selection) -> bool:
    """Whether a selection is of pixels and latents alone, which no denoiser has to run for."""
    inputs = (BackboneName.PIXELS, BackboneName.LATENTS)
    return all(candidate.backbone in inputs for candidate in selection.candidates)
