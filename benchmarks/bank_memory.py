"""How much memory it takes to fill the bank, from 50 to 500 images, and what a bank of SDXL takes.

Measures, for each number of images in a process of its own: the most resident memory (VmHWM of /proc/self/status,
reset just before) while the demo's pipeline fills a bank with the demo's candidates at two timesteps, and then while
the bank is opened again, with every record compared with its checksum. Target: flat within 10 % from 50 to 500 images,
the largest over the smallest, for the process as a whole and for what lies beyond the memory that it has before the
fill (model, libraries and data set), where noise of the allocator weighs more.

Conditions: rendered scenes, all for training; statistics are fit on 50 images in all runs (a fit holds one candidate's
raw features of these), batches of 32, one thread; freed memory is kept, as the command line does.

Extrapolation, not a measurement: the size of a bank of SDXL's 63 published candidates at 5 timesteps and 30 + 30
images, by the formula that the budget uses (its error on the banks made here is printed), with default settings and
with more locations or channels; and the memory of the fit of its widest candidate. `full_size.py` measures the rest.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from diffsift.common.context import RunContext

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

from _common import RESULTS, environment, load, print_table, write_csv

COUNTS = (50, 100, 200, 500)
FIT_IMAGES = 50
FLAT = 1.10
BUDGET = 2e9
TIMESTEPS = 5
IMAGES = 30 + 30


def main() -> None:
    options = _options()
    if options.count is not None:
        print(json.dumps(_measure(options.count)))
        return
    rows = [_in_own_process(count) for count in options.counts]
    columns = ("images", "before MB", "peak MB", "beyond MB", "reopened MB", "bank MB", "estimate / bank", "seconds")
    keys = ("images", "before", "peak", "beyond", "reopened", "bank", "estimate_ratio", "seconds")
    print_table(columns, [[f"{row[key]:.4g}" for key in keys] for row in rows])
    print()
    for name in ("peak", "beyond", "reopened"):
        ratio = max(row[name] for row in rows) / min(row[name] for row in rows)
        print(f"{name}: largest / smallest {ratio:.3f}, target at most {FLAT}: {'met' if ratio <= FLAT else 'NOT met'}")
    _print_sdxl()
    shared = {"load": load(), **environment()}
    write_csv(options.out, [{**row, **shared} for row in rows])


def _in_own_process(count: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--count", str(count)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"{count} images failed:\n{result.stderr}")
    return dict(json.loads(result.stdout.splitlines()[-1]))


def _measure(count: int) -> dict[str, float]:
    import torch

    from diffsift.common.reporting import NullReporter
    from diffsift.demo import demo_specification
    from diffsift.memory import tune_malloc
    from diffsift.runs.prepare import prepare
    from diffsift.study_store import StudyStore

    tune_malloc()
    torch.set_num_threads(1)
    demo = demo_specification()
    data = demo.data.model_copy(update={"train": count, "validation": 0, "test": 1})
    bank_part = demo.bank.model_copy(update={"fit_images": FIT_IMAGES})
    specification = demo.model_copy(update={"data": data, "bank": bank_part})
    with tempfile.TemporaryDirectory(prefix="diffsift-memory-") as temporary, StudyStore(temporary) as store:
        context = specification.context(store.workspace, NullReporter())
        prepared = prepare(specification, store, context)
        bank, model = prepared.bank, prepared.models["main"]
        backbone, activations = prepared.backbone("main"), prepared.wanted(model)
        for _ in backbone.capture(torch.rand(32, 3, 32, 32), {50: list(model.activations.values())[:1]}, seed=0):
            pass  # libraries load some of themselves only when they are used
        before = _reset_peak()
        started = time.perf_counter()
        bank.fill(backbone, activations)
        seconds = time.perf_counter() - started
        peak = _peak()
        _reset_peak()
        if store.bank(bank.development, specification, context).fill(backbone, activations):
            sys.exit("the bank was not whole")
        return {
            "images": count,
            "before": before,
            "peak": peak,
            "beyond": peak - before,
            "reopened": _peak(),
            "bank": bank.size / 1e6,
            "estimate_ratio": bank.estimate(activations) / bank.size,
            "seconds": seconds,
        }


def _reset_peak() -> float:
    """Megabytes resident now, from which the peak is counted anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _peak() -> float:
    return _status("VmHWM")


def _status(field: str) -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) * 1024 / 1e6


def _print_sdxl() -> None:
    import numpy as np

    from diffsift.bank import Bank, BankSpecification, DevelopmentSet

    tests = Path(__file__).resolve().parent.parent / "tests"
    sys.path.insert(0, str(tests))
    from support.published import SDXL, activations_of

    with (tests / "assets" / "published_pools.csv").open(newline="") as file:
        names = {row["activation"] for row in csv.DictReader(file) if row["backbone"] == "sdxl"}
    pool = [entry for entry in activations_of(SDXL) if entry.name in names]
    wanted = dict.fromkeys(range(TIMESTEPS), pool)

    def size(pixels: int, **changes: Any) -> tuple[int, int]:
        """Bytes of the bank, and of the fit of its widest candidate."""
        images = np.zeros(IMAGES)
        development = DevelopmentSet(
            samples=[None] * IMAGES,  # type: ignore[arg-type]
            points=np.zeros((IMAGES, pixels, 2), np.float32),
            labels=images,
            weights=images,
            fold=images,
            training=np.arange(IMAGES) < IMAGES // 2,
            groups=(),
            class_names=(),
            identity={},
        )
        specification = BankSpecification(pixels_per_image=pixels, **changes)
        with tempfile.TemporaryDirectory() as folder:
            bank = Bank(Path(folder), development, specification, RunContext(batch_size=1))
            return bank.estimate(wanted), bank.fit_memory(wanted)

    print(f"\nExtrapolated: SDXL, {len(pool)} candidates x {TIMESTEPS} timesteps, {IMAGES} images")
    default = BankSpecification()
    rows = []
    for channels in (default.max_channels, 512, 1280):
        most = max(
            (p for p in (64, 128, 256, 512, 1024, 2048) if size(p, max_channels=channels)[0] <= BUDGET), default=0
        )
        for pixels in sorted({default.pixels_per_image, most} - {0}):
            needed, fit = size(pixels, max_channels=channels)
            met = "yes" if needed <= BUDGET else "NO"
            rows.append([f"{pixels} locations, {channels} channels", f"{needed / 1e9:.2f}", met, f"{fit / 1e9:.2f}"])
    print_table(("bank", "GB on disk", "at most 2 GB", "GB of memory for a fit"), rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--counts", type=int, nargs="+", default=list(COUNTS), help="numbers of images")
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, default=RESULTS / "bank_memory.csv", help="where the figures go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
