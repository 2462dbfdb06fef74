"""The figure of `search_quality.py`."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from _search_methods import METHODS, OURS

Array = np.ndarray[Any, Any]


def draw(done: Sequence[dict[str, Any]], path: Path) -> None:
    """Mean of the best validation score over evaluations, a panel for each cell."""
    from matplotlib.figure import Figure

    cells = list(dict.fromkeys(result["cell"] for result in done))
    shown = [method for method, how in METHODS.items() if how.limited and "rules" not in method]
    columns = min(4, len(cells))
    rows = -(-len(cells) // columns)
    figure = Figure(figsize=(3.4 * columns, 2.7 * rows + 0.5), layout="constrained")
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for panel, cell in zip(panels, cells, strict=False):
        results = [result for result in done if result["cell"] == cell]
        for number, method in enumerate(shown):
            style: dict[str, Any] = {"color": f"C{number}"}
            if not METHODS[method].rival or method == OURS:
                style = {"color": "black", "linewidth": 2.2 if method == OURS else 1.0, "zorder": 3}
            if not METHODS[method].anytime:
                style |= {"linestyle": "none", "marker": "x" if number % 2 else "+"}
            places, means = _mean_curve(results, method)
            panel.plot(places, means, label=f"{method} (ours)" if method == OURS else method, **style)
        planted = [result["planted"] for result in results if result["planted"] is not None]
        if planted:
            panel.axhline(float(np.mean(planted)), color="grey", linestyle=":", linewidth=1)
        panel.set(xscale="log", title=cell)
        early = [np.asarray(line.get_ydata(), dtype=float)[:20] for line in panel.lines if len(line.get_xdata()) > 20]
        panel.set_ylim(bottom=min(float(np.nanmax(values)) for values in early if np.isfinite(values).any()))
    for panel in panels[len(cells) :]:
        panel.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=-(-len(labels) // 2), frameon=False)
    figure.supxlabel("evaluations")
    figure.supylabel("best validation score, mean over seeds")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    print(f"wrote {path}")


def _mean_curve(results: Sequence[dict[str, Any]], method: str) -> tuple[Array, Array]:
    """Evaluations and the mean of the best validation score; of a method that is run for a budget, at the budgets."""
    curves = [result["curves"][method] for result in results if method in result["curves"]]
    if curves:
        length = max(map(len, curves))
        padded = np.array([[*curve, *[curve[-1]] * (length - len(curve))] for curve in curves])
        return np.arange(1, length + 1), padded.mean(0)
    scores: dict[int, list[float]] = defaultdict(list)
    for row in (row for result in results for row in result["rows"] if row["method"] == method):
        scores[row["budget"]].append(row["validation"])
    return np.array(sorted(scores)), np.array([np.mean(scores[budget]) for budget in sorted(scores)])
