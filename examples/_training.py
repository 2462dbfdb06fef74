"""How the training scripts train: options, learning rate, checkpoints, moving average, losses, pictures."""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm


def options(description: str | None, steps: int, batch: int, scenes: int) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("training"), help="folder for scenes, latents, checkpoints")
    parser.add_argument("--scenes", type=int, default=scenes, help="training scenes (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=steps, help="default: %(default)s")
    parser.add_argument("--batch", type=int, default=batch, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    parser.add_argument("--out", type=Path, help="write the float16 model here when training ends")
    parser.add_argument("--export", action="store_true", help="do not train: write the newest checkpoint to --out")
    return parser


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    if arguments.export and not arguments.out:
        parser.error("--export needs --out")
    arguments.work.mkdir(parents=True, exist_ok=True)
    return arguments


@dataclass(frozen=True)
class Schedule:
    """Learning rate: linear up to `peak` over `warm_up` steps, constant, linear down to 0 over the last `cool_down`."""

    steps: int
    peak: float
    warm_up: int = 300
    cool_down: float = 0.2  # of all steps

    def rate(self, step: int) -> float:
        left = (self.steps - step) / max(1.0, self.cool_down * self.steps)
        return self.peak * min(1.0, (step + 1) / self.warm_up, left)


class Trainer:
    """Trains modules, keeps an exponential moving average of their weights, and can be interrupted at any time.

    A checkpoint with the optimiser's state is written every few hundred steps; the next run with the same name goes on
    from it. Beside it a CSV of losses grows. On a GPU, steps run in bfloat16 autocast.

    Args:
        name: of the checkpoint and the CSV.
        folder: where they lie.
        modules: what is trained.
        schedule: how long and how fast.
        batch: images in a step.
        device: cpu or cuda.
        decay: of the moving average.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        modules: dict[str, nn.Module],
        schedule: Schedule,
        batch: int,
        device: str,
        decay: float = 0.9995,
    ) -> None:
        self.name, self._path, self._schedule, self._batch = name, folder / f"{name}.pt", schedule, batch
        self.modules = nn.ModuleDict(modules).to(device)
        self._device, self._csv = device, folder / f"{name}-loss.csv"
        self._average = EMAModel(self._parameters, decay=decay, use_ema_warmup=True, power=0.75)
        self._optimizer = torch.optim.AdamW(self._parameters, lr=schedule.peak, weight_decay=0.01, fused=True)
        self._processor_before = 0.0
        self.step = 0
        if self._path.exists():
            self._restore()

    @cached_property
    def _parameters(self) -> list[nn.Parameter]:
        return [parameter for parameter in self.modules.parameters() if parameter.requires_grad]

    def _restore(self) -> None:
        saved = torch.load(self._path, weights_only=True, map_location=self._device)
        self.modules.load_state_dict(saved["modules"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._average.load_state_dict(saved["average"])
        self.step, self._processor_before = saved["step"], saved["processor_s"]

    def save(self) -> None:
        state = {
            "modules": self.modules.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "average": self._average.state_dict(),
            "step": self.step,
            "processor_s": self._processor_before + time.process_time(),
        }
        partial = self._path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self._path)

    def run(
        self,
        loss_of: Callable[[int], Tensor],
        validation: Callable[[], float] | None = None,
        validate_every: int = 500,
        save_every: int = 250,
        note_every: int = 50,
    ) -> None:
        """Train to the schedule's end; the moving average's weights are in the modules afterwards.

        Args:
            loss_of: the loss of a step, by its number.
            validation: a loss of the moving average's weights on other images.
        """
        smooth: float | None = None
        progress = tqdm(range(self.step, self._schedule.steps), initial=self.step, total=self._schedule.steps)
        for step in progress:
            rate = self._schedule.rate(step)
            for group in self._optimizer.param_groups:
                group["lr"] = rate
            with torch.autocast("cuda", torch.bfloat16, enabled=self._device.startswith("cuda")):
                loss = loss_of(step)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self._parameters, 1.0)
            self._optimizer.step()
            self._average.step(self._parameters)
            smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
            self.step = step + 1
            if self.step % save_every == 0 or self.step == self._schedule.steps:
                self.save()
            validate = validation is not None and self.step % validate_every == 0
            if validate or self.step % note_every == 0:
                progress.set_postfix(loss=f"{smooth:.4f}", refresh=False)
                self._note(rate, smooth, self._validate(validation) if validation and validate else None)
        self.average()

    def average(self) -> None:
        """Put the moving average's weights into the modules."""
        self._average.copy_to(self._parameters)
        self.modules.eval()

    @torch.no_grad()
    def _validate(self, validation: Callable[[], float]) -> float:
        self._average.store(self._parameters)
        self._average.copy_to(self._parameters)
        self.modules.eval()
        value = validation()
        self.modules.train()
        self._average.restore(self._parameters)
        return value

    def _note(self, rate: float, loss: float, validation: float | None) -> None:
        new = not self._csv.exists()
        row: dict[str, Any] = {
            "step": self.step,
            "images": self.step * self._batch,
            "processor_s": round(self._processor_before + time.process_time()),
            "rate": f"{rate:.2e}",
            "loss": f"{loss:.5f}",
            "validation_loss": "" if validation is None else f"{validation:.5f}",
        }
        with self._csv.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)


def generator_of(seed: int, step: int) -> torch.Generator:
    """Random numbers of a step: the same when training is resumed."""
    return torch.Generator().manual_seed(seed * 1_000_003 + step)


def spread(count: int, generator: torch.Generator) -> Tensor:
    """Numbers in [0, 1) that cover it evener than independent ones, in random order."""
    values = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    return values[torch.randperm(count, generator=generator)]


def save_grid(rows: Sequence[np.ndarray], path: Path, zoom: int = 2) -> None:
    """A picture of rows of images (n, height, width, 3) in [0, 1]."""
    joined = np.concatenate([np.concatenate(list(row), axis=1) for row in rows])
    picture = Image.fromarray((joined.clip(0, 1) * 255).round().astype(np.uint8))
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path)
