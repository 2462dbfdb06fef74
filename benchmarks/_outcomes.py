"""Final tables of several studies: as rows of a CSV, printed, and summed up over seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from _common import environment, load, print_table

from diffsift.tracking import Outcome

Row = dict[str, Any]


def rows_of(outcome: Outcome, seconds: float, **columns: Any) -> list[Row]:
    """A row for each row of the final table, with columns that name the study in front."""
    return [
        {
            **columns,
            "metric": outcome.metric,
            "row": entry.name,
            "score": entry.score,
            "low": entry.low,
            "high": entry.high,
            "channels": entry.channels,
            "passes": entry.passes,
            "gain": entry.gain,
            "gain_low": entry.gain_low,
            "gain_high": entry.gain_high,
            "selection": str(entry.selection),
            "verdict": outcome.verdict.recommendation,
            "trials": len(outcome.trials),
            "cpu_s": seconds,
            "load": load(),
            **environment(),
        }
        for entry in outcome.table
    ]


def print_study(title: str, outcome: Outcome, seconds: float) -> None:
    print(f"\n{title}: {len(outcome.trials)} trials, {seconds:.0f} s of processor time, machine load {load()}")
    cells = []
    for entry in outcome.table:
        gain = "" if entry.gain is None else f"{entry.gain:+.4f} [{entry.gain_low:+.4f}, {entry.gain_high:+.4f}]"
        interval = f"{entry.score:.4f} [{entry.low:.4f}, {entry.high:.4f}]"
        cells.append((entry.name, interval, gain, str(entry.channels), str(entry.passes)))
    print_table(("row", outcome.metric, "gain of the selection found", "channels", "passes"), cells)
    print(outcome.verdict, flush=True)


def print_summary(title: str, rows: Sequence[Row]) -> None:
    """Per row: the mean score, the mean gain of the selection found, and how many seeds decide which is better."""
    seeds = sorted({int(row["seed"]) for row in rows})
    if not seeds:
        return
    print(f"\n{title}, over seeds {', '.join(map(str, seeds))}")
    cells = []
    for name in dict.fromkeys(row["row"] for row in rows):
        entries = [row for row in rows if row["row"] == name]
        score = f"{sum(float(row['score']) for row in entries) / len(entries):.4f}"
        gains = [row for row in entries if row["gain"] not in (None, "")]
        if not gains:
            cells.append((name, score, "", "", ""))
            continue
        better = sum(float(row["gain_low"]) > 0 for row in gains)
        worse = sum(float(row["gain_high"]) < 0 for row in gains)
        mean = "{:+.4f} [{:+.4f}, {:+.4f}]".format(*mean_with_interval([float(row["gain"]) for row in gains]))
        cells.append((name, score, mean, f"{better} of {len(gains)}", f"{worse} of {len(gains)}"))
    print_table(("row", "mean score", "found minus row, 95 % t interval", "found better", "found worse"), cells)
    print("better, worse: seeds whose own paired interval lies above, below zero")


def mean_with_interval(gains: Sequence[float]) -> tuple[float, float, float]:
    """The mean and its 95 % t interval; not a number for the bounds of a single value."""
    from scipy.stats import t

    count, mean = len(gains), sum(gains) / len(gains)
    if count < 2:
        return mean, math.nan, math.nan
    deviation = math.sqrt(sum((gain - mean) ** 2 for gain in gains) / (count - 1))
    half = float(t.ppf(0.975, count - 1)) * deviation / math.sqrt(count)
    return mean, mean - half, mean + half
