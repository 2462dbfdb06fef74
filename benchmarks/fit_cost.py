"""What fitting a bank's statistics costs: processor seconds of one fit by width, and of all fits of large networks.

Measured, one thread: `Standardiser.fit` of 60 images x 64 locations to 256 components, for each width that these
networks have; and, where the components are found by iteration, the variance they explain as a share of what the exact
ones explain. Features are random mixtures of sources whose standard deviations fall as i^-0.5, the flattest spectrum
that the stated share of 0.999 is promised for; the time does not depend on the spectrum.

Computed from that: all candidates of SD 3.5-L (190 of 2,432 channels, 75 inner activations of feed-forwards with 9,728)
at five timesteps, and the widest 30 % of them, which the default filter keeps; likewise Flux.1 and SDXL. Target: the
pool of SD 3.5-L within 10 minutes of 2 cores, which is 1,200 processor seconds.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is imported

from _common import RESULTS, environment, load, print_table, write_csv

if TYPE_CHECKING:
    from torch import Tensor

    from diffsift.extraction import Standardiser

SAMPLES, COMPONENTS, TIMESTEPS = 60 * 64, 256, 5
NETWORKS = {
    "SDXL": {320: 12, 640: 24, 1280: 55},
    "SD 3.5-L": {2432: 190, 9728: 75},
    "Flux.1": {3072: 171, 9216: 57, 12288: 57},
}
"""Candidates by width: of SDXL those that the structural filter keeps, else all."""

KEPT = 0.3
TARGET = 1200.0


def main() -> None:
    options = _options()
    widths = sorted({width for network in NETWORKS.values() for width in network})
    measured = [_measure(width, options.repeats) for width in widths]
    print_table(
        ("channels", "form", "CPU s", "explained / exact", "MB beside the features"),
        [
            [
                str(row["channels"]),
                row["form"],
                f"{row['seconds']:.2f}",
                f"{row['explained']:.5f}" if row["explained"] else "exact",
                f"{row['memory'] / 1e6:.0f}",
            ]
            for row in measured
        ],
    )
    seconds = {row["channels"]: row["seconds"] for row in measured}
    totals = [_total(name, seconds, part) for name in NETWORKS for part in ("all", "widest 30 %")]
    print()
    print_table(
        ("network", "candidates", "fits", "CPU s"),
        [[row["network"], row["form"], str(row["fits"]), f"{row['seconds']:.0f}"] for row in totals],
    )
    for row in totals:
        if row["network"] == "SD 3.5-L":
            met = "met" if row["seconds"] <= TARGET else "NOT met"
            print(f"SD 3.5-L, {row['form']}: {row['seconds']:.0f} s, target at most {TARGET:.0f}: {met}")
    shared = {"load": load(), **environment()}
    write_csv(options.out, [{**row, **shared} for row in (*measured, *totals)])


def _measure(channels: int, repeats: int) -> dict[str, Any]:
    """The fastest of some fits: others use the processor's caches too."""
    import torch

    from diffsift.extraction import Standardiser

    torch.set_num_threads(1)
    features, taken = _features(channels), []
    for _ in range(repeats):
        spent = features.clone()
        started = time.process_time()
        found = Standardiser.fit(spent, max_channels=COMPONENTS, overwrite=True)
        taken.append(time.process_time() - started)
    iterated = channels > 1280
    return {
        "network": "",
        "channels": channels,
        "form": "iterated" if iterated else "exact",
        "fits": 1,
        "seconds": min(taken),
        "explained": _explained(found, features) if iterated else None,
        "memory": Standardiser.fit_memory(SAMPLES, channels, COMPONENTS),
    }


def _features(channels: int) -> Tensor:
    import torch

    generator = torch.Generator().manual_seed(0)
    sources = min(SAMPLES, channels)
    deviations = torch.arange(1, sources + 1) ** -0.5
    values = torch.randn(SAMPLES, sources, generator=generator) * deviations
    return values @ torch.randn(sources, channels, generator=generator)


def _explained(found: Standardiser, features: Tensor) -> float:
    """Variance along the components, as a share of that along the exact ones."""
    import torch

    assert found.projection is not None
    standardised = (features - found.mean) * found.scale
    shorter = standardised if standardised.shape[0] <= standardised.shape[1] else standardised.T
    variances = torch.linalg.eigvalsh((shorter @ shorter.T).to(torch.float64))
    kept = (standardised @ found.projection).to(torch.float64).square().sum()
    return float(kept / variances[-COMPONENTS:].sum())


def _total(name: str, seconds: dict[int, float], part: str) -> dict[str, Any]:
    """All fits of a network at all timesteps."""
    pool = sorted((width for width, count in NETWORKS[name].items() for _ in range(count)), reverse=True)
    chosen = pool if part == "all" else pool[: round(KEPT * len(pool))]
    return {
        "network": name,
        "channels": None,
        "form": part,
        "fits": len(chosen) * TIMESTEPS,
        "seconds": TIMESTEPS * sum(seconds[width] for width in chosen),
        "explained": None,
        "memory": None,
    }


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="fits of each width")
    parser.add_argument("--out", type=Path, default=RESULTS / "fit_cost.csv", help="where the figures go")
    return parser.parse_args()


if __name__ == "__main__":
    main()
