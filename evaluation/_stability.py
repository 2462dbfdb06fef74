"""Stability: how often an activation is in the best selection when the held-out images are resampled."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from diffsift.objectives import Probe
from diffsift.tracking import SelectionFrequency, TrialRecord

MOST = 50
"""Selections that compete; others are far behind."""

RESAMPLES = 1000


def selection_stability(
    records: Sequence[TrialRecord],
    probe: Probe,
    groups: Sequence[str],
    *,
    most: int = MOST,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[SelectionFrequency, ...]:
    """How often bootstrap resamples of the held-out images have a best selection that holds an activation.

    The selections that compete are the `most` best of the study, each with its results on the held-out images; every
    resample draws the same images for all of them. What the search would have proposed on other images is not covered.

    Args:
        records: finished trials.
        probe: the probe that scored them.
        groups: one per result of `Probe.held_out`; results of one group are resampled together.
        most: number of selections that compete.
        resamples: how many, at least 1.
        seed: seed of the resampling, 0 or above.

    Returns:
        The fraction of resamples for each activation that is ever in the best selection, the most frequent first; empty
        without a trial.
    """
    best_first = sorted(records, key=lambda entry: (-entry.score, entry.number))
    competing = list(dict.fromkeys(record.selection for record in best_first))[:most]
    if not competing:
        return ()
    metric = probe.metric
    scores = metric.sign * np.stack(
        [
            metric.resampled(probe.held_out(selection), resamples=resamples, seed=seed, groups=groups)
            for selection in competing
        ]
    )
    wins = np.bincount(scores.argmax(0), minlength=len(competing))  # among equals, the better one on all images
    counts: Counter[tuple[str, str]] = Counter()
    for selection, won in zip(competing, wins, strict=True):
        for activation in {(candidate.backbone, candidate.activation) for candidate in selection.candidates}:
            counts[activation] += int(won)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return tuple(SelectionFrequency(*activation, count / resamples) for activation, count in ranked if count)
