"""What the filters drop, and what that costs.

(a) SDXL and SD 1.5 from their published configurations: how many activations of the paper's scope the structural filter
    keeps, and whether all that the paper published are among them. No weights are needed.
(b) The built-in U-Net on rendered scenes of a seed used nowhere else: every activation at five timesteps scored alone
    on the ridge probe of the search. Per filter: the share of activations dropped, the best single score kept over the
    best of all, and the same for the best selection of four (greedy forward, equal weights, a budget of probe calls
    that is the same with and without a filter, so that a smaller pool is searched more closely and a ratio can exceed
    1). Beside the measured filter, dropping as many activations at random and by stride or channels alone, in both
    directions, with ties broken at random: median and 5 to 95 % of the draws.
(c) The same on the built-in transformer, about which the structural rules say nothing.

The partial rank correlation of a property with the score is Spearman's, given stride, channels and rms (the magnitude
of the raw activation): residuals of a linear fit on their ranks. "within" is the mean over timesteps, each on its own.

Noise that is left: one network of each kind and one draw of scenes; the best single score is a maximum over hundreds
of scores and leans upwards, for all and for a kept pool alike.
"""

from __future__ import annotations

import argparse
import csv
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import RESULTS, environment, print_table, write_csv
from _filters_measured import Measured, measure
from _filters_scoring import (
    SCENES,
    TIMESTEPS,
    Network,
    Single,
    best_four,
    open_network,
    read_singles,
    score_singles,
    singles_rows,
)
from scipy.stats import rankdata

from diffsift.backbones import Activation, in_scope, load_structure, read_activations
from diffsift.demo import PIPELINES
from diffsift.spaces import Candidate, StructuralFilter

ROOT = Path(__file__).resolve().parent.parent
PUBLISHED = {"sdxl": "sdxl-base", "sd-1.5": "sd-1.5"}  # name in published_pools.csv: folder in --models
DRAWS = 20
Row = dict[str, Any]


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    rows = _published(options.models)
    singles: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="diffsift-filters-") as temporary:
        workspace = options.workspace or Path(temporary)
        for name, folder in PIPELINES.items():
            if name in options.skip:
                continue
            if not (folder / "model_index.json").is_file():
                print(f"\n{name}: skipped, there is no pipeline in {folder}: give its folder with --{name}.")
                continue
            found, scored = _network(name, folder, workspace, options)
            rows += found
            singles += scored
    columns = environment()
    if singles:
        write_csv(options.singles, _with_equal_keys(singles))
    if rows:
        write_csv(options.out, [{**row, **columns} for row in rows])


def _published(models: Path) -> list[Row]:
    """(a): the structural filter on the networks that the rules were derived on."""
    rows, cells = [], []
    with (ROOT / "tests" / "assets" / "published_pools.csv").open(encoding="utf-8", newline="") as file:
        published = list(csv.DictReader(file))
    for name, folder in PUBLISHED.items():
        if not (models / folder / "model_index.json").is_file():
            print(
                f"{name}: skipped, {models / folder} is missing. It takes no weights: put model_index.json and "
                "unet/config.json of the published pipeline there, or name the folder of both with --models."
            )
            continue
        known = in_scope(read_activations(load_structure(str(models / folder))), "paper")
        kept = {entry.name for entry in known} - set(StructuralFilter().reasons(known))
        names = {row["activation"] for row in published if row["backbone"] == name}
        cells.append((name, str(len(known)), str(len(kept)), f"{len(names & kept)} of {len(names)}"))
        quantities = {
            "pool": len(known),
            "kept": len(kept),
            "published": len(names),
            "published_kept": len(names & kept),
        }
        rows += [_row("published", name, "structural", quantity, value) for quantity, value in quantities.items()]
    if cells:
        print_table(("structural filter", "pool", "kept", "published rows kept"), cells)
    return rows


def _network(name: str, folder: Path, workspace: Path, options: argparse.Namespace) -> tuple[list[Row], list[Row]]:
    """(b) and (c): all that is measured on one network."""
    network = open_network(name, folder, workspace, scenes=options.scenes, timesteps=options.timesteps)
    singles = read_singles(options.singles, network) if options.reuse else []
    if singles:
        network.fill()  # the selections of four need the bank
    else:
        singles = score_singles(network)
        write_csv(options.singles.with_suffix(f".{name}.csv"), singles_rows(name, singles, {}))
    best = max(singles, key=lambda single: single.score)
    print(f"\n{name}: {len(network.activations)} activations, {len(singles)} candidates")
    print(f"best single {best.score:.4f}: {best.candidate}")
    measured = measure(network)
    correlations = _correlations(name, singles, measured.values)
    filters = _filtered(network, singles, measured, options)
    return correlations + filters, singles_rows(name, singles, measured.values)


def _filtered(
    network: Network, singles: Sequence[Single], measured: Measured, options: argparse.Namespace
) -> list[Row]:
    names = [entry.name for entry in network.activations]
    dropped = {"none": set[str](), "structural": set(StructuralFilter().reasons(network.activations))}
    if measured.dropped is not None:
        dropped["measured"] = measured.dropped
        dropped["both"] = measured.dropped | dropped["structural"]
    of_all = {"single": max(single.score for single in singles)}
    of_all["four"] = best_four(network, singles, {single.candidate for single in singles}, options.budget)
    print(f"best four without a filter {of_all['four']:.4f}")

    def ratios(away: Collection[str]) -> dict[str, float]:
        kept = [single for single in singles if single.activation.name not in away]
        if not kept:
            return {"single": 0.0, "four": 0.0}
        four = best_four(network, singles, {single.candidate for single in kept}, options.budget)
        return {"single": max(single.score for single in kept) / of_all["single"], "four": four / of_all["four"]}

    rows: list[Row] = []
    cells = []
    for name, away in dropped.items():
        share, values = len(away) / len(names), ratios(away)
        rows.append(_row("filter", network.name, name, "share_dropped", share))
        rows += [_row("filter", network.name, name, f"best_{key}_kept", value) for key, value in values.items()]
        cells.append((name, f"{share:.1%}", *(f"{value:.4f}" for value in values.values())))
    if measured.dropped is not None:
        share = len(measured.dropped) / len(names)
        for name, order in _rivals(network.activations).items():
            drawn = [
                ratios(order(np.random.default_rng(draw))[: len(measured.dropped)]) for draw in range(options.draws)
            ]
            text = []
            for key in of_all:
                low, middle, high = np.percentile([values[key] for values in drawn], [5, 50, 95])
                rows.append(_row("rival", network.name, name, f"best_{key}_kept", middle, low, high))
                text.append(f"{middle:.4f} [{low:.4f}, {high:.4f}]")
            cells.append((f"as many by {name}", f"{share:.1%}", *text))
    print_table(("filter", "dropped", "best single kept", "best four kept"), cells)
    return rows


def _rivals(activations: Sequence[Activation]) -> dict[str, Callable[[np.random.Generator], list[str]]]:
    """Orders in which activations would be dropped without measuring anything."""

    def by(key: Callable[[Activation], float]) -> Callable[[np.random.Generator], list[str]]:
        def order(rng: np.random.Generator) -> list[str]:
            ties = rng.random(len(activations))
            ranked = sorted(zip(activations, ties, strict=True), key=lambda pair: (key(pair[0]), pair[1]))
            return [entry.name for entry, _ in ranked]

        return order

    found = {"chance": by(lambda entry: 0)}
    if len({entry.stride for entry in activations}) > 1:
        found["stride, fine first"] = by(lambda entry: entry.stride)
        found["stride, coarse first"] = by(lambda entry: -entry.stride)
    if len({entry.channels for entry in activations}) > 1:
        found["channels, few first"] = by(lambda entry: entry.channels)
        found["channels, many first"] = by(lambda entry: -entry.channels)
    return found


def _correlations(
    network: str, singles: Sequence[Single], values: Mapping[Candidate, Mapping[str, float]]
) -> list[Row]:
    rows, cells = [], []
    for name in sorted({name for measured in values.values() for name in measured}):
        known = [s for s in singles if np.isfinite(values.get(s.candidate, {}).get(name, np.nan))]
        pooled = partial_spearman(known, [values[s.candidate][name] for s in known])
        within = []
        for timestep in sorted({single.timestep for single in known}):
            part = [single for single in known if single.timestep == timestep]
            within.append(partial_spearman(part, [values[s.candidate][name] for s in part]))
        rows.append(_row("correlation", network, name, "partial_spearman", pooled))
        rows.append(
            _row("correlation", network, name, "partial_spearman_within", np.mean(within), min(within), max(within))
        )
        cells.append((name, f"{pooled:+.3f}", f"{np.mean(within):+.3f} [{min(within):+.3f}, {max(within):+.3f}]"))
    if cells:
        print_table(("property", "partial rank correlation", "within timesteps [least, most]"), cells)
    return rows


def partial_spearman(singles: Sequence[Single], values: Sequence[float]) -> float:
    """Spearman's correlation of values with the scores given stride, channels and rms; NaN where nothing varies."""
    if len(singles) < 6 or np.ptp(values) == 0:
        return float("nan")
    given = [[s.activation.stride, s.activation.channels, s.rms] for s in singles]
    design = np.column_stack([np.ones(len(singles)), rankdata(given, axis=0)])
    ranks = rankdata(np.column_stack([values, [single.score for single in singles]]), axis=0)
    residuals = ranks - design @ np.linalg.lstsq(design, ranks, rcond=None)[0]
    return float(np.corrcoef(residuals.T)[0, 1])


def _row(part: str, network: str, name: str, quantity: str, value: Any, low: Any = None, high: Any = None) -> Row:
    numbers = {
        key: None if entry is None else float(entry) for key, entry in (("value", value), ("low", low), ("high", high))
    }
    return {"part": part, "network": network, "name": name, "quantity": quantity, **numbers}


def _with_equal_keys(rows: Sequence[Row]) -> list[Row]:
    keys = list(dict.fromkeys(key for row in rows for key in row))
    return [{key: row.get(key) for key in keys} for row in rows]


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = ROOT.parent / "shared" / "models"
    parser.add_argument(
        "--models", type=Path, default=shared, help="folder with sdxl-base and sd-1.5, configurations only: %(default)s"
    )
    parser.add_argument("--skip", nargs="*", default=(), choices=tuple(PIPELINES), help="networks to leave out")
    parser.add_argument("--scenes", type=int, default=SCENES, help="to train on, and as many to validate on")
    parser.add_argument("--timesteps", type=int, nargs="+", default=TIMESTEPS)
    parser.add_argument("--budget", type=int, default=400, help="probe calls for a selection of four")
    parser.add_argument("--draws", type=int, default=DRAWS, help="at random, per rival (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="of torch (default: %(default)s)")
    parser.add_argument("--reuse", action="store_true", help="take single scores from --singles where it has them")
    parser.add_argument("--workspace", type=Path, help="keep the bank (1.2 GB a network) here; default: temporary")
    parser.add_argument("--singles", type=Path, default=RESULTS / "filters_singles.csv", help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=RESULTS / "filters.csv", help="default: %(default)s")
    return parser.parse_args()


if __name__ == "__main__":
    main()
