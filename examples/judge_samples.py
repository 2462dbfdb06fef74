"""Draw samples of the trained pipelines, and let a small network say whether the named solids are in them.

    python examples/judge_samples.py --work training unet_pipeline transformer_pipeline

The network learns from labelled renderings, and from what the autoencoder makes of them, which kind of solid each pixel
shows, and is kept in the work folder; its mean IoU on unseen scenes is what supervision on whole pictures reaches. A
kind is found where it covers as many pixels as a caption asks for and 8 % of those of all solids. Captions are those of
unseen scenes of the easy level. It prints in how many samples every named kind is found, and the same for the scenes
themselves and their reconstructions, which is the best that can be reached, and with the captions of other scenes,
which is chance. A picture of samples is written beside each pipeline.
"""

# diffusers annotates some arguments more narrowly than it takes them, and outputs as unions.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch
from _training import Schedule, save_grid
from _training_data import PROMPT_TOKENS, SIZE, as_input, prompt_of, render_shard
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusion3Pipeline
from diffusers.utils import logging
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

from diffsift.datasets.rendered import CLASSES, KINDS, Difficulty, Part, Renderer, draw_scene

STEPS = 40
GUIDANCE = 3.0
LEAST_PIXELS, LEAST_SHARE = 12, 0.08  # of a kind that counts as found; crumbs of others do not


class Segmenter(nn.Module):
    """(n, 3, 64, 64) in [-1, 1] to (n, classes, 64, 64) logits of what each pixel shows."""

    def __init__(self) -> None:
        super().__init__()
        self._fine = nn.Sequential(_block(3, 24, 2), _block(24, 48, 2), _block(48, 48))
        self._middle = nn.Sequential(_block(48, 96, 2), _block(96, 96))
        self._coarse = nn.Sequential(_block(96, 128, 2), _block(128, 128))
        self._join_middle, self._join_fine = _block(128 + 96, 96), _block(96 + 48, 64)
        self._out = nn.Conv2d(64, len(CLASSES), 1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self._fine(images)
        middle = self._middle(fine)
        coarse = self._coarse(middle)
        joined = self._join_middle(torch.cat([middle, _upsampled(coarse, 2)], 1))
        joined = self._join_fine(torch.cat([fine, _upsampled(joined, 2)], 1))
        return _upsampled(self._out(joined), 4)


def _block(inner: int, outer: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inner, outer, 3, stride, 1), nn.BatchNorm2d(outer), nn.ReLU())


def _upsampled(features: Tensor, factor: int) -> Tensor:
    return functional.interpolate(features, scale_factor=factor, mode="bilinear")


def labelled(work: Path, part: Part, seed: int, count: int, level: Difficulty) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 64, 64, 3) and labels (n, 64, 64) of scenes, kept in the work folder."""
    path = work / f"labelled-{part}-{seed}-{count}-{level}.npz"
    if not path.exists():
        images, labels = [], []
        for first in tqdm(range(0, count, 16), desc="rendering"):
            numbers = range(first, min(first + 16, count))
            drawn = Renderer([draw_scene(part, seed, number, level) for number in numbers]).render(SIZE)
            images.append(drawn.image.numpy())
            labels.append(drawn.label.numpy())
        np.savez(path, images=np.concatenate(images), labels=np.concatenate(labels))
    stored = np.load(path)
    return stored["images"], stored["labels"]


@torch.no_grad()
def reconstructed(vae: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    decoded = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in as_input(images).split(50)]
    return ((torch.cat(decoded).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def train_segmenter(work: Path, vae: AutoencoderKL, count: int, steps: int, batch: int = 16) -> Segmenter:
    torch.manual_seed(0)
    segmenter, path = Segmenter(), work / "segmenter.pt"
    if path.exists():
        segmenter.load_state_dict(torch.load(path, weights_only=True))
        return segmenter.eval()
    images, labels = labelled(work, "pretraining", 1, count, "medium")
    rebuilt = reconstructed(vae, images[: count // 2])
    schedule = Schedule(steps=steps, peak=3e-3, warm_up=100, cool_down=0.9)
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=3e-3, weight_decay=0.02, fused=True)
    weight = torch.tensor([0.25] + [1.0] * (len(CLASSES) - 1))
    for step in tqdm(range(steps), desc="segmenter"):
        optimizer.param_groups[0]["lr"] = schedule.rate(step)
        shown = rebuilt if step % 2 else images
        chosen = torch.randint(len(shown), (batch,)).numpy()
        mirror = -1 if step % 4 < 2 else 1
        logits = segmenter(as_input(shown[chosen][:, :, ::mirror]))
        target = torch.from_numpy(labels[chosen][:, :, ::mirror].astype(np.int64))
        loss = functional.cross_entropy(logits, target, weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(segmenter.state_dict(), path)
    return segmenter.eval()


@torch.no_grad()
def labels_of(segmenter: Segmenter, images: np.ndarray) -> Tensor:
    """(n, 64, 64) classes."""
    return torch.cat([segmenter(part).argmax(1) for part in as_input(images).split(64)])


def mean_overlap(found: Tensor, truth: Tensor) -> float:
    """Mean over classes of intersection over union."""
    counts = torch.bincount((truth * len(CLASSES) + found).flatten(), minlength=len(CLASSES) ** 2).float()
    table = counts.view(len(CLASSES), -1)
    return (table.diag() / (table.sum(0) + table.sum(1) - table.diag())).mean().item()


def kinds_of(labels: Tensor) -> Tensor:
    """(n, kinds) of bool: which kinds cover enough pixels, and enough of those of all solids."""
    pixels = torch.stack([(labels == kind + 1).sum((1, 2)) for kind in range(len(KINDS))], 1)
    return (pixels >= LEAST_PIXELS) & (pixels >= LEAST_SHARE * pixels.sum(1, keepdim=True))


def all_found(segmenter: Segmenter, images: np.ndarray, wanted: Tensor) -> float:
    """In how many images every wanted kind is found, as a fraction."""
    return (kinds_of(labels_of(segmenter, images)) | ~wanted).all(1).float().mean().item()


def sample(pipeline: DiffusionPipeline, prompts: list[str], seed: int, batch: int = 16) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    generator, images = torch.Generator().manual_seed(seed), []
    settings = {"num_inference_steps": STEPS, "guidance_scale": GUIDANCE, "generator": generator}
    if isinstance(pipeline, StableDiffusion3Pipeline):
        settings["max_sequence_length"] = PROMPT_TOKENS  # zeros in the place of T5: fewer are faster
    for start in tqdm(range(0, len(prompts), batch), desc=type(pipeline).__name__):
        part = prompts[start : start + batch]
        images.append(pipeline(part, **settings, output_type="np").images)
    return (np.concatenate(images) * 255).round().astype(np.uint8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pipelines", type=Path, nargs="+")
    parser.add_argument("--work", type=Path, default=Path("training"))
    parser.add_argument("--scenes", type=int, default=8_000, help="the segmenter learns from (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=3_000, help="of the segmenter (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=96, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--csv", type=Path, help="write the shares here too")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    logging.set_verbosity_error()  # the silent T5 says each time that it cuts prompts
    vae = AutoencoderKL.from_pretrained(arguments.work / "vae")
    segmenter = train_segmenter(arguments.work, vae, arguments.scenes, arguments.steps)
    images, labels = labelled(arguments.work, "development", 3, 400, "medium")
    overlap = mean_overlap(labels_of(segmenter, images), torch.from_numpy(labels).long())
    print(f"segmenter on unseen scenes, medium: mean IoU {overlap:.3f}")
    unseen = render_shard("development", 3, 0, arguments.samples, ("easy",))
    wanted = torch.zeros(arguments.samples, len(KINDS), dtype=torch.bool)
    for row, named in zip(wanted, unseen.named, strict=True):
        row[[int(kind) for _, kind in named if kind >= 0]] = True
    others = wanted.roll(1, 0)

    def judged(name: str, images: np.ndarray) -> dict[str, object]:
        right, chance = (all_found(segmenter, images, kinds) for kinds in (wanted, others))
        print(f"{name}: {right:.3f}, with other captions {chance:.3f}")
        return {"images": name, "count": len(images), "found": round(right, 4), "other_captions": round(chance, 4)}

    rows = [judged("scenes", unseen.images), judged("reconstructions", reconstructed(vae, unseen.images))]
    prompts = [prompt_of(named) for named in unseen.named]
    for folder in arguments.pipelines:
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        images = sample(pipeline, prompts, arguments.seed)
        rows.append(judged(f"samples of the {folder.name}", images))
        save_grid(list(images[:48].reshape(4, 12, *images.shape[1:]) / 255), folder.with_suffix(".samples.png"))
    if arguments.csv:
        with arguments.csv.open("w", newline="") as file:
            writer = csv.DictWriter(file, rows[0], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
