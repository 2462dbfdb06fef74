"""Stability: how often an activation is in the best selection when the held-out images are drawn anew."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from diffsift.objectives import Probe
from diffsift.tracking import SelectionFrequency, TrialRecord

MOST = 50
"""Selections that compete; others are far behind."""

DRAWS = 1000


def selection_stability(
    records: Sequence[TrialRecord],
    probe: Probe,
    groups: Sequence[str],
    *,
    most: int = MOST,
    draws: int = DRAWS,
    seed: int = 0,
) -> tuple[SelectionFrequency, ...]:
    """The share of bootstrap resamples whose best selection holds an activation, the most frequent first.

    The selections that compete are the `most` best of the study, each with its results on the held-out images; every
    resample draws the same images for all of them. What the search would have proposed on other images is not asked.

    Args:
        records: finished trials.
        probe: that scored them.
        groups: per held-out entry, what is resampled together.
        most: selections that compete.
        draws: resamples.
        seed: of the resampling.
    """
    best_first = sorted(records, key=lambda entry: (-entry.score, entry.number))
    competing = list(dict.fromkeys(record.selection for record in best_first))[:most]
    if not competing:
        return ()
    metric = probe.metric
    scores = metric.sign * np.stack(
        [metric.resampled(probe.held_out(selection), draws=draws, seed=seed, groups=groups) for selection in competing]
    )
    wins = np.bincount(scores.argmax(0), minlength=len(competing))  # of equals the better on all images
    counts: Counter[tuple[str, str]] = Counter()
    for selection, won in zip(competing, wins, strict=True):
        for spot in {(candidate.backbone, candidate.activation) for candidate in selection.candidates}:
            counts[spot] += int(won)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(SelectionFrequency(*spot, count / draws) for spot, count in ranked if count)
