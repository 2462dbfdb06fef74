"""What capture costs, and what ending the forward pass early saves.

A U-Net of medium size with random weights on the CPU. In each round, in turn: the plain forward pass, the same with
hooks for all activations but attention maps (references only, nothing is copied; maps are computed anew from queries
and keys, so they are work of their own, not overhead), and passes that end after the deepest activation in the first
25, 50 and 75 % of the catalogue's order.

"hooks only" has the same hooks, but they keep nothing: what is above it is not the hooks, but memory that cannot be
used again while the captured tensors live. glibc hands large blocks back to the system when they are freed and gets
them anew, page by page; so all is measured twice, in processes of their own: with the allocator as it comes (in Python)
and with one that is told to keep what it has (`tune_malloc`, which the command line calls). Compare ratios
between the two, not seconds.

A round's times are compared with the plain pass of the same round, and the medians of these ratios are printed, with
the 25th and 75th percentile: a load that comes and goes then falls on all of them. "modules run" is the share of the
plain pass's time that was over when the last wanted module was reached, timed by a hook in one more plain pass per
round: what a stop at this depth can save at best.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _common import RESULTS, environment, load, print_table, write_csv
from diffusers import UNet2DConditionModel

from diffsift.backbones import Activation, Capture, read_activations
from diffsift.memory import tune_malloc

DEPTHS = (0.25, 0.5, 0.75)
TEXT_WIDTH = 256
ALLOCATORS = {"default": [], "keeps memory": ["--keep"]}


def main() -> None:
    options = _options()
    torch.set_num_threads(options.threads)
    if options.keep and not tune_malloc():
        raise SystemExit("this needs Linux with glibc")
    if options.child:
        unet = build_unet()
        activations = [entry for entry in read_activations(unet) if entry.port != "attention" and not entry.unreadable]
        times = measure(unet, activations, rounds=options.rounds, size=options.size)
        options.child.write_text(json.dumps({"activations": len(activations), "times": times}), encoding="utf-8")
        return
    rows: list[dict[str, Any]] = []
    for allocator, arguments in ALLOCATORS.items():
        load_before = load()
        with tempfile.TemporaryDirectory(prefix="diffsift-overhead-") as temporary:
            result = Path(temporary) / "times.json"
            command = [sys.executable, __file__, *sys.argv[1:], "--child", str(result), *arguments]
            subprocess.run(command, check=True)
            measured = json.loads(result.read_text(encoding="utf-8"))
        columns = {**environment(), "load_before": load_before, "load_after": load()}
        found = _statistics(measured["times"], measured["activations"])
        print(f"\nallocator: {allocator}")
        _print(found, measured["times"])
        rows += [{"allocator": allocator, **row, **columns} for row in found]
    write_csv(options.out, rows)


def build_unet() -> UNet2DConditionModel:
    """About 40 million random parameters in three levels."""
    torch.manual_seed(0)
    unet = UNet2DConditionModel(
        sample_size=32,
        block_out_channels=(96, 192, 384),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 3,
        up_block_types=("CrossAttnUpBlock2D",) * 3,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=8,
        norm_num_groups=32,
    )
    unet.requires_grad_(False).eval()
    return unet


@torch.inference_mode()
def measure(
    unet: torch.nn.Module, activations: Sequence[Activation], *, rounds: int, size: int
) -> dict[str, list[float]]:
    """Seconds by kind of pass, one per round after a warm-up round, which is not counted."""
    sample, text = torch.randn(1, 4, size, size), torch.randn(1, 16, TEXT_WIDTH)
    timestep = torch.tensor([50])
    cuts = {depth: activations[: max(1, round(depth * len(activations)))] for depth in DEPTHS}

    def plain() -> None:
        unet(sample, timestep, encoder_hidden_states=text)

    def captured(wanted: Sequence[Activation], *, stop_early: bool) -> Callable[[], None]:
        def run() -> None:
            with Capture(unet, wanted, stop_early=stop_early):
                plain()

        return run

    def hooks_only() -> None:
        modules = [unet.get_submodule(entry.module) for entry in activations]
        handles = [module.register_forward_hook(lambda *_: None) for module in modules]
        try:
            plain()
        finally:
            for handle in handles:
                handle.remove()

    passes = {"plain": plain, "hooks only": hooks_only, "all captured": captured(activations, stop_early=False)}
    passes |= {f"stop at {depth:.0%}": captured(wanted, stop_early=True) for depth, wanted in cuts.items()}
    times: dict[str, list[float]] = {name: [] for name in (*passes, *(f"modules run at {d:.0%}" for d in DEPTHS))}
    for round_number in range(rounds + 1):
        # Every pass comes first in turn, so that none always follows the same other.
        names = list(passes)
        start = round_number % len(names)
        spent = {name: _seconds(passes[name]) for name in names[start:] + names[:start]}
        spent |= {f"modules run at {d:.0%}": seconds for d, seconds in _reached(unet, cuts, plain).items()}
        if round_number:
            for name, seconds in spent.items():
                times[name].append(seconds)
    return times


def _reached(
    unet: torch.nn.Module, cuts: dict[float, Sequence[Activation]], plain: Callable[[], None]
) -> dict[float, float]:
    """Share of a plain pass that was over when the last wanted module had run."""
    moments: dict[float, float] = {}
    handles = []
    for depth, wanted in cuts.items():
        for entry in wanted:

            def note(*_: Any, depth: float = depth) -> None:
                moments[depth] = time.perf_counter()

            handles.append(unet.get_submodule(entry.module).register_forward_hook(note))
    started = time.perf_counter()
    try:
        plain()
    finally:
        for handle in handles:
            handle.remove()
    total = time.perf_counter() - started
    return {depth: (moment - started) / total for depth, moment in moments.items()}


def _seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _statistics(times: dict[str, list[float]], activations: int) -> list[dict[str, Any]]:
    plain = np.array(times["plain"])
    rows = []
    for name, values in times.items():
        # Shares of a pass are ratios already.
        ratios = np.array(values) if name.startswith("modules run") else np.array(values) / plain
        low, middle, high = np.percentile(ratios, [25, 50, 75])
        rows.append(
            {
                "pass": name,
                "activations": activations,
                "rounds": len(values),
                "median_s": None if name.startswith("modules run") else float(np.median(values)),
                "ratio": float(middle),
                "ratio_p25": float(low),
                "ratio_p75": float(high),
            }
        )
    return rows


def _print(rows: Sequence[dict[str, Any]], times: dict[str, list[float]]) -> None:
    cells = [
        (
            row["pass"],
            "" if row["median_s"] is None else f"{row['median_s']:.3f}",
            f"{row['ratio']:.3f}",
            f"{row['ratio_p25']:.3f} to {row['ratio_p75']:.3f}",
        )
        for row in rows
    ]
    print(f"{rows[0]['activations']} activations, {len(times['plain'])} rounds")
    print_table(("pass", "median s", "of the plain pass", "25 to 75 %"), cells)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--size", type=int, default=48, help="edge of the latent (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1, help="of torch (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=RESULTS / "capture_overhead.csv", help="default: %(default)s")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)  # measure in this process, times to this file
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
