"""What the benchmarks share: where they ran, CSV files, and plain tables."""

from __future__ import annotations

import csv
import hashlib
import os
import platform
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).resolve().parent / "results"


def environment() -> dict[str, Any]:
    """Columns that say what a row was measured with; the same keys in every benchmark."""
    import torch

    import diffsift

    return {
        "diffsift": diffsift.__version__,
        "pipeline": pipeline_digest(),
        "torch": torch.__version__,
        "optuna": version("optuna"),
        "mlflow": version("mlflow"),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cpus": os.cpu_count(),
        "cpu": _cpu_name(),
    }


@cache
def pipeline_digest() -> str:
    """Names the weights of the demo's pipelines: figures of different weights must not be mixed."""
    from diffsift.demo import PIPELINE

    root, digest = PIPELINE.parent, hashlib.sha256()
    for file in sorted(root.rglob("*.safetensors")):
        digest.update(file.relative_to(root).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def load() -> float:
    """Processes that wanted a CPU in the last minute, on average; above the number of CPUs, times are too long."""
    return round(os.getloadavg()[0], 2)


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows that share their keys; floats with six significant digits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in rows)
    print(f"\nwrote {path}")


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Left-aligned first column, right-aligned others."""
    widths = [max(len(cells[column]) for cells in (header, *rows)) for column in range(len(header))]
    for cells in (header, *rows):
        first, *others = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        print("  ".join([first, *others]).rstrip())


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else value


def _cpu_name() -> str:
    """The model as the kernel names it; platform.processor() is empty on most Linux systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())
