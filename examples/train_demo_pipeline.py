"""Train the small Stable Diffusion pipeline that ships with diffsift, on digit scenes.

    python examples/train_demo_pipeline.py --out diffsift/demo_pipeline

Two stages: an autoencoder (32 px -> 16 x 16 x 4), then a U-Net with its text encoder on the autoencoder's latents
(v-prediction, prompts that name the digits, dropped for two images in five). Everything is drawn from the seed; a
checkpoint is written every few hundred steps and picked up when the command is repeated, so it can be interrupted. On
two CPU cores the defaults take about two hours. Beside the weights a grid of samples and reconstructions is written.
"""

# diffusers annotates some arguments more narrowly than it takes them, and outputs as unions.
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportCallIssue=false

from __future__ import annotations

import argparse
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from diffsift.datasets import SceneGenerator

DIGIT_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PROMPT_TOKENS = 8
PROMPT_DROPOUT = 0.4
TRAINING_SEED = 1_000_003  # far from the seeds that probes draw their scenes with


@dataclass(frozen=True)
class Batch:
    images: Tensor  # (batch, 3, size, size) in [-1, 1]
    prompts: list[str]


def draw_batch(scenes: SceneGenerator, step: int, size: int) -> Batch:
    drawn = [scenes.scene(step * size + offset) for offset in range(size)]
    images = torch.from_numpy(np.stack([scene.image for scene in drawn])).permute(0, 3, 1, 2)
    return Batch(images.float() / 127.5 - 1.0, [prompt_of(scene.digits) for scene in drawn])


def prompt_of(digits: tuple[int, ...]) -> str:
    return " and ".join(DIGIT_WORDS[digit] for digit in sorted(digits))


def build_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer whose whole vocabulary is the ten digit words, "and" and the letters they are made of."""
    words = (*DIGIT_WORDS, "and")
    letters = sorted(set("".join(words)))
    vocabulary = [*letters, *(letter + "</w>" for letter in letters)]
    merges = []
    for word in words:  # each word is merged letter by letter from its left end
        for end in range(1, len(word)):
            last = word[end] + ("</w>" if end == len(word) - 1 else "")
            merge = (word[:end], last)
            if merge not in merges:
                merges.append(merge)
                vocabulary.append("".join(merge))
    ids = {token: number for number, token in enumerate(dict.fromkeys(vocabulary))}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        ids[special] = len(ids)
    tokenizer = CLIPTokenizer(vocab=ids, merges=merges, model_max_length=PROMPT_TOKENS)
    for word in words:
        pieces = tokenizer.tokenize(word)
        if pieces != [word + "</w>"]:
            raise RuntimeError(f"the tokenizer must keep {word!r} whole, but splits it into {pieces}.")
    return tokenizer


def build_pipeline(seed: int) -> StableDiffusionPipeline:
    torch.manual_seed(seed)
    tokenizer = build_tokenizer()
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=64,
            intermediate_size=128,
            projection_dim=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=PROMPT_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=32,
        mid_block_add_attention=False,
    )
    unet = UNet2DConditionModel(
        sample_size=16,
        block_out_channels=(32, 64, 128),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        cross_attention_dim=64,
        attention_head_dim=(2, 4, 8),  # diffusers reads this as the number of heads: 16 channels each
        norm_num_groups=8,
    )
    scheduler = DDIMScheduler(
        beta_schedule="scaled_linear",
        beta_start=0.00085,
        beta_end=0.012,
        prediction_type="v_prediction",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def falling_rate(step: int, steps: int, peak: float) -> float:
    warm = min(1.0, (step + 1) / 200)
    return peak * warm * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * step / steps)))


class Stage:
    """One training stage with its checkpoint file: restores what an interrupted run left."""

    def __init__(self, name: str, folder: Path, modules: torch.nn.ModuleList, steps: int, rate: float) -> None:
        self.name, self.path, self.modules, self.steps, self.rate = name, folder / f"{name}.pt", modules, steps, rate
        self.parameters = [parameter for parameter in modules.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, weight_decay=0.01)
        self.average = EMAModel(self.parameters, decay=0.9995, use_ema_warmup=True, power=0.75)
        self.start = 0
        if self.path.exists():
            saved = torch.load(self.path, weights_only=True)
            modules.load_state_dict(saved["modules"])
            self.optimizer.load_state_dict(saved["optimizer"])
            self.average.load_state_dict(saved["average"])
            self.start = saved["step"]

    def save(self, step: int) -> None:
        state = {
            "modules": self.modules.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict(),
            "step": step,
        }
        partial = self.path.with_suffix(".partial")
        torch.save(state, partial)
        partial.replace(self.path)

    def run(self, loss_of_step: Any, every: int = 250) -> None:
        smooth: float | None = None
        progress = tqdm(range(self.start, self.steps), initial=self.start, total=self.steps, desc=self.name)
        for step in progress:
            for group in self.optimizer.param_groups:
                group["lr"] = falling_rate(step, self.steps, self.rate)
            loss = loss_of_step(step)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            self.average.step(self.parameters)
            smooth = loss.item() if smooth is None else 0.98 * smooth + 0.02 * loss.item()
            progress.set_postfix(loss=f"{smooth:.4f}", refresh=False)
            if (step + 1) % every == 0 or step + 1 == self.steps:
                self.save(step + 1)
        self.average.copy_to(self.parameters)


def train_autoencoder(vae: AutoencoderKL, scenes: SceneGenerator, folder: Path, steps: int, batch: int) -> None:
    stage = Stage("autoencoder", folder, torch.nn.ModuleList([vae]), steps, rate=2e-3)

    def loss_of_step(step: int) -> Tensor:
        images = draw_batch(scenes, step, batch).images
        torch.manual_seed(step)
        posterior = vae.encode(images).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        return (
            functional.l1_loss(decoded, images)
            + functional.mse_loss(decoded, images)
            + 1e-4 * posterior.kl().mean() / 256
        )

    stage.run(loss_of_step)
    vae.requires_grad_(False).eval()
    with torch.no_grad():
        latents = vae.encode(draw_batch(scenes, steps, 512).images).latent_dist.sample()
    vae.register_to_config(scaling_factor=round(1.0 / latents.std().item(), 5))


def train_denoiser(
    pipeline: StableDiffusionPipeline, scenes: SceneGenerator, folder: Path, steps: int, batch: int
) -> None:
    unet, text_encoder, scheduler = pipeline.unet, pipeline.text_encoder, pipeline.scheduler
    stage = Stage("denoiser", folder, torch.nn.ModuleList([unet, text_encoder]), steps, rate=2e-3)

    def loss_of_step(step: int) -> Tensor:
        drawn = draw_batch(scenes, step, batch)
        torch.manual_seed(step)
        with torch.no_grad():
            latents = pipeline.vae.encode(drawn.images).latent_dist.sample() * pipeline.vae.config.scaling_factor
        dropped = torch.rand(batch) < PROMPT_DROPOUT
        prompts = ["" if drop else prompt for drop, prompt in zip(dropped, drawn.prompts, strict=True)]
        tokens = pipeline.tokenizer(prompts, padding="max_length", max_length=PROMPT_TOKENS, return_tensors="pt")
        noise = torch.randn_like(latents)
        # Spread over the batch: evener cover of the noise levels than independent draws.
        spread = (torch.arange(batch) + torch.rand(batch)) / batch
        timesteps = (spread * scheduler.config.num_train_timesteps).long()[torch.randperm(batch)]
        noisy = scheduler.add_noise(latents, noise, timesteps)
        predicted = unet(noisy, timesteps, text_encoder(tokens.input_ids).last_hidden_state).sample
        target = scheduler.get_velocity(latents, noise, timesteps)
        return functional.mse_loss(predicted, target)

    stage.run(loss_of_step)
    unet.eval()
    text_encoder.eval()


def save_pictures(pipeline: StableDiffusionPipeline, folder: Path, seed: int) -> None:
    """`samples.png`: ten rows of one digit, one of pairs; `reconstructions.png`: scenes above what the VAE returns."""
    pipeline.set_progress_bar_config(disable=True)
    rows = [[word] * 8 for word in DIGIT_WORDS]
    rows.append([f"{DIGIT_WORDS[i]} and {DIGIT_WORDS[i + 2]}" for i in range(8)])
    generator = torch.Generator().manual_seed(seed)
    pictures = [
        pipeline(row, num_inference_steps=50, guidance_scale=3.0, generator=generator, output_type="np").images
        for row in rows
    ]
    save_grid(np.stack(pictures), folder / "samples.png")
    images = draw_batch(SceneGenerator("test", seed), 0, 16).images
    with torch.no_grad():
        decoded = pipeline.vae.decode(pipeline.vae.encode(images).latent_dist.mode()).sample
    both = torch.stack([images, decoded]).clamp(-1, 1).permute(0, 1, 3, 4, 2).numpy() / 2 + 0.5
    save_grid(both, folder / "reconstructions.png")


def save_grid(pictures: np.ndarray, path: Path, zoom: int = 3) -> None:
    rows, _, height, _, _ = pictures.shape
    joined = pictures.transpose(0, 2, 1, 3, 4).reshape(rows * height, -1, 3)
    picture = Image.fromarray((joined * 255).round().astype(np.uint8))
    picture.resize((picture.width * zoom, picture.height * zoom), Image.Resampling.NEAREST).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for the pipeline")
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"), help="folder for checkpoints")
    parser.add_argument("--autoencoder-steps", type=int, default=1_500)
    parser.add_argument("--denoiser-steps", type=int, default=7_500)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--detail", type=int, default=3, help="background colours per edge (32: the hard variant)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=None, help="CPU threads (default: all)")
    arguments = parser.parse_args()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    arguments.checkpoints.mkdir(parents=True, exist_ok=True)

    pipeline = build_pipeline(arguments.seed)
    scenes = SceneGenerator("train", TRAINING_SEED + arguments.seed, detail=arguments.detail)
    train_autoencoder(pipeline.vae, scenes, arguments.checkpoints, arguments.autoencoder_steps, arguments.batch)
    train_denoiser(pipeline, scenes, arguments.checkpoints, arguments.denoiser_steps, arguments.batch)
    pipeline.to(dtype=torch.float16).save_pretrained(arguments.out, safe_serialization=True)
    pipeline.to(dtype=torch.float32)
    save_pictures(pipeline, Path(__file__).parent, arguments.seed)
    print(
        json.dumps(
            {
                name: sum(p.numel() for p in getattr(pipeline, name).parameters())
                for name in ("vae", "unet", "text_encoder")
            }
        )
    )


if __name__ == "__main__":
    main()
