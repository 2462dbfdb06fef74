"""The whole job on labelled images and a model of yours, over several splits: how to report a new model.

    python benchmarks/photographs.py horses.yaml --out horses.csv

SPEC.yaml is a specification as ``diffsift search`` takes it; its data must be split by a seed (`data.kind: folder`
without a split file). For each seed the images are split anew, the whole job runs as a study of its own
(`NAME-SEED`), and every row of its final table goes into the CSV: raw pixels, latents, random weights, older
practice, the paper's choice, the best single activation, all kept activations, and the selection found, with
intervals over test images, channels, passes and processor time. Then, per row, the mean of found minus row over the
seeds with its paired 95 % t interval.

Resumable: studies stay in the workspace, and what --out holds is not run again. When you report a model, give the
CSV and the specification: they name the weights, the versions, the splits and the machine.

Noise that is left: splits of one set of images overlap, so the t interval is too narrow for other images of the kind.
"""

from __future__ import annotations

import argparse
import csv
import time
from pathlib import Path

from _common import write_csv
from _outcomes import Row, print_study, print_summary, rows_of

import diffsift
from diffsift.common.reporting import ConsoleReporter
from diffsift.specification_file import load_specification


def main() -> None:
    options = _options()
    rows: list[Row] = _done(options.out)
    for seed in options.seeds:
        if any(int(row["seed"]) == seed for row in rows):
            continue
        name = load_specification(options.specification, options.set).study.name
        changes = [*options.set, f"data.seed={seed}", f"study.seed={seed}", f"study.name={name}-{seed}"]
        specification = load_specification(options.specification, changes)
        started = time.process_time()
        result = diffsift.select(
            specification,
            workspace=options.workspace,
            out=options.out.with_name(f"selection-{name}-{seed}.json"),
            report=options.out.with_name(f"report-{name}-{seed}.html"),
            force=True,
            reporter=ConsoleReporter(),
        )
        seconds = time.process_time() - started
        print_study(f"{name}, split {seed}", result.outcome, seconds)
        rows += rows_of(
            result.outcome, seconds, model=specification.model.id, data=specification.data.origin, seed=seed
        )
        write_csv(options.out, rows)
    print_summary(str(options.specification), rows)


def _done(file: Path) -> list[Row]:
    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("specification", type=Path, metavar="SPEC.yaml")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the splits (default: 0 to 4)")
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="as in diffsift search")
    parser.add_argument("--workspace", type=Path, help="of the studies (default: as in diffsift search)")
    parser.add_argument("--out", type=Path, required=True, help="CSV to write; selections and reports lie beside it")
    return parser.parse_args()


if __name__ == "__main__":
    main()
