"""Writes the figures in README and docs from the stored results, between lines such as ``<!-- figures: demo -->``.

python benchmarks/figures.py           # rewrite them
python benchmarks/figures.py --check   # fail if they differ
"""

from __future__ import annotations

import argparse
import csv
import re
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean

from _common import RESULTS
from _outcomes import mean_with_interval
from _search_methods import METHODS, OURS

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))
Row = dict[str, str]

_METRICS = {
    "segmentation": "mean IoU",
    "depth": "RMSE in metres, lower is better",
    "normals": "mean angle in degrees, lower is better",
    "correspondence": "PCK@0.1",
    "classification": "accuracy",
}
_OTHERS = ("raw pixels", "random weights", "older practice", "best single activation", "all kept, one timestep")


def demo() -> str:
    """The final table of ``make demo``."""
    lines = ["| features | mean IoU on the sealed test split | gain over this row | channels | passes |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for row in _read("demo.csv"):
        name = row["row"] if row["gain"] else f"**{row['row']}**"
        score = "{:.3f} [{:.3f}, {:.3f}]".format(*(float(row[key]) for key in ("score", "low", "high")))
        gain = ""
        if row["gain"]:
            gain = "{:+.3f} [{:+.3f}, {:+.3f}]".format(*(float(row[key]) for key in ("gain", "gain_low", "gain_high")))
        else:
            score = f"**{score}**"
        lines.append(f"| {name} | {score} | {gain} | {row['channels']} | {row['passes']} |")
    return "\n".join(lines)


def tasks() -> str:
    """Means over seeds for every task and network: the selection found beside the simpler choices."""
    rows = _read("demo_quality.csv")
    seeds = sorted({int(row["seed"]) for row in rows})
    lines = ["| task | network | selection found | " + " | ".join(_OTHERS) + " |", "| --- " * (3 + len(_OTHERS)) + "|"]
    for task, metric in _METRICS.items():
        for model in dict.fromkeys(row["model"] for row in rows):
            chosen = [row for row in rows if (row["task"], row["model"]) == (task, model)]
            if chosen:
                found = [row for row in chosen if not row["gain"]]
                cells = [f"{task} ({metric})", model, f"**{_mean(found)}** ({_channels(found)})"]
                cells += [_beside([row for row in chosen if row["row"] == name]) for name in _OTHERS]
                lines.append("| " + " | ".join(cells) + " |")
    over = "paired bootstrap interval over test images" if len(seeds) == 1 else "t interval over seeds"
    lines += ["", f"Seeds: {', '.join(map(str, seeds))}. Brackets: 95 % {over}."]
    return "\n".join(lines)


def samples() -> str:
    """In how many samples the solids of the caption are found."""
    lines = ["| images | every solid of the caption found | of another image's caption |", "| --- | --- | --- |"]
    for row in _read("samples.csv"):
        lines.append(f"| {row['images']} | {float(row['found']):.2f} | {float(row['other_captions']):.2f} |")
    return "\n".join(lines)


def filters() -> str:
    """What each filter drops, and what it keeps of the best scores."""
    rows = [row for row in _read("filters.csv") if row["part"] in ("filter", "rival")]
    quantities = ("share_dropped", "best_single_kept", "best_four_kept")
    lines = ["| network | filter | dropped | best single kept | best four kept |", "| --- " * 5 + "|"]
    for network, name in dict.fromkeys((row["network"], row["name"]) for row in rows if row["name"] != "none"):
        found = {row["quantity"]: row for row in rows if (row["network"], row["name"]) == (network, name)}
        cells = [_filter_cell(found.get(quantity)) for quantity in quantities]
        lines.append(f"| {network} | {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _filter_cell(row: Row | None) -> str:
    if row is None:
        return "as measured"  # rivals drop as many as the measured filter
    if row["quantity"] == "share_dropped":
        return f"{100 * float(row['value']):.1f} %"
    interval = f" [{float(row['low']):.3f}, {float(row['high']):.3f}]" if row["low"] and row["high"] else ""
    return f"{float(row['value']):.3f}{interval}"


def search() -> str:
    """Ours beside the best other method, for each pool and number of evaluations."""
    rows = [row for row in _read("search_quality.csv") if not row["cell"].startswith("published")]
    header = (
        "pool",
        "evaluations",
        "seeds",
        "ours",
        "best other",
        "ours minus that",
        "on test data, ours minus its best",
    )
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    for cell, budget in sorted(dict.fromkeys((row["cell"], int(row["budget"])) for row in rows), key=lambda c: c[1]):
        chosen = [row for row in rows if (row["cell"], int(row["budget"])) == (cell, budget)]
        ours = _by_seed(chosen, OURS, "validation")
        other, difference = _best_other(chosen, "validation")
        tested, on_test = _best_other(chosen, "test")
        theirs = f"{other} {fmean(_by_seed(chosen, other, 'validation').values()):.3f}"
        cells = (cell, f"{budget:,}", str(len(ours)), f"{fmean(ours.values()):.3f}", theirs, difference)
        lines.append("| " + " | ".join([*cells, f"{tested}: {on_test}"]) + " |")
    bare = [row for row in rows if row["method"] == "sift from nothing" and row["budget"] == "300"]
    scores = {cell: fmean(float(row["validation"]) for row in bare if row["cell"] == cell) for cell in _cells(bare)}
    said = ", ".join(f"{cell} {score:.3f}" for cell, score in scores.items())
    return "\n".join([*lines, "", f"Ours without its start, validation at 300 evaluations: {said}."])


def _cells(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row["cell"] for row in rows))


def _best_other(rows: list[Row], split: str) -> tuple[str, str]:
    """The rival within the limits with the best mean, and ours minus it with a paired 95 % t interval."""
    ours = _by_seed(rows, OURS, split)
    rivals = [name for name, how in METHODS.items() if how.limited and how.rival and name != OURS]
    scores = {name: _by_seed(rows, name, split) for name in rivals}
    best = max((name for name in scores if scores[name].keys() >= ours.keys()), key=lambda n: fmean(scores[n].values()))
    gain, low, high = mean_with_interval([ours[seed] - scores[best][seed] for seed in ours])
    return best, f"{gain:+.4f} [{low:+.4f}, {high:+.4f}]"


def _by_seed(rows: list[Row], method: str, split: str) -> dict[str, float]:
    return {row["seed"]: float(row[split]) for row in rows if row["method"] == method}


def _beside(rows: list[Row]) -> str:
    """The mean score of a row, and the gain of the selection found over it."""
    if not rows:
        return ""
    gain, low, high = mean_with_interval([float(row["gain"]) for row in rows])
    if len(rows) == 1:
        low, high = float(rows[0]["gain_low"]), float(rows[0]["gain_high"])
    return f"{_mean(rows)} ({_channels(rows)}): {gain:+.3f} [{low:+.3f}, {high:+.3f}]"


def _mean(rows: list[Row]) -> str:
    return f"{sum(float(row['score']) for row in rows) / len(rows):.3f}"


def _channels(rows: list[Row]) -> str:
    return f"{sum(int(row['channels']) for row in rows) / len(rows):,.0f}"


def full_size() -> str:
    """Jobs on networks of full size beside plain passes."""
    header = (
        "network",
        "images",
        "machine",
        "a pass, an encode",
        "pass with the pool captured",
        "bank, of the speed of plain passes",
        "memory beyond the model: bank, job",
        "job, in plain passes and one encode an image",
        "dry run: time, memory",
    )
    lines = ["| " + " | ".join(header) + " |", "| --- " * len(header) + "|"]
    for row in _read("full_size.csv"):
        cells = [f"{row['model']}, {row['dtype']}", f"{row['px']} px", row["device"]]
        cells.append(f"{float(row['pass_s']):.2g} s, {float(row['encode_s']):.2g} s")
        cells += [_ratio(row["capture_ratio"]), _ratio(row["bank_ratio"])]
        cells.append(f"{_ratio(row['bank_gb'])} GB, {_ratio(row['job_gb'])} GB")
        cells += [_ratio(row["job_ratio"]), f"{_ratio(row['dry_seconds_ratio'])}, {_ratio(row['dry_gb_ratio'])}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _ratio(cell: str) -> str:
    return f"{float(cell):.2f}" if cell else "-"


FIGURES: dict[str, Callable[[], str]] = {
    "demo": demo,
    "tasks": tasks,
    "samples": samples,
    "filters": filters,
    "search": search,
    "full_size": full_size,
}


def written(page: str) -> str:
    """A page with its figures made anew."""

    def made(match: re.Match[str]) -> str:
        return f"{match[1]}\n{FIGURES[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- figures: (\S+) -->).*?(<!-- end -->)", made, page, flags=re.DOTALL)


def _read(name: str) -> list[Row]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page differs")
    check = parser.parse_args().check
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if (new := written(text)) != text:
            if check:
                sys.exit(f"{page.name} has other figures than benchmarks/results: run python benchmarks/figures.py")
            page.write_text(new, encoding="utf-8")
            print(f"wrote {page.name}")


if __name__ == "__main__":
    main()
