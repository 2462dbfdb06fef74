"""The report's figures, drawn once for light and once for dark pages. Matplotlib's global state is left alone."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from diffsift.spaces import Cost

from ._pictures import data_uri
from .records import FinalRow, TrialRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DPI = 144
_WIDTH = 8.2  # inches; the page shows figures at most as wide as its text


@dataclass(frozen=True)
class Theme:
    """Colours of one appearance of the page, as in the template's style sheet."""

    text: str
    muted: str
    grid: str
    accent: str
    proposers: tuple[str, ...]


LIGHT = Theme("#1f2430", "#667085", "#e3e6ec", "#2458d3", ("#7a8599", "#d9822b", "#2a9d6f", "#9b59b6", "#c0504d"))
DARK = Theme("#e6e9f0", "#98a2b8", "#323949", "#7aa2ff", ("#98a2b8", "#f0a35a", "#5fd0a0", "#c39bdf", "#ef8683"))


@dataclass(frozen=True)
class FigurePair:
    """The same figure for light and dark pages, as ``data:`` addresses, with the size in CSS pixels."""

    light: str
    dark: str
    width: int
    height: int


def score_figure(rows: Sequence[FinalRow], metric: str) -> FigurePair:
    """Every row of the final table as a point with its 95 % interval; the selection found is highlighted."""

    def draw(axes: Axes, theme: Theme) -> None:
        heights = np.arange(len(rows))[::-1]
        for height, row in zip(heights, rows, strict=True):
            colour = theme.accent if row.gain is None else theme.muted
            axes.plot([row.low, row.high], [height, height], color=colour, linewidth=2.5, solid_capstyle="round")
            axes.plot([row.score], [height], "o", color=colour, markersize=8 if row.gain is None else 6)
        axes.set_yticks(heights, [_plain(row.name) for row in rows])
        for label, row in zip(axes.get_yticklabels(), rows, strict=True):
            if row.gain is None:
                label.set_fontweight("bold")
        axes.set_ylim(-0.6, len(rows) - 0.4)
        axes.set_xlabel(_plain(f"{metric} on the test split, with 95 % interval"))
        axes.grid(axis="x", color=theme.grid, linewidth=0.8)
        axes.tick_params(axis="y", length=0)

    return _both(draw, height=0.9 + 0.36 * max(len(rows), 1))


def curve_figure(trials: Sequence[TrialRecord], metric: str) -> FigurePair:
    """Every trial's score by number, coloured by what proposed it, with the best score so far as a line."""

    def draw(axes: Axes, theme: Theme) -> None:
        ordered = sorted(trials, key=lambda trial: trial.number)
        for index, proposer in enumerate(dict.fromkeys(trial.proposed_by for trial in ordered)):
            points = [(trial.number, trial.score) for trial in ordered if trial.proposed_by == proposer]
            colour = theme.proposers[index % len(theme.proposers)]
            marker = "osD^v"[index // len(theme.proposers) % 5]
            axes.plot(
                *zip(*points, strict=True), marker, color=colour, markersize=4, alpha=0.75, label=_plain(proposer)
            )
        if ordered:
            best = np.maximum.accumulate([trial.score for trial in ordered])
            numbers = [trial.number for trial in ordered]
            axes.plot(numbers, best, drawstyle="steps-post", color=theme.accent, linewidth=2, label="best so far")
            legend = axes.legend(loc="lower right", frameon=False, labelcolor=theme.text, fontsize=9)
            legend.set_zorder(5)
        axes.set_xlabel("trial")
        axes.set_ylabel(_plain(f"{metric} on held-out images"))
        axes.grid(color=theme.grid, linewidth=0.8)

    return _both(draw, height=3.4)


_COST_WORDS = {
    "channels": "channels of the fused feature",
    "passes": "passes per image",
    "operations": "operations per image, as a share of a whole pass",
}


def front_figure(trials: Sequence[TrialRecord], front: Sequence[TrialRecord], cost: Cost, metric: str) -> FigurePair:
    """Every trial's score against its cost, the Pareto front, and the best score at no higher cost."""

    def draw(axes: Axes, theme: Theme) -> None:
        ordered = sorted(trials, key=lambda trial: trial.cost(cost))
        costs, scores = [trial.cost(cost) for trial in ordered], [trial.score for trial in ordered]
        axes.plot(costs, scores, "o", color=theme.muted, markersize=3.5, alpha=0.55, label="trial")
        best = np.maximum.accumulate(scores)
        axes.plot(costs, best, drawstyle="steps-post", color=theme.accent, linewidth=1.5, label="best at this cost")
        points = [(trial.cost(cost), trial.score) for trial in front]
        axes.plot(*zip(*points, strict=True), "D", color=theme.accent, markersize=6, label="Pareto front")
        axes.legend(loc="lower right", frameon=False, labelcolor=theme.text, fontsize=9).set_zorder(5)
        axes.set_xlabel(_COST_WORDS[cost])
        axes.set_ylabel(_plain(f"{metric} on held-out images"))
        axes.grid(color=theme.grid, linewidth=0.8)

    return _both(draw, height=3.4)


def _both(draw: Callable[[Axes, Theme], None], height: float) -> FigurePair:
    light, dark = (_render(draw, theme, height) for theme in (LIGHT, DARK))
    return FigurePair(light, dark, round(_WIDTH * 96), round(height * 96))


def _render(draw: Callable[[Axes, Theme], None], theme: Theme, height: float) -> str:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure: Figure = Figure(figsize=(_WIDTH, height), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_axisbelow(True)
    draw(axes, theme)
    figure.patch.set_alpha(0)
    axes.patch.set_alpha(0)
    axes.tick_params(colors=theme.muted, labelcolor=theme.text, labelsize=9)
    axes.xaxis.label.set_color(theme.muted)
    axes.yaxis.label.set_color(theme.muted)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("bottom", "left"))
        spine.set_color(theme.grid)
    file = io.BytesIO()
    figure.savefig(file, format="png", transparent=True)
    return data_uri(file.getvalue())


def _plain(text: str) -> str:
    """Matplotlib reads what stands between dollar signs as mathematics: names are not."""
    return text.replace("$", r"\$")
