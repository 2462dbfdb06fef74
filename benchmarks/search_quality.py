"""Does our search beat every alternative at equal cost?

An *evaluation* is any candidate set that is scored or solved on labels, whoever asks, also inside a sampler. Every
method gets the same pool, bank, fast probe and limits (four activations), and the same number of evaluations: 100, 300,
1000. One that was made before costs nothing again. Methods:

- sift: ours, as ``diffsift search`` runs it, warm starts included;
- tpe, nsga2, cmaes, random: Optuna's, each with the encoding of selections in which it does best (slots for tpe and
  random; one key per candidate for nsga2 and cmaes);
- random subsets: of four candidates at equal weights, without Optuna;
- greedy: forward selection over the whole pool, then swaps until none improves;
- sequential: scikit-learn's `SequentialFeatureSelector`;
- best singles: single candidates as far as the budget goes, then the best of them together;
- softmax mixing: one weight per candidate learned by gradient, then the candidates of largest weight (each step looks
  at labels and is an evaluation);
- paper's and older rules: what people do without a search (small U-Net only);
- all of one timestep: every candidate at the best timestep, beyond the limits that all others keep.

Cells: the built-in U-Net (225 candidates) on segmentation and depth; the small diffusion transformer (120) on
segmentation; planted banks of 60, 300 and 3,000 candidates with redundant blocks and a suppressor; the 159 published
single scores of Meng et al. on two scenes (one activation, so this is the ranking of singles).

A seed divides the images into thirds (to fit on, to search on, to test on) and seeds the search. Scores are of the best
selection by validation, on validation and, with the probe fit on the first two thirds, on the test third, at sampled
locations. Printed per cell and budget: the mean over seeds, and ours minus each with a paired 95 % t interval; the
evaluations until 99 % of the best score that any method within the limits finds with the largest budget (medians); and
the score at the time that our search takes for 300 evaluations, from the probe's and each method's processor time (of
one thread: on an idle core as much as by the clock).

The search's constants were chosen on seed 0 of the real banks and of the planted ones of 60 and 300, before the other
seeds were looked at.

Noise that is left: ten seeds divide one set of 600 scenes (planted banks are drawn anew for each), so their test thirds
overlap; digits and photographs are not disjoint between thirds, unlike in the search's own splits.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, environment, load, print_table, write_csv
from _search_cells import CELLS, ROOT, open_cell
from _search_methods import METHODS, OPTUNA, OURS, RANDOM, Meter, run_method
from scipy import stats

BUDGETS = (100, 300, 1000)
EQUAL_TIME = 300  # evaluations of ours, whose time all get
BEYOND = 20  # times the evaluations of ours, which random search gets with --beyond
CLOSE = 0.01  # of the best score's size: what "99 % of the best" leaves
Row = dict[str, Any]
Array = np.ndarray[Any, Any]


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    jobs = [(cell, seed) for seed in range(options.seeds) for cell in options.cells]
    missing = [job for job in jobs if not _file(options.work, *job).is_file()]
    if missing and not options.collect:
        _run(missing, options)
    if options.beyond:
        _run_random_on(jobs, options)
    done = [json.loads(_file(options.work, *job).read_text()) for job in jobs if _file(options.work, *job).is_file()]
    if not done:
        raise SystemExit(f"{options.work} must hold results, but holds none of the cells asked for.")
    rows = [row for result in done for row in result["rows"]]
    _print_scores(rows)
    _print_speed(done)
    columns = {**environment(), "load": load()}
    write_csv(options.out, [{**row, **columns} for row in rows])
    _draw(done, options.figure)


def _run(jobs: Sequence[tuple[str, int]], options: argparse.Namespace) -> None:
    """Each cell and seed in a process of its own on one thread; what is finished is kept in files."""
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(_measure, *job, options.budgets, options.work, options.published) for job in jobs]
        for count, future in enumerate(as_completed(futures), 1):
            print(f"{count} of {len(jobs)}: {future.result()}", flush=True)


def _measure(name: str, seed: int, budgets: Sequence[int], work: Path, published: Path | None) -> str:
    import optuna
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what the libraries made at import is not looked through again and again
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cell = open_cell(name, seed, work / "bank", published)
    largest = max(budgets)
    known: dict[Any, float] = {}
    rows, curves, overheads, costs = [], {}, {}, []
    for method, how in METHODS.items():
        for budget in (largest,) if how.anytime else budgets:
            meter, seconds = run_method(method, cell, budget, seed, known)
            if not meter.best:
                continue
            costs += meter.probe_seconds
            for until in budgets if how.anytime else (budget,):
                rows.append(_row(name, seed, method, until, meter, seconds))
            if how.anytime:
                curves[method] = [round(value, 6) for value in meter.curve]
                overheads[method] = seconds / len(meter.curve)
    result = {
        "cell": name,
        "seed": seed,
        "rows": rows,
        "curves": curves,
        "overheads": overheads,
        "probe_seconds": float(np.median(costs)),
        "planted": None if cell.planted is None else cell.score(cell.planted),
    }
    temporary = _file(work, name, seed).with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(result))
    temporary.replace(_file(work, name, seed))
    return f"{name}, seed {seed}"


def _run_random_on(jobs: Sequence[tuple[str, int]], options: argparse.Namespace) -> None:
    """Random search for twenty times the evaluations that ours took to 99 % of the best: does it get there?"""
    files = [(_file(options.work, *job), *job) for job in jobs if _file(options.work, *job).is_file()]
    for file, name, seed in files:
        result = json.loads(file.read_text())
        wanted = _wanted(result)
        ours = _reached(result["curves"][OURS], wanted)
        if "beyond" in result or not np.isfinite(ours):
            continue
        cell, result["beyond"] = open_cell(name, seed, options.work / "bank", options.published), {}
        for method in RANDOM:
            meter, _ = run_method(method, cell, BEYOND * int(ours), seed, {})
            result["beyond"][method] = _reached(meter.curve, wanted) / ours
        file.write_text(json.dumps(result))
        print(f"{name}, seed {seed}: {result['beyond']} times the evaluations of ours", flush=True)


def _wanted(result: dict[str, Any]) -> float:
    """99 % of the best score that any method within the limits finds."""
    best = max(row["validation"] for row in result["rows"] if METHODS[row["method"]].limited)
    return float(best - CLOSE * abs(best))


def _reached(curve: Sequence[float], wanted: float) -> float:
    """Evaluations until a score; infinite where it is not reached."""
    reached = np.flatnonzero(np.array(curve) >= wanted)
    return float(reached[0] + 1) if len(reached) else float("inf")


def _row(cell: str, seed: int, method: str, budget: int, meter: Meter, seconds: float) -> Row:
    best = meter.best_at(budget)
    if best is None:
        raise RuntimeError(f"{method} must have evaluated a selection within {budget}, but has not.")
    return {
        "cell": cell,
        "seed": seed,
        "method": method,
        "budget": budget,
        "evaluations": min(budget, len(meter.curve)),
        "validation": meter.curve[min(budget, len(meter.curve)) - 1],
        "test": meter.cell.test(best),
        "members": len(best.members),
        "overhead_ms": 1000 * seconds / len(meter.curve),
        "selection": str(best) if len(best.members) < 10 else f"{len(best.members)} candidates",
    }


def _print_scores(rows: Sequence[Row]) -> None:
    grouped: dict[tuple[str, int, str], dict[int, Row]] = defaultdict(dict)
    for row in rows:
        grouped[row["cell"], row["budget"], row["method"]][row["seed"]] = row
    first = dict.fromkeys(("validation", "test"), 0)
    cells = list(dict.fromkeys((row["cell"], row["budget"]) for row in rows))
    for cell, budget in cells:
        ours = grouped[cell, budget, OURS]
        table, beaten = [], dict.fromkeys(first, False)
        for method, how in METHODS.items():
            theirs = grouped.get((cell, budget, method))
            if not theirs:
                continue
            line = [method]
            for split in first:
                line.append(f"{np.mean([row[split] for row in theirs.values()]):.4f}")
                gain = [ours[seed][split] - row[split] for seed, row in theirs.items() if seed in ours]
                low, high = paired_interval(gain)
                line.append("" if method == OURS else f"{np.mean(gain):+.4f} [{low:+.4f}, {high:+.4f}]")
                beaten[split] |= method != OURS and how.limited and high < 0
            table.append(line)
        for split, lost in beaten.items():
            first[split] += not lost
        print(f"\n{cell}, {budget} evaluations, {len(ours)} seeds (ours minus each, paired 95 % interval)")
        print_table(("method", "validation", "ours minus this", "test", "ours minus this"), table)
    for split, count in first.items():
        print(f"ours is first or within noise of first, {split}: {count} of {len(cells)} cells and budgets")


def _print_speed(done: Sequence[dict[str, Any]]) -> None:
    """Evaluations until 99 % of the best that anyone finds, and scores at equal time."""
    needed: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    timed: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in done:
        wanted = _wanted(result)
        seconds = EQUAL_TIME * (result["overheads"][OURS] + result["probe_seconds"])
        for method, curve in result["curves"].items():
            needed[result["cell"]][method].append(_reached(curve, wanted))
            each = result["overheads"][method] + result["probe_seconds"]
            timed[result["cell"]][method].append(curve[min(len(curve), max(1, int(seconds / each))) - 1])
    methods = [method for method, how in METHODS.items() if how.anytime and how.limited and len(done[0]["curves"]) > 0]
    methods = [method for method in methods if any(method in found for found in needed.values())]
    print(
        "\nevaluations until 99 % of the best score that any method finds (medians; inf: not within the largest budget)"
    )
    lines, ratios = [], defaultdict(list)
    for cell, found in needed.items():
        medians = {method: float(np.median(found[method])) for method in methods if found.get(method)}
        lines.append([cell, *(f"{medians[method]:.0f}" if method in medians else "" for method in methods)])
        ratios["best of Optuna's"].append(min(medians[method] for method in OPTUNA) / medians[OURS])
        ratios["random (the better)"].append(min(medians[method] for method in RANDOM) / medians[OURS])
    print_table(("cell", *methods), lines)
    for rival, values in ratios.items():
        each = ", ".join(f"{value:.1f}" for value in values)
        print(f"{rival} needs {np.median(values):.1f} times the evaluations of ours (median over cells; {each})")
    further = [result["beyond"] for result in done if "beyond" in result]
    for method in RANDOM if further else ():
        there = sum(np.isfinite(found[method]) for found in further)
        print(f"{method} gets there within {BEYOND} times the evaluations of ours in {there} of {len(further)} runs")
    print(f"\nvalidation score in the time that ours takes for {EQUAL_TIME} evaluations (means)")
    lines = [
        [cell, *(f"{np.mean(found[method]):.4f}" if found.get(method) else "" for method in methods)]
        for cell, found in timed.items()
    ]
    print_table(("cell", *methods), lines)
    overheads = {
        method: 1000 * np.median([result["overheads"][method] for result in done if method in result["overheads"]])
        for method in methods
    }
    print("overhead beside the probe, ms: " + ", ".join(f"{name} {value:.1f}" for name, value in overheads.items()))


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % t interval of the mean of paired differences; a point where all are equal."""
    values = np.array(differences)
    if len(values) < 2 or np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def _draw(done: Sequence[dict[str, Any]], path: Path) -> None:
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
            style = {"color": "black", "linewidth": 2.2, "zorder": 3} if method == OURS else {"color": f"C{number}"}
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


def _file(work: Path, cell: str, seed: int) -> Path:
    return work / f"{cell.replace(' ', '-')}-{seed}.json"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for banks and finished cells; taken up again")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS, metavar="CELL")
    parser.add_argument("--seeds", type=int, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), help="evaluations")
    parser.add_argument("--published", type=Path, help="CSV of the paper's single scores: backbone, activation, *_miou")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument("--beyond", action="store_true", help=f"run random search on, {BEYOND} times as long as ours")
    parser.add_argument("--collect", action="store_true", help="measure nothing; print what is finished")
    parser.add_argument("--out", type=Path, default=RESULTS / "search_quality.csv", help="default: %(default)s")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "search_quality.png")
    return parser.parse_args()


if __name__ == "__main__":
    main()
