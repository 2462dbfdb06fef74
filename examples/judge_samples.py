"""Draw samples of the trained pipelines, and let a small classifier say whether the named solids are in them.

    python examples/judge_samples.py --work training unet_pipeline transformer_pipeline

The classifier learns from renderings and from what the autoencoder makes of them which kinds of solids are seen; it is
kept in the work folder. Captions are those of unseen scenes of the easy level. For each pipeline it prints in how many
samples every named kind is found, and the same for reconstructions of the scenes, which is what could be reached at
best, and for samples compared with captions of other scenes, which is what chance reaches. A picture of samples is
written beside each pipeline.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from _training import Schedule, save_grid
from _training_data import KINDS, PROMPT_TOKENS, Scenes, as_input, prompt_of, render_shard, training_scenes
from diffusers import AutoencoderKL, DiffusionPipeline, StableDiffusion3Pipeline
from torch import Tensor, nn
from torch.nn import functional
from tqdm import tqdm

STEPS = 40
GUIDANCE = 3.0


class Classifier(nn.Sequential):
    """(n, 3, 64, 64) in [-1, 1] to (n, kinds) logits of which kinds are seen."""

    def __init__(self, widths: tuple[int, ...] = (24, 48, 72, 96)) -> None:
        layers: list[nn.Module] = []
        before = 3
        for width in widths:
            layers += [nn.Conv2d(before, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            layers += [nn.Conv2d(width, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            before = width
        pooled = [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(before, len(KINDS))]
        super().__init__(*layers, *pooled)


def kinds_seen(scenes: Scenes) -> Tensor:
    """(scenes, kinds) of 0 and 1."""
    seen = torch.zeros(len(scenes.named), len(KINDS))
    for row, named in zip(seen, scenes.named, strict=True):
        row[[int(kind) for _, kind in named if kind >= 0]] = 1.0
    return seen


@torch.no_grad()
def reconstructed(vae: AutoencoderKL, images: np.ndarray) -> np.ndarray:
    decoded = [vae.decode(vae.encode(part).latent_dist.mode()).sample for part in as_input(images).split(50)]
    return ((torch.cat(decoded).clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()


def train_classifier(work: Path, vae: AutoencoderKL, count: int, epochs: int, batch: int = 64) -> Classifier:
    torch.manual_seed(0)
    classifier, path = Classifier(), work / "classifier.pt"
    if path.exists():
        classifier.load_state_dict(torch.load(path, weights_only=True))
        return classifier.eval()
    scenes = training_scenes(work, count, 0)
    views, seen = (scenes.images, reconstructed(vae, scenes.images)), kinds_seen(scenes)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=2e-3, weight_decay=0.02, fused=True)
    schedule = Schedule(steps=epochs * count // batch, peak=2e-3, warm_up=100, cool_down=0.8)
    for step in tqdm(range(schedule.steps), desc="classifier"):
        optimizer.param_groups[0]["lr"] = schedule.rate(step)
        chosen = torch.randint(count, (batch,)).numpy()
        images = as_input(views[step % 2][chosen])
        logits = classifier(images.flip(-1) if step % 4 < 2 else images)
        loss = functional.binary_cross_entropy_with_logits(logits, seen[chosen])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(classifier.state_dict(), path)
    return classifier.eval()


@torch.no_grad()
def found(classifier: Classifier, images: np.ndarray, wanted: Tensor) -> float:
    """In how many images every wanted kind is found, as a fraction."""
    seen = torch.cat([classifier(part) for part in as_input(images).split(64)]) > 0
    return (seen | (wanted == 0)).all(1).float().mean().item()


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
    parser.add_argument("--scenes", type=int, default=16_000, help="for the classifier (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=6, help="of the classifier (default: %(default)s)")
    parser.add_argument("--samples", type=int, default=96, help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)

    vae = AutoencoderKL.from_pretrained(arguments.work / "vae")
    classifier = train_classifier(arguments.work, vae, arguments.scenes, arguments.epochs)
    unseen = render_shard("development", 3, 0, arguments.samples, ("easy",))
    wanted = kinds_seen(unseen)
    others = wanted.roll(1, 0)
    rebuilt = reconstructed(vae, unseen.images)
    print(f"renderings: {found(classifier, unseen.images, wanted):.3f}")
    print(f"reconstructions: {found(classifier, rebuilt, wanted):.3f}")
    print(f"reconstructions, other captions: {found(classifier, rebuilt, others):.3f}")
    prompts = [prompt_of(named) for named in unseen.named]
    for folder in arguments.pipelines:
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        images = sample(pipeline, prompts, arguments.seed)
        right, chance = found(classifier, images, wanted), found(classifier, images, others)
        print(f"{folder.name}: {right:.3f}, other captions {chance:.3f}")
        save_grid(list(images[:48].reshape(4, 12, *images.shape[1:]) / 255), folder.with_suffix(".samples.png"))


if __name__ == "__main__":
    main()
