"""What a job costs on networks of full size, beside plain passes of the same network.

For each model, in a process of its own: a plain pass of the denoiser and an encode of the VAE, per image; the pass with
all activations of the pool captured and sampled; the bank of one set of images; and, where it is asked for, the whole
job (`diffsift.select`: bank, random-weights control, trials, final table) after `--dry-run`'s estimate of it. Weights
are random, images are rendered scenes resized to the model's size: neither changes what anything costs.

Seconds are processor seconds on a CPU, of all threads, and wall-clock seconds on a GPU. Memory is what lies beyond the
loaded model: on a CPU the most resident memory, looked at fifty times a second, less what it was before and, for the
job, less the weights of denoiser and VAE; on a GPU the most that torch allocated, likewise.

Targets: the job at most 2.0 times its passes and one encode of each image; at most 1 GB beyond the model; on a GPU a
bank that fills at 0.8 of the speed of plain passes or more.

    python benchmarks/full_size.py --models sd-1.5 --parts bank job         # two CPU cores, 24 GB
    python benchmarks/full_size.py --models sdxl --parts bank
    python benchmarks/full_size.py --device cuda --size 1024 --models sdxl sd-3.5-large flux --parts bank
"""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _common import RESULTS, environment, load, print_table, write_csv

TRAIN, TEST, TRIALS = 12, 6, 12
TIMESTEPS = (50, 200)
COLUMNS = ("model", "px", "pass s", "encode s", "capture", "bank", "bank GB", "job", "job GB", "dry s", "dry GB")


def main() -> None:
    options = _options()
    if options.alone is not None:
        print(json.dumps(_alone(options)))
        return
    if options.one is not None:
        print(json.dumps(_measured(options)))
        return
    rows = []
    for name in options.models:
        command = [sys.executable, __file__, *sys.argv[1:], "--one", name]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
        if result.returncode:
            sys.exit(f"{name} failed")
        rows.append({**json.loads(result.stdout.splitlines()[-1]), "load": load(), **environment()})
    print_table(COLUMNS, [_cells(row) for row in rows])
    write_csv(options.out, [*_kept(options.out, rows), *rows])


def _kept(file: Path, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the file holds of other models, sizes and devices."""

    def key(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in ("model", "device", "dtype", "px"))

    if not file.exists():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return [row for row in csv.DictReader(lines) if key(row) not in {key(new) for new in rows}]


def _cells(row: dict[str, Any]) -> list[str]:
    keys = ("capture_ratio", "bank_ratio", "bank_gb", "job_ratio", "job_gb", "dry_seconds_ratio", "dry_gb_ratio")
    first = [str(row["model"]), str(row["px"]), f"{row['pass_s']:.3g}", f"{row['encode_s']:.3g}"]
    return [*first, *("" if row[key] is None else f"{row[key]:.2f}" for key in keys)]


@dataclass
class Clock:
    """Seconds, memory and counts of what runs inside `watched`."""

    device: Any
    seconds: float = 0.0
    gigabytes: float = 0.0
    passes: int = 0
    encoded: int = 0
    _held: list[int] = field(default_factory=list)

    @contextmanager
    def watched(self) -> Iterator[None]:
        import torch

        ended = threading.Event()
        base = self._memory()
        self._held = [base]

        def look() -> None:
            while not ended.wait(0.02):
                self._held.append(self._memory())

        watcher = threading.Thread(target=look, daemon=True)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            watcher.start()
        started = self.now()
        try:
            yield
        finally:
            self.seconds = self.now() - started
            ended.set()
            peak = torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else max(self._held)
            self.gigabytes = (peak - base) / 1e9

    def now(self) -> float:
        import torch

        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()

    def counting(self, kind: type[Any]) -> None:
        """Count images that are denoised and encoded by backbones of a class."""
        denoise, encode = kind.denoise, kind.encode

        def denoised(backbone: Any, clean: Any, *rest: Any) -> None:
            self.passes += len(clean)
            denoise(backbone, clean, *rest)

        def encoded(backbone: Any, images: Any) -> Any:
            self.encoded += len(images)
            return encode(backbone, images)

        kind.denoise, kind.encode = denoised, encoded

    def _memory(self) -> int:
        import torch

        if self.device.type == "cuda":
            return torch.cuda.memory_allocated(self.device)
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) * 1024


def _measured(options: argparse.Namespace) -> dict[str, Any]:
    import torch
    from _full_size_models import build

    from diffsift.backbones import LoadedPipeline, ModelSpecification, PipelineBackbone
    from diffsift.memory import tune_malloc

    tune_malloc()
    name, device = options.one, torch.device(options.device)
    size = (options.size, options.size)
    row: dict[str, Any] = {"model": name, "device": _device_name(device), "dtype": options.dtype, "px": options.size}
    pipeline = build(name, getattr(torch, options.dtype), device)
    with tempfile.TemporaryDirectory(prefix="diffsift-full-size-") as temporary:
        folder = Path(temporary)
        if "job" in options.parts:
            pipeline.save_pretrained(folder / "model")
        model = ModelSpecification(
            id=str(folder / "model"), image_size=size, device=options.device, dtype=options.dtype
        )
        backbone = PipelineBackbone(LoadedPipeline(pipeline, name), model)
        row |= _plain(backbone, device)
        empty = ("passes", "bank_s", "bank_ratio", "bank_gb", "job_s", "job_passes", "job_ratio", "job_gb")
        row |= dict.fromkeys((*empty, "dry_seconds_ratio", "dry_gb_ratio"))
        if "bank" in options.parts:
            row |= _bank(backbone, folder / "bank", row, device)
        if "job" in options.parts:
            del backbone, pipeline
            row |= _job_beside_dry_run(folder, row)
    return row


def _job_beside_dry_run(folder: Path, row: dict[str, Any]) -> dict[str, Any]:
    """Each in a process of its own: what a process has freed would count as memory that was there before."""

    def run(part: str) -> dict[str, Any]:
        command = [sys.executable, __file__, *sys.argv[1:], "--alone", part, "--folder", str(folder)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
        return dict(json.loads(result.stdout.splitlines()[-1]))

    planned, job = run("dry run"), run("job")
    least = job["job_passes"] * row["pass_s"] + (TRAIN + TEST) * row["encode_s"]
    return {
        **job,
        "job_ratio": job["job_s"] / least,
        "dry_seconds_ratio": planned["seconds"] / job["job_s"],
        "dry_gb_ratio": planned["gigabytes"] / job["job_gb"],
    }


def _plain(backbone: Any, device: Any) -> dict[str, Any]:
    """Seconds of a plain pass and an encode of one image, and the ratio of a pass with the pool captured."""
    import torch

    from diffsift.extraction import sample_map

    clock = Clock(device)
    images = torch.rand(1, 3, *backbone.image_size).to(device)
    pool = _pool(backbone)
    wanted = {TIMESTEPS[0]: pool}
    points = torch.rand(1, 64, 2).to(device)
    with torch.inference_mode():
        clean = backbone.encode(images)
        noise, conditioning = torch.randn_like(clean), backbone.condition(1)

        def plain() -> None:
            backbone.denoise(clean, noise, TIMESTEPS[0], conditioning)

        def captured() -> None:
            for _ in backbone.capture(images.cpu(), wanted, seed=0, read=lambda f: sample_map(f.values, points)):
                pass

        captured()  # the image is encoded here, and remembered
        return {
            "activations": len(pool),
            "pass_s": _fastest(plain, clock),
            "encode_s": _fastest(lambda: backbone.encode(images), clock),
            "capture_ratio": _fastest(captured, clock) / _fastest(plain, clock),
        }


def _pool(backbone: Any) -> list[Any]:
    """What the default filters keep of a U-Net; of a transformer the widest 30 %, as many as they keep there."""
    from diffsift.backbones import is_unet
    from diffsift.spaces import FilterSpecification, apply_filters

    known = backbone.activations()
    structural = is_unet(backbone.denoiser)
    decisions = apply_filters(known, FilterSpecification(rules="structural" if structural else "none"), None)
    pool = sorted((entry.activation for entry in decisions if entry.kept), key=lambda entry: -entry.channels)
    return sorted(pool if structural else pool[: round(0.3 * len(pool))], key=lambda entry: entry.depth)


def _fastest(run: Callable[[], Any], clock: Clock, times: int = 3) -> float:
    found = []
    for _ in range(times):
        started = clock.now()
        run()
        found.append(clock.now() - started)
    return min(found)


def _specification(model: Any) -> Any:
    from diffsift.specification import Specification

    return Specification(
        model=model,
        data={"kind": "rendered-scenes", "train": TRAIN, "validation": 0, "test": TEST},
        task={"kind": "segmentation", "folds": 2},
        timesteps=TIMESTEPS,
        study={"name": "full-size", "trials": TRIALS, "rerank": 1},
        tracking={"mlflow": False},
    )


def _bank(backbone: Any, folder: Path, row: dict[str, Any], device: Any) -> dict[str, Any]:
    from diffsift.bank import Bank
    from diffsift.common.context import RunContext
    from diffsift.objectives import make_objective

    asked = _specification(backbone._model)
    objective = make_objective(asked.data_sets, asked.task, asked.bank, asked.probe)
    bank = Bank(folder, objective.load(), asked.bank, RunContext(batch_size=asked.model.batch_size))
    clock = Clock(device)
    clock.counting(type(backbone))
    with clock.watched():
        bank.fill(backbone, dict.fromkeys(TIMESTEPS, _pool(backbone)))
    least = clock.passes * row["pass_s"] + clock.encoded * row["encode_s"]
    return {
        "passes": clock.passes,
        "bank_s": clock.seconds,
        "bank_ratio": least / clock.seconds,
        "bank_gb": clock.gigabytes,
    }


def _alone(options: argparse.Namespace) -> dict[str, Any]:
    """The dry run of the saved model, or the job."""
    import _full_size_models  # noqa: F401 - libraries are there before memory is looked at
    import torch

    import diffsift
    from diffsift.backbones import ModelSpecification, PipelineBackbone
    from diffsift.memory import tune_malloc
    from diffsift.runs import expected_cost, select  # noqa: F401
    from diffsift.runs.plan import plan

    tune_malloc()
    device, folder, size = torch.device(options.device), options.folder, (options.size, options.size)
    model = ModelSpecification(id=str(folder / "model"), image_size=size, device=options.device, dtype=options.dtype)
    asked, clock = _specification(model), Clock(device)
    if options.alone == "dry run":
        expected_cost.clock = clock.now  # the same seconds as the job's
        planned = plan(asked, workspace=folder / "planned")
        return {"seconds": planned.seconds, "gigabytes": planned.memory / 1e9}
    clock.counting(PipelineBackbone)
    with clock.watched():
        diffsift.select(asked, workspace=folder / "workspace", out=folder / "selection.json")
    weights = sum(
        file.stat().st_size
        for part in ("unet", "transformer", "vae")
        for file in (folder / "model" / part).glob("*.safetensors")
    )
    return {
        "job_s": clock.seconds,
        "job_passes": clock.passes,
        "job_gb": clock.gigabytes - weights / 1e9,
    }


def _device_name(device: Any) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    models = ("sd-1.5", "sdxl", "sd-3.5-large", "flux", "tiny")
    parser.add_argument("--models", nargs="+", choices=models, default=["sd-1.5"], help="architectures")
    parser.add_argument("--parts", nargs="+", choices=("bank", "job"), default=["bank", "job"], help="what is run")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--dtype", default="bfloat16", help="type of the weights")
    parser.add_argument("--size", type=int, default=256, help="edge of the images in px")
    parser.add_argument("--out", type=Path, default=RESULTS / "full_size.csv", help="where the figures go")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument("--alone", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
