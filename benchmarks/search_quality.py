"""Does our search beat every alternative at equal cost?

An *evaluation* is any candidate set that is scored or solved on labels, whoever asks, also inside a sampler. Every
method gets the same pool, bank, fast probe and limits (four activations), and the same number of evaluations: 100, 300,
1000. One that was made before costs nothing again. Methods:

- sift: ours, as ``diffsift search`` runs it, with backward elimination and warm starts;
- sift from nothing: ours without these two, which Optuna's samplers do not get either; shown, but no rival;
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
overlap.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from _common import RESULTS, environment, load, print_table, write_csv
from _search_cells import CELLS, ROOT, Cell, open_cell
from _search_figure import draw
from _search_methods import METHODS, OPTUNA, OURS, RANDOM, Meter, run_method
from scipy import stats

from diffsift.spaces import Selection

BUDGETS = (100, 300, 1000)
EQUAL_TIME = 300  # evaluations of ours, whose time all get
BEYOND = {**dict.fromkeys(RANDOM, 20), **dict.fromkeys(OPTUNA, 5)}  # times ours, which these get with --beyond
CLOSE = 0.01  # of the best score's size: what "99 % of the best" leaves
Row = dict[str, Any]
Array = np.ndarray[Any, Any]


def main() -> None:
    options = _options()
    options.work.mkdir(parents=True, exist_ok=True)
    jobs = [(cell, seed) for seed in range(options.seeds) for cell in options.cells]
    if not options.collect:
        _run(_measure, [job for job in jobs if set(options.methods) - _kept(options, *job)["methods"].keys()], options)
    if options.beyond and not options.collect:
        _run(_go_on, [job for job in jobs if _file(options.work, *job).is_file()], options)
    done = [_read(_file(options.work, *job)) for job in jobs if _file(options.work, *job).is_file()]
    done = [result for result in done if OURS in result["curves"]]
    if not done:
        raise SystemExit(f"{options.work} must hold results of ours, but holds none for the cells asked for.")
    rows = [row for result in done for row in result["rows"]]
    _print_scores(rows)
    _print_needed(done)
    _print_at_equal_time(done)
    columns = {**environment(), "load": load()}
    write_csv(options.out, [{**row, **columns} for row in rows])
    reached = [{**row, **columns} for result in done for row in _reached_rows(result)]
    write_csv(options.out.with_name(f"{options.out.stem}_reached.csv"), reached)
    draw(done, options.figure)


def _run(work: Callable[..., str], jobs: Sequence[tuple[str, int]], options: argparse.Namespace) -> None:
    """Each cell and seed in a process of its own on one thread; what is finished is kept in files."""
    with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
        futures = [pool.submit(work, *job, options) for job in jobs]
        for count, future in enumerate(as_completed(futures), 1):
            print(f"{count} of {len(jobs)}: {future.result()}", flush=True)


def _read(file: Path) -> dict[str, Any]:
    """What is finished of a cell and seed, with rows, curves and overheads of all methods together."""
    result: dict[str, Any] = json.loads(file.read_text())
    found = {method: result["methods"][method] for method in METHODS if method in result["methods"]}
    result["rows"] = [row for entry in found.values() for row in entry["rows"]]
    result["curves"] = {method: entry["curve"] for method, entry in found.items() if "curve" in entry}
    result["overheads"] = {method: entry["overhead"] for method, entry in found.items() if "curve" in entry}
    return result


def _kept(options: argparse.Namespace, name: str, seed: int) -> dict[str, Any]:
    """What is finished of a cell and seed at these budgets; methods that came to nothing are finished too."""
    file = _file(options.work, name, seed)
    kept: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    if not kept:
        return {"cell": name, "seed": seed, "budgets": options.budgets, "methods": {}}
    if kept["budgets"] != options.budgets:
        raise SystemExit(
            f"{file} must hold budgets {options.budgets}, but holds {kept['budgets']}: name another --work."
        )
    return kept


def _measure(name: str, seed: int, options: argparse.Namespace) -> str:
    import optuna
    import torch

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # what the libraries made at import is not looked through again and again
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    cell = open_cell(name, seed, options.work / "bank", options.published)
    file, result = _file(options.work, name, seed), _kept(options, name, seed)
    known: dict[Selection, float] = {}
    for method in options.methods:
        if method in result["methods"]:
            continue
        costs: list[float] = []
        result["methods"][method] = _measured(cell, name, seed, method, options.budgets, known, costs)
        if costs:
            result.setdefault("probe_seconds", float(np.median(costs)))
        result["planted"] = None if cell.planted is None else cell.score(cell.planted)
        _write(file, result)
    return f"{name}, seed {seed}"


def _measured(
    cell: Cell,
    name: str,
    seed: int,
    method: str,
    budgets: Sequence[int],
    known: dict[Selection, float],
    costs: list[float],
) -> dict[str, Any]:
    """A method's rows, and its curve and overhead where one run answers for all budgets; `costs` gets the probe's."""
    anytime, largest = METHODS[method].anytime, max(budgets)
    found: dict[str, Any] = {"rows": []}
    for budget in (largest,) if anytime else budgets:
        meter, seconds = run_method(method, cell, budget, seed, known)
        if not meter.best:
            continue
        costs += meter.probe_seconds
        found["rows"] += [
            _row(name, seed, method, until, meter, seconds) for until in (budgets if anytime else [budget])
        ]
        if anytime:
            found["curve"] = [round(value, 6) for value in meter.curve]
            found["overhead"] = seconds / len(meter.curve)
    return found


def _write(file: Path, result: dict[str, Any]) -> None:
    temporary = file.with_suffix(f".{os.getpid()}")
    temporary.write_text(json.dumps(result))
    temporary.replace(file)


def _go_on(name: str, seed: int, options: argparse.Namespace) -> str:
    """Some methods for five or twenty times the evaluations that ours took to 99 % of the best: do they get there?"""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    file = _file(options.work, name, seed)
    result, found = json.loads(file.read_text()), _read(file)
    wanted, beyond = _wanted(found), result.setdefault("beyond", {})
    ours = _reached(found["curves"][OURS], wanted)
    cell = open_cell(name, seed, options.work / "bank", options.published)
    for method, times in BEYOND.items():
        budget = times * ours
        enough = max(*result["budgets"], beyond.get(method, {}).get("budget", 0))
        if method in options.methods and np.isfinite(ours) and budget > enough:
            meter, _ = run_method(method, cell, int(budget), seed, {})
            beyond[method] = {"budget": int(budget), "curve": [round(value, 6) for value in meter.curve]}
            _write(file, result)
    return f"{name}, seed {seed}"


def _wanted(result: dict[str, Any]) -> float:
    """99 % of the best score that ours or a rival within the limits finds."""
    known = [method for method, how in METHODS.items() if how.limited and how.rival]
    best = max(row["validation"] for row in result["rows"] if row["method"] in known)
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
            shared = sorted(ours.keys() & theirs.keys())
            line = [method if len(shared) == len(ours) else f"{method}, {len(shared)} seeds"]
            for split in first:
                line.append(f"{np.mean([theirs[seed][split] for seed in shared]):.4f}")
                gain = [ours[seed][split] - theirs[seed][split] for seed in shared]
                low, high = paired_interval(gain)
                line.append("" if method == OURS else f"{np.mean(gain):+.4f} [{low:+.4f}, {high:+.4f}]")
                beaten[split] |= method != OURS and how.limited and how.rival and high < 0
            table.append(line)
        for split, lost in beaten.items():
            first[split] += not lost
        print(f"\n{cell}, {budget} evaluations, {len(ours)} seeds (ours minus each, paired 95 % interval)")
        print_table(("method", "validation", "ours minus this", "test", "ours minus this"), table)
    for split, count in first.items():
        print(f"ours is first or within noise of first, {split}: {count} of {len(cells)} cells and budgets")


def _print_needed(done: Sequence[dict[str, Any]]) -> None:
    """Evaluations until 99 % of the best that anyone finds; where that was not reached, how many were not enough."""
    needed: dict[str, dict[str, list[tuple[float, bool]]]] = defaultdict(lambda: defaultdict(list))
    for result in done:
        for method in result["curves"]:
            needed[result["cell"]][method].append(_needed(result, method))
    methods = _compared(done)
    print("\nevaluations until 99 % of the best score that any method finds (medians; >: not within so many)")
    lines, ratios = [], defaultdict(list)
    for cell, found in needed.items():
        medians = {method: _median(found[method]) for method in methods if method in found}
        lines.append([cell, *(_bound(medians[method]) if method in medians else "" for method in methods)])
        ours, not_there = medians[OURS]
        for rival, of in (("the best of Optuna's", OPTUNA), ("the better random", RANDOM)):
            least = min((medians[method] for method in of if method in medians), default=None)
            if least is not None and not not_there:
                ratios[rival].append((least[0] / ours, least[1]))
    print_table(("cell", *methods), lines)
    for rival, values in ratios.items():
        each = ", ".join(_bound(value, ".1f") for value in values)
        print(
            f"{rival} needs {_bound(_median(values), '.1f')} times the evaluations of ours (median over cells; {each})"
        )
    print("\nruns that get there within so many times the evaluations of ours, of those that had so many")
    lines = []
    for method, times in BEYOND.items():
        there: dict[str, list[bool]] = defaultdict(list)
        for result in done:
            if (entry := _within(result, method, times)) is not None:
                there[result["cell"]].append(entry)
        counts = [f"{sum(there[cell])} of {len(there[cell])}" if there[cell] else "" for cell in needed]
        lines.append([f"{method}, {times} times", *counts])
    print_table(("method", *needed), lines)


def _needed(result: dict[str, Any], method: str) -> tuple[float, bool]:
    """Evaluations of a method until 99 % of the best, and False; or how many were not enough, and True."""
    # A method that ended by itself would not get there with the rest of its evaluations either.
    curve, most = result["curves"][method], max(result["budgets"])
    if method in result.get("beyond", {}):
        curve, most = result["beyond"][method]["curve"], result["beyond"][method]["budget"]
    reached = _reached(curve, _wanted(result))
    return (float(most), True) if np.isinf(reached) else (reached, False)


def _reached_rows(result: dict[str, Any]) -> list[Row]:
    """Per method with a curve: evaluations until 99 % of the best, or how many were not enough."""
    rows = []
    for method in _compared([result]):
        evaluations, is_bound = _needed(result, method)
        row = {"cell": result["cell"], "seed": result["seed"], "method": method, "wanted": _wanted(result)}
        rows.append({**row, "evaluations": int(evaluations), "reached": not is_bound})
    return rows


def _within(result: dict[str, Any], method: str, times: int) -> bool | None:
    """Whether a method gets there within so many times the evaluations of ours; None if it was not run so long."""
    ours = _reached(result["curves"][OURS], _wanted(result))
    if method not in result["curves"] or np.isinf(ours):
        return None
    theirs, is_bound = _needed(result, method)
    if is_bound and theirs < times * ours:
        return None
    return not is_bound and theirs <= times * ours


def _median(values: Sequence[tuple[float, bool]]) -> tuple[float, bool]:
    """Of numbers some of which are lower bounds: the median, and False; or a lower bound of it, and True."""
    low = float(np.median([value for value, _ in values]))
    high = float(np.median([np.inf if is_bound else value for value, is_bound in values]))
    return low, low != high


def _bound(value: tuple[float, bool], form: str = ".0f") -> str:
    return (">" if value[1] else "") + format(value[0], form)


def _compared(done: Sequence[dict[str, Any]]) -> list[str]:
    """Methods with a curve that keep to the limits."""
    known = {method for result in done for method in result["curves"]}
    return [method for method, how in METHODS.items() if how.limited and method in known]


def _print_at_equal_time(done: Sequence[dict[str, Any]]) -> None:
    timed: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in done:
        seconds = EQUAL_TIME * (result["overheads"][OURS] + result["probe_seconds"])
        for method, curve in result["curves"].items():
            each = result["overheads"][method] + result["probe_seconds"]
            timed[result["cell"]][method].append(curve[min(len(curve), max(1, int(seconds / each))) - 1])
    methods = _compared(done)
    print(f"\nvalidation score in the time that ours takes for {EQUAL_TIME} evaluations (means)")
    lines = [
        [cell, *(f"{np.mean(found[method]):.4f}" if method in found else "" for method in methods)]
        for cell, found in timed.items()
    ]
    print_table(("cell", *methods), lines)
    overheads = {
        method: 1000 * np.median([result["overheads"][method] for result in done if method in result["overheads"]])
        for method in methods
    }
    print("overhead beside the probe, ms: " + ", ".join(f"{name} {value:.1f}" for name, value in overheads.items()))


def paired_interval(differences: Sequence[float]) -> tuple[float, float]:
    """95 % t interval of the mean of paired differences: a point where all are equal, without bounds for only one."""
    values = np.array(differences)
    if len(values) < 2:
        return -float("inf"), float("inf")
    if np.ptp(values) == 0:
        return float(values.mean()), float(values.mean())
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(values.mean() - half), float(values.mean() + half)


def _file(work: Path, cell: str, seed: int) -> Path:
    return work / f"{cell.replace(' ', '-')}-{seed}.json"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for banks and finished cells; taken up again")
    parser.add_argument("--cells", nargs="+", default=list(CELLS), choices=CELLS, metavar="CELL")
    parser.add_argument(
        "--methods", nargs="+", default=list(METHODS), choices=METHODS, metavar="METHOD", help="default: all"
    )
    parser.add_argument("--seeds", type=int, default=10, help="how many (default: %(default)s)")
    parser.add_argument("--budgets", type=int, nargs="+", default=list(BUDGETS), help="evaluations")
    parser.add_argument("--published", type=Path, help="CSV of the paper's single scores: backbone, activation, *_miou")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: %(default)s)")
    parser.add_argument(
        "--beyond", action="store_true", help="run Optuna's samplers and random on, for 5 and 20 times as long as ours"
    )
    parser.add_argument("--collect", action="store_true", help="measure nothing; print what is finished")
    parser.add_argument("--out", type=Path, default=RESULTS / "search_quality.csv", help="default: %(default)s")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "images" / "search_quality.png")
    return parser.parse_args()


if __name__ == "__main__":
    main()
